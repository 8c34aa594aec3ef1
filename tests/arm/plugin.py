"""Put the emulated kernels in the place of ``dynal_fast._C`` before any test is collected."""

import sys
import tempfile
from pathlib import Path

import dynal_fast
from tests.arm import emulated

_folder = tempfile.TemporaryDirectory()
_module = emulated.extension(emulated.Server(emulated.build(Path(_folder.name))))
sys.modules["dynal_fast._C"] = dynal_fast._C = _module


def pytest_report_header() -> str:
    return f"kernels: of Arm, by {emulated.COMPILER}, run by {emulated.EMULATOR}"
