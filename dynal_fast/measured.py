"""Wall-clock time and peak extra memory of a block of code."""

import ctypes
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from dynal_fast.plain import Count, NotNegative

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATM = Path("/proc/self/statm")
_SAMPLING_SECONDS = 0.002


@dataclass
class Measurement:
    """What a step took; ``memory_method`` says how the memory was measured."""

    seconds: NotNegative = 0.0
    peak_extra_bytes: Count = 0
    memory_method: str = ""


@contextmanager
def measured(device: torch.device | None = None) -> Iterator[Measurement]:
    """Measure the block: wall-clock seconds and how far memory rose above its start.

    On a CUDA device it is the allocator's peak, and the device is synchronised at both ends.
    On Linux it is the kernel's own high-water mark of resident memory (``VmHWM``), reset at the
    start. Where it cannot be reset, a thread samples the resident memory every 2 ms. On other
    systems it is the rise of the process's maximum, which misses peaks below an earlier one.

    >>> with measured() as step:
    ...     block = bytearray(50_000_000)
    >>> step.seconds > 0
    True
    """
    result = Measurement()
    _release_free_memory()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        probe = _cuda_peak(device, result)
    elif _reset_high_water():
        probe = _kernel_peak(result)
    elif _STATM.exists():
        probe = _sampled_peak(result)
    else:
        probe = _process_peak(result)
    with probe:
        start = time.perf_counter()
        try:
            yield result
        finally:
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            result.seconds = time.perf_counter() - start


def _release_free_memory() -> None:
    """Return free C heap memory to the system: a block that reused it would seem to need none."""
    with suppress(OSError, TypeError, AttributeError):  # elsewhere than with glibc
        ctypes.CDLL(None).malloc_trim(0)


def _reset_high_water() -> bool:
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {key}")


@contextmanager
def _kernel_peak(result: Measurement) -> Iterator[None]:
    result.memory_method = "kernel high-water mark (VmHWM)"
    start = _status_bytes("VmRSS:")
    yield
    result.peak_extra_bytes = max(0, _status_bytes("VmHWM:") - start)


@contextmanager
def _sampled_peak(result: Measurement) -> Iterator[None]:
    result.memory_method = "resident memory sampled every 2 ms"
    page = resource.getpagesize()
    start = peak = int(_STATM.read_text().split()[1]) * page
    stop = threading.Event()

    def sample() -> None:
        nonlocal peak
        while True:
            peak = max(peak, int(_STATM.read_text().split()[1]) * page)
            if stop.wait(_SAMPLING_SECONDS):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    result.peak_extra_bytes = peak - start


@contextmanager
def _process_peak(result: Measurement) -> Iterator[None]:
    result.memory_method = "rise of the process maximum (ru_maxrss)"
    unit = 1 if sys.platform == "darwin" else 1024
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    result.peak_extra_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * unit


@contextmanager
def _cuda_peak(device: torch.device, result: Measurement) -> Iterator[None]:
    result.memory_method = "CUDA allocator peak"
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    yield
    result.peak_extra_bytes = torch.cuda.max_memory_allocated(device) - start
