"""Run the parts one after another within their limits, and write down how each ended.

This process neither touches a GPU nor imports torch, so only a part can crash there.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.gpu import forked, guard, lines, plan, record, rehearsal, table
from benchmarks.gpu.kernels import KERNELS

ROOT = Path(__file__).parents[2]
LOG, LOG_LIMIT = "log.txt", 12 << 20  # limit of what all parts print, in bytes
BACKSTOP = 20  # seconds to wait for a guard that does not answer
ANSWERS = "import torch; print(float(torch.ones(1, device='cuda').add(1)))"


class Run:
    """One call: its remaining time, and where it writes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.output = options, options.output.resolve()
        self.begin = time.monotonic()
        self.patience = rehearsal.PATIENCE if options.rehearse else 1
        self.running: dict[str, Any] = {}
        self.lost = ""  # why no further part can run
        self.note({"kind": "call", "date": _now(), "options": sys.argv[1:], "commit": commit()})

    @property
    def left(self) -> float:
        return self.begin + plan.TOTAL * self.patience - time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begin:4.0f} s] {text}", flush=True)

    def note(self, line: lines.Line) -> None:
        try:
            lines.append(self.output, line)
        except OSError as error:  # a full disk must not end the run: it still prints
            self.say(f"cannot write results: {error}")

    def step(self, step: plan.Step, later: float) -> None:
        """Run the parts of a step at the same time, and write the record anew."""
        seen = lines.size(self.output)
        limits = {
            part.name: self.limit(part, later * self.patience)
            for part in step.parts
            if not self.lost
        }
        begin, start = time.monotonic(), self.log_size()
        self.say(
            " + ".join(f"{name} (at most {seconds:.0f} s)" for name, seconds in limits.items())
        )
        waiting = {}
        for part in step.parts:
            if self.lost or limits[part.name] < 1:
                self.ended(part, f"skipped: {self.lost or 'no time left'}", 0.0, start)
                continue
            try:
                waiting[part.name] = part, self.start(part, limits[part.name])
            except OSError as error:
                self.ended(part, f"failed to start: {error}", 0.0, start)
        self.running = {name: process for name, (_, process) in waiting.items()}
        while waiting:
            for name, (part, process) in list(waiting.items()):
                seconds = time.monotonic() - begin
                code = process.poll()
                if code is None and self.log_size() > LOG_LIMIT:
                    self.stop(process)
                    code = "failed: it printed too much"
                    os.truncate(self.output / LOG, start + (1 << 16))
                if code is None and seconds > limits[name] + guard.PATIENCE + BACKSTOP:
                    self.stop(process)
                    code = guard.UNKILLABLE
                if code is not None:
                    self.ended(part, outcome(code, limits[name]), seconds, start)
                    del waiting[name], self.running[name]
            time.sleep(0.05)
        for line in lines.read(self.output, seen):
            if text := table.line(line):
                print(f"         {text}", flush=True)
        self.write()

    def limit(self, part: plan.Part, later: float) -> float:
        patience = 1 if part in plan.PLANTED_FAILURES else self.patience
        scaled = plan.Part(
            part.name, "", part.expected * patience, part.limit * patience, part.answers
        )
        return plan.limit(scaled, self.left, later)

    def start(self, part: plan.Part, seconds: float) -> Any:
        options = self.options
        command = [sys.executable, "-m", "benchmarks.gpu.part", part.module, "--name", part.name]
        command += ["--output", str(self.output), "--repeats", str(options.repeats)]
        command += ["--seconds", str(seconds)]
        command += [*part.arguments, *(["--rehearse"] if options.rehearse else [])]
        command += ["--without", *options.without] if options.without else []
        command += ["--plant", *options.plant] if options.plant else []
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        watched = [sys.executable, "-m", "benchmarks.gpu.guard", str(seconds), str(os.getpid())]
        with open(self.output / LOG, "ab") as log:
            return guard.start(
                watched + command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, process: Any) -> None:
        process.terminate()  # the guard then ends its descendants, too
        try:
            process.wait(guard.PATIENCE + 5)
        except subprocess.TimeoutExpired:
            process.kill()

    def ended(self, part: plan.Part, how: str, seconds: float, start: int) -> None:
        line = {"kind": "part", "part": part.name, "outcome": how, "seconds": round(seconds, 1)}
        if how != "done" and not how.startswith("skipped"):
            line["output"] = self.printed(start)[-3000:]
        self.note(line)
        self.say(f"{part.name}: {how}")
        if "output" in line and part not in plan.PLANTED_FAILURES:
            print(line["output"][-700:], flush=True)
        if part.name == "environment" and how != "done":
            self.lost = "there is no GPU to run on"
        elif how.startswith(("stopped", "could not")) and not self.options.rehearse:
            self.ask_device()

    def ask_device(self) -> None:
        """Check whether the device still answers; if not, every other part would hang."""
        watched = ["-m", "benchmarks.gpu.guard", "30", str(os.getpid()), sys.executable, "-c"]
        try:
            asked = subprocess.run(
                [sys.executable, *watched, ANSWERS], cwd=ROOT, capture_output=True, timeout=60
            )
            answers = asked.returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            answers = False
        if not answers:
            self.lost = "the device does not answer any more"
            self.say(self.lost)

    def log_size(self) -> int:
        path = self.output / LOG
        return path.stat().st_size if path.exists() else 0

    def printed(self, start: int) -> str:
        with open(self.output / LOG, "rb") as log:
            log.seek(max(start, self.log_size() - 20_000))
            return log.read().decode(errors="replace")

    def write(self) -> record.Record:
        found = record.of(lines.read(self.output))
        try:
            record.write(found, self.output)
        except Exception as error:  # in any case the remaining parts must run
            self.say(f"cannot write the record: {error!r}")
        return found


