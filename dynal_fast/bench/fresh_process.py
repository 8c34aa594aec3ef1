"""Call a function in a fresh Python process, whose time and memory nothing before has touched.

The child's main program is this module: ``python -m dynal_fast.bench.fresh_process JOB RESULT``.
"""

import contextlib
import fcntl
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def call(
    function: str,
    arguments: dict[str, Any],
    *,
    threads: int,
    timeout: float,
    lock: Path | None = None,
) -> dict[str, Any]:
    """What ``module:function(**arguments)`` returns, a JSON object, or ``{"unavailable": why}``.

    With ``lock``, a file, calls that share it wait for each other.
    """
    job = {"function": function, "arguments": arguments, "threads": threads}
    with tempfile.TemporaryDirectory() as folder, exclusive(lock):
        job_path, result_path = Path(folder, "job.json"), Path(folder, "result.json")
        job_path.write_text(json.dumps(job))
        try:
            process = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", __name__, str(job_path), str(result_path)],
                capture_output=True,
                text=True,
                errors="replace",
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"unavailable": f"took over {timeout:.0f} s"}
        if not result_path.exists():
            return {"unavailable": _death(process.returncode, process.stderr)}
        return json.loads(result_path.read_text())


def _death(code: int, errors: str) -> str:
    if code == -9:
        return "killed, probably for memory"
    if code < 0:
        return f"crashes with signal {-code}"
    lines = errors.strip().splitlines()
    return f"fails: {lines[-1][:120] if lines else f'exit code {code}'}"


@contextlib.contextmanager
def exclusive(lock: Path | None) -> Iterator[None]:
    """Hold a lock file, so that runs that share it do not measure at the same time."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def failure(error: Exception) -> dict[str, Any]:
    """The result of a call that raised: the reason; the traceback goes to stderr.

    >>> failure(MemoryError())
    {'unavailable': 'does not fit into memory'}
    """
    if isinstance(error, MemoryError):
        return {"unavailable": "does not fit into memory"}
    traceback.print_exception(error)
    lines = str(error).strip().splitlines() or ["no message"]
    return {"unavailable": f"fails: {type(error).__name__}: {lines[0][:120]}"}


def main(job_path: str, result_path: str) -> None:
    """Read a job and write its result, which may be the reason of a failure."""
    import torch

    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])
    module, name = job["function"].split(":")
    try:
        result = getattr(importlib.import_module(module), name)(**job["arguments"])
    except Exception as error:
        result = failure(error)
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
