"""Puts the emulated kernels in the place of ``dynal_fast._C`` before any test is collected."""

import sys
import tempfile
from pathlib import Path

import dynal_fast
from dynal_fast.ops.farthest_first import cpu
from tests.arm import emulated


def pytest_configure(config):
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    module = emulated.extension(emulated.Server(emulated.build(Path(folder.name))))
    sys.modules["dynal_fast._C"] = dynal_fast._C = module
    cpu.SMALL = -1  # the server has the kernels, not the rounds that are made of them


def pytest_report_header():
    return f"kernels: of Arm, by {emulated.COMPILER}, run by {emulated.EMULATOR}"
