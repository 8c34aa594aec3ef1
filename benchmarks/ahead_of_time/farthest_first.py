"""The kernel variants of farthest-first that must compile."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ahead_of_time.variant import Variant
from dynal_fast.ops.farthest_first import contract, triton
from dynal_fast.ops.farthest_first.kernels import Groups
from dynal_fast.ops.farthest_first.triton_points import TritonPoints, measure_rows

ROWS = 256
KINDS = (
    ("euclidean", torch.float32, 512),
    ("euclidean", torch.float32, 63),
    ("euclidean", torch.bfloat16, 512),
    ("euclidean", torch.float64, 63),
    ("cosine", torch.float32, 512),
    ("cosine", torch.float16, 63),
)


def variants() -> Iterator[Variant]:
    """Yield every primitive, for rows that are aligned and not, and every size of a head."""
    for metric, dtype, d in KINDS:
        name = f"farthest_first {metric} {str(dtype).removeprefix('torch.')} d={d}"
        yield Variant(name, partial(_primitives, metric, dtype, d))
    for metric, dtype in (("euclidean", torch.float32), ("cosine", torch.float64)):
        name = f"farthest_first assign and scale, {metric} {str(dtype).removeprefix('torch.')}"
        yield Variant(name, partial(_assign, metric, dtype))
    for size in (20, 4096):
        yield Variant(f"farthest_first head of {size}", partial(_head, size))


def points(dtype: torch.dtype, d: int, rows: int) -> TritonPoints:
    """``rows`` of ``d`` columns, measured."""
    array = torch.zeros(rows, d, dtype=dtype)
    norms, tails, grains = torch.ones(3, rows)
    return TritonPoints(contract.as_rows(array, "pool"), array, norms, tails, grains, 1.0)


def _primitives(metric: str, dtype: torch.dtype, d: int) -> None:
    kernels, pool = triton.TritonKernels(metric), points(dtype, d, ROWS)
    ids, values = torch.arange(ROWS, dtype=torch.int32), torch.ones(ROWS)
    groups = Groups.one(ids, ids)
    measure_rows(pool.array, pool.rows.stride, metric == "cosine")
    kernels.distances(pool, ids, pool, ids)
    kernels.bound(pool, pool, groups, values)
    for first in (None, ids):
        kernels.refresh(pool, pool, groups, first, values, values)
    kernels.decide(pool, pool, groups, exact=values)
    kernels.traverse(pool, ids, 0, values, ids, values)


def _assign(metric: str, dtype: torch.dtype) -> None:
    kernels, pool = triton.TritonKernels(metric), points(dtype, 64, ROWS)
    pool = kernels.scaled(pool, 120)  # far from the usual scale, so that the filter multiplies
    ids, keys = torch.arange(ROWS, dtype=torch.int32), torch.zeros(ROWS, dtype=torch.int64)
    kernels.assign(pool, pool, Groups.one(ids, ids), ids, torch.ones(ROWS), keys)
    kernels.decide(pool, pool, Groups.one(ids, ids), ranks=ids, keys=keys)


def _head(size: int) -> None:
    pool, ids = points(torch.float32, 64, size), torch.arange(size, dtype=torch.int32)
    triton.TritonKernels("euclidean").traverse(pool, ids, 0, torch.ones(size), ids, ids.float())
