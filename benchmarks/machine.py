"""The suites' sizes, and the devices of this machine that they run on."""

import dataclasses
import os

from tests.triton_device import DEVICE

OURS = "dynal_fast"  # its backend for a device: compiled C++ on a CPU, Triton on a GPU
REFERENCE = "reference"  # NumPy in float64, in small groups
DEVICES = sorted({"cpu", DEVICE})
SCALE = float(os.environ.get("DYNAL_FAST_BENCH_SCALE", "1"))  # of pools, labeled sets and picks


def scaled(case):
    """Return a case of ``dynal_fast.bench`` with the number of its samples times ``SCALE``."""
    sizes = {field.name for field in dataclasses.fields(case)} & {"n", "k", "labeled"}
    return dataclasses.replace(case, **{name: int(getattr(case, name) * SCALE) for name in sizes})


def on_device(title, device):
    """Return the name of a group; on a GPU it names the device too."""
    return title if device == "cpu" else f"{title}, on {device}"
