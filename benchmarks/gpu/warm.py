"""Compile every Triton kernel of the run before it is needed, in 12 processes.

Triton's cache goes by the types, the divisibility and the constants of a launch, the options and
the device. So that what is compiled is what is launched, the same code runs, on the device itself,
with the inputs of the run: every check of the gate, every figure and every search for races, once.
Each part then says what it still had to compile.
"""

import time

from benchmarks.gpu import processes
from benchmarks.gpu.job import Job, Lines

PROCESSES = 12
LIMIT = 100.0  # seconds of one process


def run(job: Job) -> Lines:
    deadline = time.monotonic() + job.seconds - 4
    started = 1 if job.rehearsal else PROCESSES  # of a rehearsal, one share is enough
    tasks = [
        processes.Task(
            f"share {i}",
            processes.part(
                job, "warm_share", "--warm", "--share", str(i), str(PROCESSES), name="warm"
            ),
            LIMIT * job.patience,
        )
        for i in range(started)
    ]
    for ended in processes.run_all(tasks, started, deadline):
        if ended.outcome != "done":
            yield {
                "kind": "warm",
                "share": ended.name,
                "outcome": ended.outcome,
                "output": ended.output[-1500:],
            }
