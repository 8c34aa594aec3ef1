"""Run compute-sanitizer on a small case of each kernel, the CUDA kernel first, in the time left."""

import os
import shutil
import time

from benchmarks.gpu import processes
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import KERNELS

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
ERROR = 9  # exit status where the tool found something
LIMIT = 60.0
AT_ONCE = 8
# an allocation per tensor: an overrun cannot hide in a neighbour
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def run(job: Job) -> Lines:
    deadline = time.monotonic() + job.seconds - 4
    watch = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    if watch is None and not job.rehearsal:
        yield {"kind": "sanitizer", "failed_to_run": "compute-sanitizer is not installed"}
        return
    tasks = [
        processes.Task(
            f"{tool} {name}",
            [
                *([] if job.rehearsal else prefix(str(watch), tool)),
                *processes.part(job, "sanitized", "--small", "--kernel", name),
            ],
            LIMIT * job.patience,
            ENVIRONMENT,
        )
        for tool, name in order(job)
    ]
    for ended in processes.run_all(tasks, 1 if job.rehearsal else AT_ONCE, deadline):
        outcome = {0: "clean", ERROR: "FOUND"}.get(ended.code, ended.outcome)
        line = {"kind": "sanitizer", "case": ended.name, "outcome": outcome}
        if outcome not in ("clean", "unasked"):
            line["output"] = ended.output[-2500:]
        yield line | {"seconds": round(ended.seconds, 1)}


def prefix(watch: str, tool: str) -> list[str]:
    return [watch, "--tool", tool, "--error-exitcode", str(ERROR), "--print-limit", "20"]


def order(job: Job) -> list[tuple[str, str]]:
    """First every tool on the CUDA kernel, then tool by tool the other kernels."""
    names = [name for name in KERNELS if name not in job.without and name != "ff-whole"]
    if not job.is_hopper:
        names = [name for name in names if not KERNELS[name].only_hopper]
    if job.rehearsal:
        return [("memcheck", "dense-whole")]
    first = [(tool, name) for tool in TOOLS for name in names if name == "head-cuda"]
    return first + [(tool, name) for tool in TOOLS for name in names if name != "head-cuda"]
