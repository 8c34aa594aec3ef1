"""Which implementations there are and which one a device gets."""

import os
from collections.abc import Callable

import numpy as np
import torch

from dynal_fast._triton import require_triton
from dynal_fast.ops.farthest_first import reference
from dynal_fast.ops.farthest_first.contract import (
    Answer,
    Backend,
    Cover,
    Covered,
    Problem,
    Reached,
    Rows,
    Solve,
)
from dynal_fast.ops.farthest_first.cpu import CpuKernels, head_rows
from dynal_fast.ops.farthest_first.heads import HeadTraversal
from dynal_fast.ops.farthest_first.kernels import Kernels, P, Points, on_one_scale
from dynal_fast.ops.farthest_first.nearest import Nearest
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels, as_numpy


def choose(backend: str | None, device: torch.device) -> Backend:
    """The implementation named, or the fastest one for ``device``."""
    return BACKENDS[_name(backend, device)]


def choose_cover(backend: str | None, device: torch.device) -> Callable[[Cover, Reached], Covered]:
    """The same for assignments."""
    name = _name(backend, device)
    if name == "reference":
        return _cover_by_definition
    return lambda cover, reached: Nearest(cover, KERNELS[name](cover.pool, cover.metric)).run(
        reached
    )


def _name(backend: str | None, device: torch.device) -> str:
    name = DEFAULTS.get(device.type) if backend is None else backend
    if name is None:
        raise ValueError(
            f"pool must be on one of the devices {tuple(DEFAULTS)}, got {device}; "
            "pool.cpu() moves it to the CPU"
        )
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {tuple(BACKENDS)}, got {backend!r}")
    if device.type not in DEVICES[name]:
        raise ValueError(f"backend {name!r} needs a pool on {DEVICES[name]}, got {device}")
    return name


def reference_on(pool: Rows, metric: str) -> Solve:
    """The definition itself, on the CPU, in float64: for small pools and for tests."""
    kernels = ReferenceKernels(metric)
    points = kernels.points(pool, "pool")
    return lambda problem, reached: _by_definition(kernels, points, problem, reached)


def _by_definition(
    kernels: ReferenceKernels, points: Points, problem: Problem, reached: Reached
) -> Answer:
    pool, metric = as_numpy(problem.pool.array), problem.metric
    labeled = None
    if problem.labeled is not None:
        labeled = kernels.points(problem.labeled, "labeled")
    _, _, exponent = on_one_scale(kernels, metric, points, labeled)
    minimum = np.full(len(pool), np.inf, dtype=np.float32)
    if problem.labeled is not None:
        reference.cover(minimum, pool, as_numpy(problem.labeled.array), metric, exponent)
    if problem.labeled_indices is not None:
        indices = problem.labeled_indices.cpu().numpy()
        reference.cover(minimum, pool, pool[indices], metric, exponent)
    excluded = np.empty(0, dtype=np.int64)
    if problem.candidates is not None:
        excluded = np.delete(np.arange(len(pool)), problem.candidates.cpu().numpy())
    indices, values, left = reference.farthest_first(
        pool,
        problem.k,
        minimum,
        metric=metric,
        exponent=exponent,
        start=problem.start,
        excluded=excluded,
    )
    reached(problem.k)
    device = problem.pool.device
    return Answer(
        torch.from_numpy(indices).to(device),
        torch.from_numpy(values).to(device),
        float(left),
        exponent,
    )


def _cover_by_definition(cover: Cover, reached: Reached) -> Covered:
    kernels = ReferenceKernels(cover.metric)
    points, labeled = kernels.points(cover.pool, "pool"), None
    pool = as_numpy(cover.pool.array)
    centers = pool[cover.indices.numpy()].astype(np.float64)
    if cover.labeled is not None:
        labeled = kernels.points(cover.labeled, "labeled")
        outside = as_numpy(cover.labeled.array).astype(np.float64)
        centers = np.concatenate([outside, centers])
    _, _, exponent = on_one_scale(kernels, cover.metric, points, labeled)
    nearest, values = reference.assign(pool, centers, cover.metric, exponent)
    reached(len(pool))
    device = cover.pool.device
    return Covered(
        torch.from_numpy(nearest).to(device), torch.from_numpy(values).to(device), exponent
    )


def cpu_on(pool: Rows, metric: str) -> Solve:
    """The exact algorithm over compiled kernels."""
    return _by_heads(pool, CpuKernels(pool, metric), head_rows(pool.columns))


def triton_on(pool: Rows, metric: str) -> Solve:
    """The exact algorithm over Triton kernels, on a GPU."""
    require_triton()
    from dynal_fast.ops.farthest_first import triton

    return _by_heads(pool, triton.TritonKernels(metric), triton.HEAD)


def reference_heads_on(pool: Rows, metric: str) -> Solve:
    """The exact algorithm over primitives by their definition: slow, for tests of both."""
    return _by_heads(pool, ReferenceKernels(metric))


def _by_heads(pool: Rows, kernels: Kernels[P], head: int | None = None) -> Solve:
    points = kernels.points(pool, "pool")
    return lambda problem, reached: HeadTraversal(problem, kernels, points, head).run(reached)


def _triton_kernels(pool: Rows, metric: str) -> Kernels:
    from dynal_fast.ops.farthest_first import triton

    return triton.TritonKernels(metric)


KERNELS: dict[str, Callable[[Rows, str], Kernels]] = {
    "cpu": CpuKernels,
    "triton": _triton_kernels,
    "reference-heads": lambda pool, metric: ReferenceKernels(metric),
}
BACKENDS: dict[str, Backend] = {
    "reference": reference_on,
    "cpu": cpu_on,
    "triton": triton_on,
    "reference-heads": reference_heads_on,
}
# Triton's interpreter, which is chosen before its kernels are defined, takes tensors on the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = {
    "reference": ("cpu", "cuda"),
    "cpu": ("cpu",),
    "triton": ("cpu", "cuda") if INTERPRETED else ("cuda",),
    "reference-heads": ("cpu",),
}
DEFAULTS = {"cpu": "cpu", "cuda": "triton"}
