"""The implementations of traversal and assignment, by name."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from dynal_fast._triton import require_triton
from dynal_fast.ops.backends import Backends
from dynal_fast.ops.farthest_first import heads, reference
from dynal_fast.ops.farthest_first.contract import (
    Answer,
    AssignmentAnswer,
    AssignmentProblem,
    Problem,
    Reached,
    Rows,
)
from dynal_fast.ops.farthest_first.cpu import CpuKernels, head_rows
from dynal_fast.ops.farthest_first.heads import HeadTraversal
from dynal_fast.ops.farthest_first.kernels import Kernels, P, on_one_scale
from dynal_fast.ops.farthest_first.nearest import Nearest
from dynal_fast.ops.farthest_first.products import OuterProducts
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels, values_of

Solve = Callable[[Problem, Reached], Answer]


class Implementation(NamedTuple):
    """What every backend does, with arguments that were checked but for the values of the rows."""

    # Looks at every row of a pool once, for a metric, and then solves problems of that pool.
    traverse: Callable[[Rows, str], Solve]
    assign: Callable[[AssignmentProblem, Reached], AssignmentAnswer]


def choose(backend: str | None, device: torch.device) -> Implementation:
    """Return the implementation named, or the default of ``device``."""
    if backend is None:
        backend = BACKENDS.defaults.get(device.type)
    if backend is None:
        raise ValueError(
            f"pool must be on one of the devices {tuple(BACKENDS.defaults)}, got {device}; "
            "pool.cpu() moves it to the CPU"
        )
    BACKENDS.check(backend, device)
    return BACKENDS.load(backend)


def exact(
    kernels: Callable[[Rows, str], Kernels[P]], head: Callable[[Rows], int]
) -> Implementation:
    """The exact algorithm over the primitives of a device; ``head``: rows in a head of a pool."""

    def traverse(pool: Rows, metric: str) -> Solve:
        made = kernels(pool, metric)
        points, size = made.points(pool, "pool"), head(pool)
        return lambda problem, reached: HeadTraversal(problem, made, points, size).run(reached)

    def assign(problem: AssignmentProblem, reached: Reached) -> AssignmentAnswer:
        return Nearest(problem, kernels(problem.pool, problem.metric)).run(reached)

    return Implementation(traverse, assign)


def _cpu() -> Implementation:
    return exact(CpuKernels, lambda pool: head_rows(pool.held))


def _triton() -> Implementation:
    require_triton()
    from dynal_fast.ops.farthest_first import triton

    return exact(lambda pool, metric: triton.TritonKernels(metric), lambda pool: triton.HEAD)


def _reference_heads() -> Implementation:
    return exact(lambda pool, metric: ReferenceKernels(metric), lambda pool: heads.HEAD)


def _reference() -> Implementation:
    return Implementation(_traverse_by_definition, _assign_by_definition)


def _traverse_by_definition(pool: Rows, metric: str) -> Solve:
    kernels = ReferenceKernels(metric)
    points = kernels.points(pool, "pool")

    def solve(problem: Problem, reached: Reached) -> Answer:
        rows, labeled = values_of(pool), None
        if problem.labeled is not None:
            labeled = kernels.points(problem.labeled, "labeled")
        _, _, exponent = on_one_scale(kernels, metric, points, labeled)
        minimum = np.full(len(rows), np.inf, dtype=np.float32)
        if problem.labeled is not None:
            reference.cover(minimum, rows, values_of(problem.labeled), metric, exponent)
        if problem.labeled_indices is not None:
            indices = problem.labeled_indices.cpu().numpy()
            reference.cover(minimum, rows, rows[indices], metric, exponent)
        excluded = np.empty(0, dtype=np.int64)
        if problem.candidates is not None:
            excluded = np.delete(np.arange(len(rows)), problem.candidates.cpu().numpy())
        order, values, left = reference.farthest_first(
            rows,
            problem.k,
            minimum,
            metric=metric,
            exponent=exponent,
            start=problem.start,
            excluded=excluded,
        )
        reached(problem.k)
        picks, distances = torch.from_numpy(order), torch.from_numpy(values)
        return Answer(picks.to(pool.device), distances.to(pool.device), float(left), exponent)

    return solve


def _assign_by_definition(problem: AssignmentProblem, reached: Reached) -> AssignmentAnswer:
    kernels = ReferenceKernels(problem.metric)
    points, labeled = kernels.points(problem.pool, "pool"), None
    pool = values_of(problem.pool)
    centers = pool[problem.indices.numpy()]
    if problem.labeled is not None:
        labeled = kernels.points(problem.labeled, "labeled")
        centers = _joined(values_of(problem.labeled), centers)
    _, _, exponent = on_one_scale(kernels, problem.metric, points, labeled)
    found = reference.assign(pool, centers, problem.metric, exponent)
    reached(len(pool))
    nearest, values = (torch.from_numpy(part).to(problem.pool.device) for part in found)
    return AssignmentAnswer(nearest, values, exponent)


def _joined(first: reference.Points, second: reference.Points) -> reference.Points:
    if isinstance(first, OuterProducts) and isinstance(second, OuterProducts):
        left, right = (first.left, second.left), (first.right, second.right)
        return OuterProducts(np.concatenate(left), np.concatenate(right))
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    return np.concatenate([first.astype(np.float64), second.astype(np.float64)])


BACKENDS = Backends(
    {
        "reference": _reference,  # the definition itself, in float64: for small pools and for tests
        "cpu": _cpu,
        "triton": _triton,
        "reference-heads": _reference_heads,  # for tests: slow
    },
    defaults={"cpu": "cpu", "cuda": "triton"},
    devices={
        "reference": ("cpu", "cuda"),
        "cpu": ("cpu",),
        "triton": ("cpu", "cuda"),  # on the CPU Triton's interpreter, else `launch` refuses
        "reference-heads": ("cpu",),
    },
    takes="a pool",
)
