"""One process's share of the warm-up, and how many kernels it compiled."""

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator

from benchmarks.gpu import launches, races, timing
from benchmarks.gpu.gate.kernel import checks_of
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import KERNELS

FIGURES = ("compiled", "farthest_first", "kmeans_plusplus", "pool_stats", "head", "observation")
Work = tuple[str, Callable[[], object]]


def work(job: Job) -> Iterator[Work]:
    """Everything that launches a Triton kernel in the run, the slowest to compile first."""
    for module in FIGURES:
        for case in importlib.import_module(f"benchmarks.gpu.figures.{module}").cases(job):
            yield case.name, lambda case=case: list(case.run())
    small = dataclasses.replace(job, small=True)  # what the sanitizer watches
    for name, kernel in KERNELS.items():
        if name == "head-cuda" or (kernel.only_hopper and not job.is_hopper):
            continue
        yield f"gate {name}", lambda kernel=kernel: checks_of(job, kernel)
        if job.on_gpu:
            yield f"sanitizer {name}", lambda kernel=kernel: checks_of(small, kernel)
    for race in races.races(job):
        yield f"races {race.name}", lambda race=race: race.make()()


def run(job: Job) -> Lines:
    """Run every n-th piece; a piece that fails is reported by the part that needs it."""
    index, count = job.share
    begin, failed, done = time.monotonic(), {}, 0
    with launches.compiled() as compiled:
        for name, call in list(work(job))[index::count]:
            try:
                call()
                timing.synchronize(job)
                done += 1
            except Exception as error:
                failed[name] = repr(error)[:200]
    yield {
        "kind": "warm",
        "share": index,
        "outcome": "done",
        "done": done,
        "compiled": len(compiled),
        "failed": failed,
        "seconds": round(time.monotonic() - begin, 1),
    }
