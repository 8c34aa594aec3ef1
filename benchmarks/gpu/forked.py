"""Start a part by forking this process, which has imported torch already; for the rehearsal.

There, imports would take longer than all the work. A real run starts each part anew: a process that
has touched a GPU cannot be forked.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from benchmarks.gpu.parent import die_with_parent

MODULES = ("benchmarks.gpu.guard", "benchmarks.gpu.part", "pytest")
_loaded = False


def preload() -> None:
    """Import what the parts need; from now on they are forked."""
    global _loaded
    from tests.quick_interpreter import make_quick  # imports Triton

    make_quick()
    for module in ("warm_share", "figures.ceilings", "figures.head_cuda", "gate.plants"):
        importlib.import_module(f"benchmarks.gpu.{module}")
    _loaded = True


def takes(command: list[str]) -> bool:
    """Whether the command is one that is forked."""
    return _loaded and command[:2] == [sys.executable, "-m"] and command[2] in MODULES


class Forked:
    """The part of ``subprocess.Popen`` that is used here, in a session of its own."""

    def __init__(
        self, command: list[str], stdout: Any, env: Mapping[str, str] | None = None, **other: Any
    ) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, stdout, env)

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # another wait reaped it
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked part", timeout)
            time.sleep(0.01)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)


def _become(command: list[str], stdout: Any, environment: Mapping[str, str] | None) -> NoReturn:
    """Do what a new process of that command would do."""
    code = 1
    try:
        os.setsid()
        die_with_parent()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        for descriptor in (1, 2):
            os.dup2(stdout.fileno(), descriptor)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        sys.argv = command[2:]
        code = importlib.import_module(command[2]).main() or 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
