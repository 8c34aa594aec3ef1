"""The implementations of traversal and assignment, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from dynal_fast._triton import require_triton
from dynal_fast.ops.backends import Backends
from dynal_fast.ops.farthest_first import definition, heads
from dynal_fast.ops.farthest_first.contract import (
    Answer,
    AssignmentAnswer,
    AssignmentProblem,
    Reached,
    Rows,
)
from dynal_fast.ops.farthest_first.cpu import CpuKernels, head_rows
from dynal_fast.ops.farthest_first.heads import HeadTraversal
from dynal_fast.ops.farthest_first.kernels import Kernels, P
from dynal_fast.ops.farthest_first.nearest import Nearest
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels


class State(Protocol):
    """What is known of one pool: what covers its rows, and which of them may be picked.

    Row numbers and counts were checked. All but `copy` change it.
    """

    exponent: int | None  # squared distances are in units of 4^-exponent; of a pick or of minima

    def copy(self) -> "State": ...

    def cover(self, outside: Rows | None, rows: torch.Tensor | None) -> None:
        """Take in labeled samples: embeddings outside the pool, and distinct int64 ``rows`` of it.

        ``rows`` are never picked; none of them may cover the pool already.
        """

    def exclude(self, rows: torch.Tensor) -> None:
        """Never pick ``rows`` (m,) int64."""

    def pick(self, k: int, start: int | None, reached: Reached) -> Answer:
        """Pick ``k`` rows, which cover then; ``start`` is the first, whatever its value."""

    def minima(self) -> torch.Tensor:
        """(n,) float32: decision values to the nearest row that covers, inf where none does."""


# A state that nothing covers, in which these rows may be picked: int64, increasing; None: all.
Begin = Callable[[torch.Tensor | None], State]


class Device(NamedTuple):
    """The primitives of one device, for what puts them together otherwise than `heads` does."""

    kernels: Callable[[Rows, str], Kernels[Any]]  # for the rows of a pool and a metric
    head: Callable[[Rows], int]  # rows in a head of a pool


class Implementation(NamedTuple):
    """What every backend does, with arguments that were checked but for the values of the rows."""

    # Looks at every row of a pool once, for a metric.
    open: Callable[[Rows, str], Begin]
    assign: Callable[[AssignmentProblem, Reached], AssignmentAnswer]
    primitives: Device | None = None  # None: it has no primitives

    def device(self) -> Device:
        """The primitives of this backend; ValueError where it has none."""
        if self.primitives is None:
            raise ValueError('backend must be one that works in parts, got "reference"')
        return self.primitives


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

    def open_pool(pool: Rows, metric: str) -> Begin:
        made = kernels(pool, metric)
        points, size = made.points(pool, "pool"), head(pool)
        return lambda candidates: HeadTraversal(made, points, size, candidates)

    def assign(problem: AssignmentProblem, reached: Reached) -> AssignmentAnswer:
        return Nearest(problem, kernels(problem.pool, problem.metric)).run(reached)

    return Implementation(open_pool, assign, Device(kernels, head))


def _cpu() -> Implementation:
    return exact(CpuKernels, lambda pool: head_rows(pool.held))


def _triton() -> Implementation:
    require_triton()
    from dynal_fast.ops.farthest_first import triton

    return exact(lambda pool, metric: triton.TritonKernels(metric), lambda pool: triton.HEAD)


def _reference_heads() -> Implementation:
    return exact(lambda pool, metric: ReferenceKernels(metric), lambda pool: heads.HEAD)


def _reference() -> Implementation:
    return Implementation(definition.open_pool, definition.assign)


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
