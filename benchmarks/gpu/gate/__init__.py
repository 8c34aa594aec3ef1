"""Compare every kernel with the float64 reference, each in a process of its own.

Later parts leave out the kernels that are wrong, hang or die here, and take their fall-backs.
"""

import time

from benchmarks.gpu import lines, processes
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import KERNELS

LIMIT = 30.0  # seconds of one kernel; most of it is starting Python, torch and the device
AT_ONCE = 12


def run(job: Job) -> Lines:
    """Start the processes, which write their own lines; report those that ended without one."""
    deadline = time.monotonic() + job.seconds - 4
    names = list(job.kernels or KERNELS)
    tasks = [
        processes.Task(
            " ".join(group),
            processes.part(job, "gate.kernel", "--kernel", *group, name="gate"),
            3.0 if job.plants.get(group[0]) == "hang" else LIMIT * job.patience,
        )
        for group in _groups(job, names)
    ]
    for ended in processes.run_all(tasks, AT_ONCE if job.on_gpu else 2, deadline):
        said = {line["kernel"] for line in lines.this_call(job.output) if line["kind"] == "kernel"}
        for name in ended.name.split():
            if name not in said:
                status = {"done": "died", "failed": "died"}.get(ended.outcome, ended.outcome)
                yield {
                    "kind": "kernel",
                    "kernel": name,
                    "status": status,
                    "seconds": round(ended.seconds, 1),
                    "output": ended.output[-1500:],
                }


def _groups(job: Job, names: list[str]) -> list[list[str]]:
    """One kernel per process; in a rehearsal, where starting is slowest, several good ones."""
    if not job.rehearsal:
        return [[name] for name in names]
    good = [name for name in names if name not in job.plants]
    half = -(-len(good) // 2)
    return [*([name] for name in names if name in job.plants), good[:half], good[half:]]
