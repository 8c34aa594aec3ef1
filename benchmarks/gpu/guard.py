"""Run a command for a limited time, and leave none of its processes behind, whatever dies.

``python -m benchmarks.gpu.guard SECONDS PARENT COMMAND...``: exits as the command did (128 + n for
signal n), with `STOPPED` when its time is over, or with `UNKILLABLE` when a process outlives
SIGKILL, as one that waits in the driver may. It also ends the command and its descendants when the
process PARENT ends, in whatever way.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import forked
from benchmarks.gpu.parent import adopt_orphans, die_with_parent

STOPPED, UNKILLABLE = 124, 125
PATIENCE = 5.0  # seconds for a killed process to end


def start(command: list[str], **options: Any) -> Any:
    """A process (``Popen``) in a session of its own that ends with this one."""
    if forked.takes(command):
        return forked.Forked(command, **options)
    return subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent, **options)


def descendants(root: int) -> set[int]:
    """The descendants of the process ``root`` that have not ended."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):  # it ended meanwhile
                continue
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    found, known = set(), {root}
    while new := {pid for pid, parent in parents.items() if parent in known} - found:
        found |= new
        known |= new
    return found - {root}


def end_all(patience: float = PATIENCE) -> set[int]:
    """Kill all descendants of this process; return those that do not die."""
    deadline = time.monotonic() + patience
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            return descendants(os.getpid())
        time.sleep(0.02)
    return set()


def main() -> None:
    seconds, parent, command = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    adopt_orphans()
    die_with_parent(signal.SIGTERM)
    status = STOPPED
    try:
        if os.getppid() == parent:  # else the parent ended before the signal was requested
            process = start(command, stdout=sys.stdout)
            try:
                code = process.wait(seconds)
                status = code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                print(f"stopped after {seconds:.0f} s", flush=True)
    finally:
        left = end_all()
        if left:
            print(f"cannot be killed: {sorted(left)}", flush=True)
            os._exit(UNKILLABLE)
    sys.exit(status)


if __name__ == "__main__":
    main()