def outcome(code: int | str, limit: float) -> str:
    """How a guarded part ended, in words."""
    if isinstance(code, str):
        return code
    if code == guard.STOPPED:
        return f"stopped after {limit:.0f} s"
    if code == guard.UNKILLABLE:
        return f"could not be killed after {limit:.0f} s"
    if code < 0 or code > 128:
        return f"killed by {signal.Signals(-code if code < 0 else code - 128).name}"
    return "done" if code == 0 else f"failed with exit status {code}"


def main() -> None:
    """Run what the options ask for; exit with an error where something was wrong."""
    options = _options()
    if options.record:
        print(table.of(record.write(record.of(lines.read(options.output)), options.output)))
        return
    parts = plan.chosen(options.only, options.build)
    if options.rehearse:
        options.plant, options.repeats = rehearsal.PLANTS, 2
        if not options.only:
            parts += plan.PLANTED_FAILURES
        os.environ.update(rehearsal.ENVIRONMENT)
        os.chdir(ROOT)
        forked.preload()
    print(plan.schedule(parts), flush=True)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _interrupted)
    run = Run(options)
    todo = plan.steps(parts)
    try:
        for i, step in enumerate(todo):
            run.step(step, sum(after.expected for after in todo[i + 1 :]))
    except KeyboardInterrupt as error:
        run.say(f"interrupted by {error}")
        for process in run.running.values():
            run.stop(process)
        run.note({"kind": "part", "part": "the run", "outcome": f"interrupted by {error}"})
    found = run.write()
    problems = rehearsal.problems(found) if options.rehearse else record.problems(found)
    for problem in problems:  # before the table, which must be within the last 12,000 characters
        print(f"PROBLEM: {problem}")
    if options.rehearse:
        print("\n".join(rehearsal.LEFT_OUT))
    print(table.of(found), flush=True)
    print(f"written to {run.output} after {time.monotonic() - run.begin:.0f} s", flush=True)
    raise SystemExit(1 if problems else 0)


def _interrupted(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description=__doc__)
    names = [part.name for part in plan.PARTS]
    parser.add_argument("--output", type=Path, required=True, help="the folder for what is found")
    parser.add_argument("--only", nargs="+", default=[], choices=names, metavar="PART")
    parser.add_argument("--no-build", dest="build", action="store_false")
    parser.add_argument("--without", nargs="+", default=[], metavar="KERNEL", help="leave out")
    parser.add_argument("--repeats", type=int, default=50, help="of the search for races")
    parser.add_argument("--rehearse", action="store_true", help="every part on the CPU, small")
    parser.add_argument("--record", action="store_true", help="only make record and table anew")
    options = parser.parse_args()
    options.plant = []
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output must be a folder that can be written to: {error}")
    if unknown := set(options.without) - set(KERNELS):
        parser.error(f"--without takes {', '.join(KERNELS)}; got {', '.join(sorted(unknown))}")
    if options.repeats < 2:
        parser.error(f"--repeats must be at least 2, got {options.repeats}")
    return options


def commit() -> str:
    """The commit that runs, and whether files were changed since."""
    said = []
    for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")):
        try:
            run = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        except OSError:
            return "unknown: no git"
        said.append(run.stdout.strip())
    return f"{said[0] or 'unknown'}{' with changes' if said[1] else ''}"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
