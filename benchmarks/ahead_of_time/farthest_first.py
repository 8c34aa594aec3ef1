"""The kernel variants of farthest-first that must compile."""

from collections.abc import Iterator
from dataclasses import replace
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

PRODUCTS = ((torch.float32, torch.float32), (torch.float16, torch.bfloat16))


def variants() -> Iterator[Variant]:
    """Yield every primitive, for rows that are aligned and not, and every size of a head."""
    for metric, dtype, d in KINDS:
        name = f"farthest_first {metric} {str(dtype).removeprefix('torch.')} d={d}"
        yield Variant(name, partial(_primitives, metric, dtype, d))
    for metric, dtype in (("euclidean", torch.float32), ("cosine", torch.float64)):
        name = f"farthest_first assign and scale, {metric} {str(dtype).removeprefix('torch.')}"
        yield Variant(name, partial(_assign, metric, dtype))
    for left, right in PRODUCTS:
        name = f"farthest_first products {left} {right}".replace("torch.", "")
        yield Variant(name, partial(_products, left, right))
    for size in (20, 4096):
        yield Variant(f"farthest_first head of {size}", partial(_head, size))


def points(dtype: torch.dtype, d: int, rows: int) -> TritonPoints:
    """``rows`` of ``d`` columns, measured."""
    array = torch.zeros(rows, d, dtype=dtype)
    norms, tails, grains = torch.ones(3, rows)
    return TritonPoints(contract.as_rows(array, "pool"), array, norms, tails, grains, 1.0)


def products(left: torch.dtype, right: torch.dtype) -> TritonPoints:
    """Outer products of factors of 100 and 768 columns, measured."""
    first, second = points(left, 100, ROWS), points(right, 768, ROWS)
    rows = replace(first.rows, right=second.rows)
    return first._replace(rows=rows, exponent=40, right=second)


def _products(left: torch.dtype, right: torch.dtype) -> None:
    pool = products(left, right)
    _compare_and_pick(triton.TritonKernels("euclidean"), pool)
    kernels, scaled = triton.TritonKernels("euclidean"), pool._replace(filter_exponent=50)
    ids = torch.arange(ROWS, dtype=torch.int32)
    kernels.bound(scaled, pool, Groups.one(ids, ids), torch.ones(ROWS))


def _primitives(metric: str, dtype: torch.dtype, d: int) -> None:
    kernels, pool = triton.TritonKernels(metric), points(dtype, d, ROWS)
    measure_rows(pool.array, pool.rows.stride, metric == "cosine")
    _compare_and_pick(kernels, pool)


def _compare_and_pick(kernels: triton.TritonKernels, pool: TritonPoints) -> None:
    ids, values = torch.arange(ROWS, dtype=torch.int32), torch.ones(ROWS)
    groups = Groups.one(ids, ids)
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
