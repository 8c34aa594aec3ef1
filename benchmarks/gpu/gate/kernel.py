"""Compare one kernel with its reference, in a process of its own."""

import importlib
import os
import signal
import time
import traceback
from typing import Any

from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import KERNELS, Kernel, left_out


def run(job: Job) -> Lines:
    for name in job.kernels:
        begin = time.monotonic()
        plant = job.plants.get(name, "")
        if plant == "hang":
            time.sleep(3600)
        if plant == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            found = _checked(job, name, plant)
        except Exception:
            found = {"status": "died", "output": traceback.format_exc()[-1500:]}
        yield {"kind": "kernel", "kernel": name, **found, "seconds": _rounded(begin)}


def _checked(job: Job, name: str, plant: str) -> dict[str, Any]:
    """The kernel's status: agrees, wrong, not here (another device), missing (not built)."""
    kernel = KERNELS[name]
    if kernel.only_hopper and not job.is_hopper:
        return {"status": "not here"}
    if name == "head-cuda":
        from dynal_fast._extension import load_cuda

        if load_cuda() is None:
            return {"status": "missing"}
    from benchmarks.gpu.gate.plants import planted
    from benchmarks.gpu.launches import launched

    if job.on_gpu:
        poison()
    with launched() as ran, planted(kernel.function if plant == "fault" else ""):
        checks = checks_of(job, kernel)
    bad = [check for check in checks if check["wrong"]]
    status = "wrong" if bad else "agrees"
    cases = [check["ran"] for check in checks if "ran" in check] or [ran]
    if any(
        kernel.function not in names for names in cases
    ):  # then the check did not run the kernel
        status = "not run"
    return {
        "status": status,
        "ran": ran,
        "error": max(check["error"] for check in checks),
        "checks": len(checks),
        "wrong": bad,
    }


def checks_of(job: Job, kernel: Kernel) -> list[dict[str, Any]]:
    """Run a kernel's checks."""
    module, _, function = kernel.check.partition(":")
    check = getattr(importlib.import_module(f"benchmarks.gpu.gate.{module}"), function)
    # on Hopper another kernel would take the long rows
    others = ["head-split"] if kernel.function == "update_long_rows" else []
    with left_out(others):
        return list(check(job))


def poison() -> None:
    """Fill what torch allocates with NaN, which shows what a kernel does not write."""
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def _rounded(begin: float) -> float:
    return round(time.monotonic() - begin, 1)
