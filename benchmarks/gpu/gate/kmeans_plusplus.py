"""D² sampling, and outer products in it and in farthest-first, beside the definition."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.figures.farthest_first import clustered
from benchmarks.gpu.gate.errors import near
from benchmarks.gpu.job import Job
from dynal_fast.ops.farthest_first import OuterProducts, farthest_first
from dynal_fast.ops.kmeans_plusplus import kmeans_plusplus

Checks = Iterator[dict[str, Any]]


def race(job: Job) -> Checks:
    """In several heads, so that rows have to catch up."""
    pool = clustered(job.size(3000, 14), job.size(65, 3), "cpu", 0)
    pool = torch.cat([pool, pool[::7]])  # duplicates
    with mock.patch("dynal_fast.ops.kmeans_plusplus.lazy.HEAD", job.size(512, 4)):
        yield from _drawn(job, "plain", pool, pool.to(job.device), job.size(700, 6))


def products(job: Job) -> Checks:
    for name, factors in _products(job):
        there = OuterProducts(factors.left.to(job.device), factors.right.to(job.device))
        k = job.size(60, 3)
        yield from _drawn(job, f"{name} drawn", factors, there, k)
        want = farthest_first(factors, k, backend="reference", progress=False)
        got = farthest_first(there, k, backend="triton", progress=False)
        yield near(f"{name} farthest indices", got.indices, want.indices, 0, 0)
        yield near(f"{name} farthest distances", got.distances, want.distances, 0, 0)


def _products(job: Job) -> Iterator[tuple[str, OuterProducts]]:
    """Those of one scale, and those that cancel or have to be scaled."""
    n, classes, d = job.size(400, 10), job.size(33, 3), job.size(96, 5)
    left, right = clustered(n, classes, "cpu", 0) - 0.5, clustered(n, d, "cpu", 1)
    yield "float32", OuterProducts(left, right)
    if not job.small:
        yield "far from 1", OuterProducts(left * 2.0**-60, right * 2.0**50)
        yield "float16", OuterProducts(left.half(), right.half())
        again = torch.arange(n) % (n // 4)
        right = right[again] * (1 + 1e-7 * torch.arange(n)[:, None])
        yield "nearly equal", OuterProducts(left[again], right.float())


def _drawn(
    job: Job, name: str, pool: Tensor | OuterProducts, there: Tensor | OuterProducts, k: int
) -> Checks:
    want, got = (
        kmeans_plusplus(
            given,
            k,
            generator=torch.Generator().manual_seed(0),
            backend=backend,
            progress=False,
        )
        for given, backend in ((pool, "reference"), (there, "triton"))
    )
    yield near(f"{name} indices", got.indices, want.indices, 0, 0)
    yield near(f"{name} distances", got.distances, want.distances, 0, 0)
