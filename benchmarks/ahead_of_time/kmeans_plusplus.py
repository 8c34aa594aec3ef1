"""The kernel variants of D² sampling that must compile, beside those of farthest-first."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ahead_of_time.farthest_first import ROWS, points
from benchmarks.ahead_of_time.variant import Variant
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired
from dynal_fast.ops.kmeans_plusplus.triton import TritonRaceKernels


def variants() -> Iterator[Variant]:
    """Yield both primitives, and every size of a head."""
    for metric, dtype in (("euclidean", torch.float32), ("cosine", torch.float16)):
        name = f"kmeans_plusplus advance {metric} {str(dtype).removeprefix('torch.')}"
        yield Variant(name, partial(_advance, metric, dtype))
    for size in (20, 2048):
        yield Variant(f"kmeans_plusplus head of {size}", partial(_race, size))


def _advance(metric: str, dtype: torch.dtype) -> None:
    ids = torch.arange(ROWS, dtype=torch.int32)
    kernels, pool = TritonRaceKernels(metric), points(dtype, 64, ROWS)
    kernels.advance(pool, ids, pool, ids, _fired(ROWS), _clocks(ROWS))
    pairs = torch.zeros((2, 8), dtype=torch.int32)
    undecided = torch.zeros((9, 2), dtype=torch.int32)
    kernels.decide_pairs(pool, pool, pairs, ids[:1], undecided, values=torch.zeros(8))


def _race(size: int) -> None:
    ids = torch.arange(size, dtype=torch.int32)
    pool = points(torch.float32, 64, size)
    TritonRaceKernels("euclidean").race(pool, ids, 1.0, _fired(size), _clocks(size))


def _fired(size: int) -> Fired:
    ids = torch.arange(size, dtype=torch.int32)
    return Fired(ids, torch.zeros(size), torch.zeros(size, dtype=torch.float64))


def _clocks(size: int) -> Clocks:
    return Clocks(torch.ones(size), torch.ones(size, dtype=torch.float64))
