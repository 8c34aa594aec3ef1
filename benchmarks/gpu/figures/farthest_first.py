"""``farthest_first`` beside the strong baseline: matrix products and no synchronisation."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu import figures, timing
from benchmarks.gpu.figures import Case, measured
from benchmarks.gpu.figures.certificate import shortfall
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import FARTHEST_FIRST
from dynal_fast.ops.farthest_first import contract, farthest_first, heads
from dynal_fast.ops.farthest_first.kernels import Groups

BLOCK = 8192  # pool rows for which the baseline holds the distances to the labeled set at once
HEADS = (2048, 3072, 4096)  # rows; a block of 4,096 takes 67 MB, more than an L2 holds


def clustered(n: int, d: int, device: str, seed: int) -> Tensor:
    """Features (n, d) of a ReLU layer over a mixture of 100 Gaussians in 64 dimensions."""
    layer = torch.Generator(device).manual_seed(12345)
    centers = 2 * torch.randn(100, 64, generator=layer, device=device)
    weight = torch.randn(64, d, generator=layer, device=device) / 8
    bias = 0.1 * torch.randn(d, generator=layer, device=device)
    rng = torch.Generator(device).manual_seed(seed)
    latent = centers[torch.randint(100, (n,), generator=rng, device=device)]
    latent = latent + torch.randn(n, 64, generator=rng, device=device)
    return torch.relu(latent @ weight + bias)


def gaussian(n: int, d: int, device: str, seed: int) -> Tensor:
    """Independent standard Gaussian features (n, d): the worst case for any pruning."""
    rng = torch.Generator(device).manual_seed(seed)
    return torch.randn(n, d, generator=rng, device=device)


def baseline(pool: Tensor, k: int, labeled: Tensor | None) -> Tensor:
    """Greedy k-center picks (k,): precomputed norms, one matrix-vector product a pick."""
    norms = (pool * pool).sum(1)
    minimum = torch.full_like(norms, float("inf"))
    if labeled is not None:
        labeled_norms = (labeled * labeled).sum(1)
        for start in range(0, len(pool), BLOCK):
            block = torch.addmm(labeled_norms, pool[start : start + BLOCK], labeled.T, alpha=-2)
            minimum[start : start + BLOCK] = block.amin(1)
        minimum += norms
    picks = torch.empty(k, dtype=torch.int64, device=pool.device)
    for step in range(k):
        pick = minimum.argmax(0, keepdim=True)
        picks[step : step + 1] = pick
        distances = torch.addmv(norms, pool, pool[pick].squeeze(0), alpha=-2) + norms[pick]
        torch.minimum(minimum, distances, out=minimum)
        minimum.index_fill_(0, pick, float("-inf"))
    return picks


class Traversals:
    """A pool, a labeled set, and every way of traversing them."""

    def __init__(
        self, job: Job, features: Callable[..., Tensor], labeled: bool, k: tuple[int, int]
    ) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False  # for the baseline
        n, d = job.size(150_000, 24), job.size(512, 8)
        rows = job.size(25_000, 9)
        self.job, self.k = job, job.size(*k)
        self.pool = features(n, d, job.device, 0)
        self.labeled = features(rows, d, job.device, 1) if labeled else None
        self.bound = job.bound(self.pool.numel() * self.pool.element_size())
        self.details = {"n": n, "d": d, "labeled": rows if labeled else 0, "k": self.k}

    def ours(self) -> Tensor:
        return farthest_first(
            self.pool, self.k, self.labeled, progress=False, backend="triton"
        ).indices

    def theirs(self) -> Tensor:
        return baseline(self.pool, self.k, self.labeled)

    def measured(
        self, name: str, call: Callable[[], Tensor], repeats: int, warm_up: int
    ) -> dict[str, Any]:
        return measured(
            self.job,
            name,
            call,
            error=lambda timed: shortfall(self.pool, timed(), self.labeled),
            bound=self.bound,
            graph=False,
            repeats=repeats,
            warm_up=warm_up,
            **self.details,
        )


POOLS = {
    "clustered, labeled": (clustered, True, (4000, 4)),
    "clustered, single start": (clustered, False, (15_000, 5)),
    "gaussian, labeled": (gaussian, True, (4000, 4)),
}


def cases(job: Job) -> Iterator[Case]:
    for pool in list(POOLS)[: job.size(3, 2)]:
        name = f"farthest_first {pool}"
        yield Case(name, FARTHEST_FIRST, partial(_ours, job, pool, name))
        if not job.warm:  # it launches no kernel of ours
            yield Case(f"baseline {pool}", (), partial(_baseline, job, pool))
    for rows in HEADS[: job.size(3, 1)]:
        name = f"head block of {rows}"
        yield Case(name, FARTHEST_FIRST, partial(_head, job, rows))


def _ours(job: Job, pool: str, name: str) -> Lines:
    traversals = Traversals(job, *POOLS[pool])
    yield traversals.measured(name, traversals.ours, 7, 2)


def _baseline(job: Job, pool: str) -> Lines:
    traversals = Traversals(job, *POOLS[pool])
    yield traversals.measured(f"baseline {pool}", traversals.theirs, 1, 0)


def _head(job: Job, rows: int) -> Lines:
    """A whole traversal with heads of ``rows`` rows, and one head by itself."""
    traversals = Traversals(job, *POOLS["clustered, labeled"])
    with mock.patch("dynal_fast.ops.farthest_first.triton.HEAD", job.size(rows, 16)):
        name = f"farthest_first clustered, labeled, heads of {rows}"
        yield traversals.measured(name, traversals.ours, 5, 1)
    yield _block(job, traversals.pool, rows)


def _block(job: Job, pool: Tensor, rows: int) -> dict[str, Any]:
    """Deciding a block of ``rows`` x ``rows`` values, and picking 1,000 of the rows."""
    from dynal_fast.ops.farthest_first import triton

    size, k = job.size(rows, 16), job.size(1000, 4)
    kernels = triton.TritonKernels("euclidean")
    points = kernels.points(contract.as_rows(pool[:size], "pool"), "pool")
    head = torch.arange(size, dtype=torch.int32, device=job.device)
    picks, values = torch.empty_like(head[:k]), torch.empty(k, device=job.device)

    def traverse() -> Tensor:
        exact = torch.full((size,), float("inf"), device=job.device)
        kernels.traverse(points, head, heads.NOTHING, exact, picks, values)
        return picks

    def decide() -> None:
        block = torch.empty((size, size), device=job.device)
        kernels.decide(points, points, Groups.one(head, head), block=block, wait=False)

    line = measured(
        job,
        f"head block of {rows}",
        traverse,
        error=lambda timed: shortfall(pool[:size], timed(), None),
        graph=False,
        rows=size,
        k=k,
    )
    if not job.warm:
        line["decide_ms"] = statistics.median(timing.times(job, decide, 10))
        line["us_per_pick"] = 1e3 * (line["ms"] - line["decide_ms"]) / k
    return line


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
