"""Run the same work from the same state many times: any difference between runs is a race."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu import kernels, launches, timing
from benchmarks.gpu.figures.farthest_first import clustered
from benchmarks.gpu.figures.kmeans_plusplus import Pool, badge, draw, plain
from benchmarks.gpu.figures.tracker import Pass
from benchmarks.gpu.job import Job, Lines
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.ops.pool_stats import (
    STAMP_STEP,
    pool_stats_update,
    pool_stats_update_from_features,
)

Call = Callable[[], list[Tensor]]  # resets the state, runs, and returns every tensor that it wrote


class Race(NamedTuple):
    """``make`` draws the inputs, once, on the device, and returns the call to repeat."""

    name: str
    needs: kernels.Needs
    make: Callable[[], Call]


def races(job: Job) -> Iterator[Race]:
    for num_classes in (10, 100, 1000, 5000):
        needs = kernels.UPDATE if num_classes <= 4096 else kernels.UPDATE_LONG
        yield Race(f"update C={num_classes}", needs, partial(_update, job, num_classes))
    for num_classes, needs in ((100, kernels.HEAD_ROW), (1000, kernels.HEAD)):
        name = f"head in Triton C={num_classes}"
        yield Race(name, needs, partial(_head, job, num_classes, "triton"))
    for labeled in (0, 2000):
        name = f"farthest_first labeled={labeled}"
        yield Race(name, kernels.FARTHEST_FIRST, partial(_farthest_first, job, labeled))
    for name, make, needs in (("plain", plain, kernels.RACE), ("badge", badge, kernels.PRODUCTS)):
        yield Race(f"kmeans_plusplus {name}", needs, partial(_kmeans_plusplus, job, make))
    yield Race("dense discrepancy", kernels.DENSE, partial(_dense, job))
    if job.is_hopper and not job.warm:  # last: it could take the device down
        yield Race("head in CUDA C++ C=1000", kernels.HEAD_CUDA, partial(_head, job, 1000, "cuda"))


def run(job: Job) -> Lines:
    """For each race, count which of ``repeats`` runs differ from the first in any bit."""
    with kernels.left_out(job.without), launches.compiled() as compiled:
        for race in races(job):
            if lacking := kernels.missing(race.needs, job.without):
                yield {"kind": "race", "name": race.name, "left_out": f"without {lacking}"}
                continue
            call = race.make()
            first = [tensor.clone() for tensor in call()]
            # counted on the device: only reading the sum waits
            differing = sum(_differ(first, call()) for _ in range(job.repeats - 1))
            line = {"kind": "race", "name": race.name, "repeats": job.repeats}
            yield line | {"differing": int(differing)}
            timing.synchronize(job)
    yield {"kind": "compiled", "kernels": sorted(set(compiled))}


def _differ(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Whether any bit differs, NaN or not."""
    pairs = zip(one, other, strict=True)
    return torch.stack([(_bits(a) != _bits(b)).any() for a, b in pairs]).any().long()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32) if tensor.dtype == torch.float32 else tensor


def _bad_ids(job: Job, n: int) -> Tensor:
    """Random ids: some occur twice, one is unknown."""
    ids = torch.randperm(n, device=job.device)
    ids[n // 2 : n // 2 + 8] = ids[:8]
    ids[-3] = n + 3
    return ids


def _twice(rows: Tensor) -> Tensor:
    """Give equal ids equal rows: then it must not matter which of them counts."""
    n = len(rows)
    rows[n // 2 : n // 2 + 8] = rows[:8]
    return rows


def _passes(sweep: Pass, batches: list[tuple[Tensor, ...]], update: Callable[..., None]) -> Call:
    def call() -> list[Tensor]:
        sweep.reset()
        for batch in batches:
            sweep.pass_stamp.add_(STAMP_STEP)
            update(*batch, *sweep.tensors)
        return [sweep.stamp, sweep.unknown_ids[:1], *sweep.state.values()]

    return call


def _update(job: Job, num_classes: int) -> Call:
    torch.manual_seed(num_classes)
    n, classes = job.size(4096, 33), job.size(num_classes, min(num_classes, 33))
    batches = []
    for _ in range(job.size(3, 2)):
        logits = _twice(3 * torch.randn(n, classes, device=job.device))
        logits[20, 1] = float("nan")
        batches.append((_bad_ids(job, n), logits, None))
    return _passes(Pass(job, n, classes, n), batches, partial(pool_stats_update, backend="triton"))


def _head(job: Job, num_classes: int, backend: str) -> Call:
    torch.manual_seed(num_classes)
    n, classes = job.size(4096, 33), job.size(num_classes, min(num_classes, 150))
    width = job.size(768, 16)
    weight = (torch.randn(classes, width, device=job.device) / width**0.5).bfloat16()
    batches = []
    for _ in range(2):
        features = _twice(torch.randn(n, width, device=job.device)).bfloat16()
        batches.append((_bad_ids(job, n), features, weight, None, None, None, None))
    update = partial(pool_stats_update_from_features, backend=backend)
    return _passes(Pass(job, n, classes, n), batches, update)


def _farthest_first(job: Job, labeled: int) -> Call:
    d, k = job.size(65, 3), job.size(1500, 4)
    pool = clustered(job.size(20_000, 20), d, job.device, 0)
    pool = torch.cat([pool, pool[::7]])  # duplicates
    rows = clustered(job.size(labeled, 9), d, job.device, 1) if labeled else None

    def call() -> list[Tensor]:
        got = farthest_first(pool, k, rows, progress=False, backend="triton")
        return [got.indices, got.distances, torch.tensor(got.radius, device=job.device)]

    return call


def _kmeans_plusplus(job: Job, make: Callable[[Job], tuple[Pool, int]]) -> Call:
    pool, k = make(job)
    return lambda: [draw(pool[: len(pool) // 4], k // 4 + 1, "triton")]


def _dense(job: Job) -> Call:
    torch.manual_seed(0)
    shape = (2, 19, job.size(512, 5), job.size(512, 7))
    maps = [3 * torch.randn(shape, device=job.device) for _ in range(2)]
    return lambda: [dense_discrepancy(*maps, backend="triton")]
