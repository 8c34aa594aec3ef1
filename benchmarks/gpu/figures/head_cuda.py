"""``pool_stats_update_from_features`` in CUDA C++ for Hopper; last, as it may crash the device."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu import figures
from benchmarks.gpu.figures import Case
from benchmarks.gpu.figures.head import BATCHES, Heads
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import HEAD_CUDA


def cases(job: Job) -> Iterator[Case]:
    for batches in BATCHES:
        name = f"head in CUDA C++ C=1000, {batches}"
        yield Case(name, HEAD_CUDA, partial(_fused, job, batches, name))


def _fused(job: Job, batches: str, name: str) -> Lines:
    from dynal_fast.ops.pool_stats.cuda import fits

    heads = Heads(job, 1000, batches)
    if not job.on_gpu or not fits(heads.features, heads.weight, heads.bias, heads.sweep.state):
        yield {"kind": "figure", "name": name, "left_out": "no Hopper, or not built"}
        return
    yield heads.measured(name, partial(heads.fused, "cuda"))


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
