"""Compile every Triton kernel of the run before it is needed, in 12 processes.

The key of Triton's cache holds the types, divisibility and constants of a launch, the options and
the device. The warm-up therefore runs the run's own code with its inputs on the device: every check
of the gate, every figure and every search for races, once. Each part then reports what it still had
to compile.
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
