"""The primitives of farthest-first, and a traversal of several heads, beside the definition."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.figures.farthest_first import clustered
from benchmarks.gpu.gate.errors import between, near
from benchmarks.gpu.job import Job
from dynal_fast.ops.farthest_first import contract, farthest_first, heads, reference, triton
from dynal_fast.ops.farthest_first.kernels import Groups
from dynal_fast.ops.farthest_first.triton_points import TritonPoints

TIGHT = 2e-3  # bounds lie no further from the value than this times the norms (triton_filter)
KINDS = ((512, torch.float32), (63, torch.bfloat16))

Checks = Iterator[dict[str, Any]]


class Case:
    """Points on the device, and all decision values between them by the definition."""

    def __init__(self, job: Job, d: int, dtype: torch.dtype, rows: int = 0) -> None:
        rows = rows or job.size(400, 24)
        pool = clustered(rows, d, "cpu", 0).to(dtype)
        centers = clustered(job.size(272, 16), d, "cpu", 1).to(dtype)
        self.name = f"d={d} {str(dtype).removeprefix('torch.')}"
        self.kernels = triton.TritonKernels("euclidean")
        self.x, self.y = self.points(job, pool), self.points(job, centers)
        self.rows = torch.arange(len(pool), dtype=torch.int32, device=job.device)
        self.centers = torch.arange(len(centers), dtype=torch.int32, device=job.device)
        self.pool = pool.double().numpy()
        self.values = decision_values(pool, centers)
        self.slack = TIGHT * float(self.x.norms.max() + self.y.norms.max())

    def points(self, job: Job, array: Tensor) -> TritonPoints:
        return self.kernels.points(contract.as_rows(array.to(job.device), "pool"), "pool")

    @property
    def groups(self) -> Groups:
        return Groups.one(self.rows, self.centers)

    def unreached(self) -> Tensor:
        return torch.full((len(self.rows),), math.inf, device=self.rows.device)


def decision_values(pool: Tensor, centers: Tensor) -> Tensor:  # (rows, centers) float32
    x, y = pool.double().numpy(), centers.double().numpy()
    values = [torch.from_numpy(reference.decision_values(x, row, "euclidean")) for row in y]
    return torch.stack(values, dim=1)


def measure(job: Job) -> Checks:
    for d, dtype in KINDS[: job.size(2, 1)]:
        case = Case(job, job.size(d, 33), dtype)
        norms = (torch.from_numpy(case.pool) ** 2).sum(1)
        yield near(f"{case.name} norms", case.x.norms, norms, 1e-5, 0)
        units = torch.from_numpy(case.pool) / case.x.grains.double().cpu()[:, None]
        yield near(f"{case.name} multiples of the grain", units, units.round(), 0, 0)


def aligned_filter(job: Job) -> Checks:
    for dtype in (torch.float32, torch.bfloat16)[: job.size(2, 1)]:
        yield from _filter(Case(job, job.size(512, 64), dtype))


def masked_filter(job: Job) -> Checks:
    for d, dtype in ((63, torch.float32), (200, torch.bfloat16))[: job.size(2, 1)]:
        yield from _filter(Case(job, job.size(d, 33), dtype))


def _filter(case: Case) -> Checks:
    """The bounds must enclose every value closely."""
    lower, upper = case.kernels.distances(case.x, case.rows, case.y, case.centers)
    values = case.values.double()
    yield between(f"{case.name} lower bounds", lower, values - case.slack, values, values)
    yield between(f"{case.name} upper bounds", upper, values, values + case.slack, values)
    bound, least = case.unreached(), values.amin(1)
    case.kernels.bound(case.x, case.y, case.groups, bound)
    yield between(f"{case.name} bound", bound, least, least + case.slack, least)


def decide_pairs(job: Job) -> Checks:
    for d, dtype in KINDS[: job.size(2, 1)]:
        case = Case(job, job.size(d, 33), dtype)
        exact = case.unreached()
        case.kernels.refresh(case.x, case.y, case.groups, None, exact.clone(), exact)
        yield near(f"{case.name} smallest values", exact, case.values.amin(1), 0, 0)


def decide_tiles(job: Job) -> Checks:
    for d, dtype in KINDS[: job.size(2, 1)]:
        case = Case(job, job.size(d, 33), dtype)
        block = torch.full((len(case.rows),) * 2, math.nan, device=job.device)
        undecided, left = case.kernels.decide(
            case.x, case.x, Groups.one(case.rows, case.rows), block=block
        )
        pool = torch.from_numpy(case.pool)
        want = decision_values(pool, pool)
        for i, j in undecided[1 : 1 + left].tolist():  # the host decides these
            block[i, j] = block[j, i] = want[i, j]
        yield near(f"{case.name} block", block, want, 0, 0)


def traverse(job: Job) -> Checks:
    for rows in (job.size(300, 24), 1500)[: job.size(2, 1)]:  # of one warp, of four
        case = Case(job, job.size(64, 33), torch.float32, rows)
        minimum = case.values.amin(1)
        want, values, _ = reference.farthest_first(
            case.pool, rows, minimum.numpy().copy(), metric="euclidean"
        )
        picks, picked = torch.full_like(case.rows, -1), case.unreached()
        exact = minimum.to(job.device)
        count = case.kernels.traverse(case.x, case.rows, heads.NOTHING, exact, picks, picked)
        yield near(f"{rows} rows picks", picks[:count], torch.from_numpy(want)[:count], 0, 0)
        yield near(f"{rows} rows values", picked[:count], torch.from_numpy(values)[:count], 0, 0)
        yield near(f"{rows} rows count", torch.tensor([count]), torch.tensor([rows]), 0, 0)


def whole(job: Job) -> Checks:
    n, d, k = job.size(3000, 30), job.size(65, 9), job.size(400, 6)
    pool, labeled = clustered(n, d, "cpu", 0), clustered(job.size(600, 12), d, "cpu", 1)
    pool = torch.cat([pool, pool[::7]])  # duplicates
    for name, rows in (("labeled", labeled), ("none labeled", None)):
        want = farthest_first(pool, k, rows, backend="reference", progress=False)
        there = None if rows is None else rows.to(job.device)
        got = farthest_first(pool.to(job.device), k, there, backend="triton", progress=False)
        yield near(f"{name} indices", got.indices, want.indices, 0, 0)
        yield near(f"{name} distances", got.distances, want.distances, 0, 0)
