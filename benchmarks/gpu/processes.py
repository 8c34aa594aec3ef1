"""Run several processes of one part at a time, each with its own limit."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from benchmarks.gpu import guard
from benchmarks.gpu.job import Job


class Task(NamedTuple):
    """A command that may take ``limit`` seconds, and additions to its environment."""

    name: str
    command: list[str]
    limit: float
    environment: dict[str, str] | None = None


class Ended(NamedTuple):
    """``outcome``: done, failed, died, hung, or unasked where no time was left."""

    name: str
    outcome: str
    seconds: float
    output: str
    code: int | None = None


def part(job: Job, module: str, *arguments: str, name: str = "") -> list[str]:
    """The command of another part with the same job."""
    command = [sys.executable, "-m", "benchmarks.gpu.part", module, "--output", str(job.output)]
    command += ["--name", name] if name else []
    command += ["--rehearse"] if job.rehearsal else []
    command += ["--small"] if job.small else []
    command += ["--plant", *(f"{k}={v}" for k, v in job.plants.items())] if job.plants else []
    command += ["--without", *sorted(job.without)] if job.without else []
    return command + list(arguments)


def run_all(tasks: list[Task], at_once: int, deadline: float) -> Iterator[Ended]:
    """Run them in order, ``at_once`` at a time, until ``deadline`` of the monotonic clock."""
    waiting, running = list(tasks), []
    threads = str(max(1, (os.cpu_count() or 1) // at_once))  # otherwise each would take all cores
    while waiting or running:
        now = time.monotonic()
        while waiting and len(running) < at_once and now < deadline:
            task = waiting.pop(0)
            output = tempfile.TemporaryFile()  # noqa: SIM115 - until the process ends
            environment = {"OMP_NUM_THREADS": threads, **os.environ, **(task.environment or {})}
            try:
                process = guard.start(
                    task.command, stdout=output, stderr=subprocess.STDOUT, env=environment
                )
            except OSError as error:
                yield Ended(task.name, "failed", 0.0, str(error))
                continue
            running.append((task, process, now, output))
        if waiting and now >= deadline:
            yield from (Ended(task.name, "unasked", 0.0, "") for task in waiting)
            waiting = []
        for entry in list(running):
            task, process, begin, output = entry
            seconds = time.monotonic() - begin
            code = process.poll()
            if code is None and (seconds > task.limit or time.monotonic() > deadline):
                _kill(process)
                yield Ended(task.name, "hung", seconds, _tail(output))
            elif code is not None:
                outcome = "done" if code == 0 else "failed" if code > 0 else "died"
                yield Ended(task.name, outcome, seconds, _tail(output), code)
            else:
                continue
            running.remove(entry)
        time.sleep(0.02)


def _kill(process: Any) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(1)
    except (OSError, subprocess.TimeoutExpired):
        pass  # the part's guard tries again when it ends


def _tail(output: IO[bytes]) -> str:
    output.seek(max(0, output.seek(0, os.SEEK_END) - 3000))
    return output.read().decode(errors="replace")
