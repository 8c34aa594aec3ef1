"""What goes into a D² sampling and what comes out."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dynal_fast.ops.farthest_first.contract import Rows


class Race(NamedTuple):
    """A sampling; all is checked but the values of the embeddings."""

    pool: Rows  # (n, d)
    k: int
    outside: Rows | None  # (m, d): embeddings of labeled samples outside the pool
    inside: torch.Tensor  # (m,) int64, increasing: labeled samples of the pool
    free: torch.Tensor  # (n,) bool: the rows that may be picked
    metric: str
    start: int | None  # a free row: the first pick
    clock: NDArray[np.float64]  # (n,): exponential numbers (reference.py)


class Drawn(NamedTuple):
    """Picks in order, with decision values as those of farthest-first."""

    indices: torch.Tensor  # (k,) int64
    values: torch.Tensor  # (k,) float32
    exponent: int  # squared distances are in units of 4^-exponent


class Seeding(NamedTuple):
    """Samples in the order in which they were drawn.

    ``indices`` (k,) int64: pool indices. ``distances`` (k,) float32: the distance of each pick to
    the nearest labeled or earlier picked sample when it was drawn, ``inf`` for a first pick with
    nothing labeled.
    """

    indices: torch.Tensor
    distances: torch.Tensor


def as_seed(generator: torch.Generator | None) -> int:
    """Draw the seed of the clocks from ``generator``, a CPU one."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {generator!r}; "
            "torch.Generator().manual_seed(0) makes one"
        )
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, got one on {generator.device}")
    return int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64))


def as_start(start: object) -> int | None:
    """Check that ``start`` is a number or None: the first pick is random as it is."""
    if isinstance(start, str):
        raise TypeError(f"start must be an integer or None, got {start!r}")
    return start  # type: ignore[return-value]
