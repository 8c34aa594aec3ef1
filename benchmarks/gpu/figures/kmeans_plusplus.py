"""``kmeans_plusplus`` beside loops that compute all distances at every pick: plain, and BADGE."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import figures
from benchmarks.gpu.figures import Case, measured
from benchmarks.gpu.figures.farthest_first import clustered
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import PRODUCTS, RACE
from dynal_fast.ops.farthest_first import OuterProducts
from dynal_fast.ops.kmeans_plusplus import kmeans_plusplus

Pool = Tensor | OuterProducts


def plain(job: Job) -> tuple[Tensor, int]:
    """4,000 of 150,000 × 512."""
    return clustered(job.size(150_000, 14), job.size(512, 5), job.device, 0), job.size(4000, 3)


def badge(job: Job) -> tuple[OuterProducts, int]:
    """1,000 of 20,000 gradients of 100 classes × 768 features."""
    n, classes = job.size(20_000, 12), job.size(100, 3)
    left = (3 * clustered(n, classes, job.device, 1)).softmax(1)
    left.scatter_add_(1, left.argmax(1, keepdim=True), -torch.ones_like(left[:, :1]))
    return OuterProducts(left, clustered(n, job.size(768, 5), job.device, 0)), job.size(1000, 3)


def draw(pool: Pool, k: int, backend: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return kmeans_plusplus(pool, k, generator=generator, backend=backend, progress=False).indices


def loop(pool: Pool, k: int) -> Tensor:
    """D² sampling with a matrix-vector product a pick, two of outer products; no waits."""
    factors = (pool.left, pool.right) if isinstance(pool, OuterProducts) else (pool,)
    norms = torch.stack([factor.square().sum(1) for factor in factors]).prod(0)
    picks = torch.zeros(k, dtype=torch.int64, device=norms.device)
    squared = torch.full_like(norms, torch.inf)
    for step in range(1, k):
        pick = picks[step - 1 : step]
        dots = torch.stack([torch.mv(part, part[pick].squeeze(0)) for part in factors]).prod(0)
        distances = (norms + norms[pick] - 2 * dots).clamp_(min=0)
        torch.minimum(squared, distances, out=squared)
        picks[step : step + 1] = torch.multinomial(squared, 1)
    return picks


CASES = {"kmeans_plusplus clustered": (plain, RACE), "kmeans_plusplus badge": (badge, PRODUCTS)}


def cases(job: Job) -> Any:
    for name, (make, needs) in CASES.items():
        yield Case(name, needs, partial(_ours, job, name, make))
        if not job.warm:  # it launches no kernel of ours
            yield Case(f"loop of {name}", (), partial(_loop, job, name, make))


def _ours(job: Job, name: str, make: Callable[[Job], tuple[Any, int]]) -> Lines:
    pool, k = make(job)

    def against_the_cpu(timed: Callable[[], Tensor]) -> dict[str, Any]:
        there = pool.cpu() if isinstance(pool, Tensor) else OuterProducts(*_on_host(pool))
        differ = int((timed().cpu() != draw(there, k, "cpu")).sum())
        return {"error": differ / k, "wrong": differ}

    yield measured(
        job,
        name,
        lambda: draw(pool, k, "triton"),
        error=against_the_cpu,
        graph=False,
        repeats=job.size(5, 1),
        warm_up=1,
        n=len(pool),
        k=k,
    )


def _on_host(pool: OuterProducts) -> tuple[Tensor, Tensor]:
    return pool.left.cpu(), pool.right.cpu()


def _loop(job: Job, name: str, make: Callable[[Job], tuple[Any, int]]) -> Lines:
    pool, k = make(job)
    distinct: Callable[..., dict[str, Any]] = lambda timed: {  # noqa: E731
        "error": 1 - len(timed().unique()) / k
    }
    yield measured(
        job,
        f"loop of {name}",
        lambda: loop(pool, k),
        error=distinct,
        graph=False,
        repeats=1,
        warm_up=0,
        n=len(pool),
        k=k,
    )


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
