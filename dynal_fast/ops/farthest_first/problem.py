"""What a traversal takes and gives: inside, between the checks and a backend, and outside."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from dynal_fast.ops.farthest_first.checks import Rows


class Problem(NamedTuple):
    """A traversal whose arguments have been checked, except for the values of the embeddings."""

    pool: Rows  # (n, d)
    k: int
    labeled: Rows | None  # (m, d): embeddings of labeled samples outside the pool
    labeled_indices: torch.Tensor | None  # (m,) int64, increasing: labeled samples of the pool
    candidates: torch.Tensor | None  # int64, increasing: the rows that may be picked; None: all
    metric: str
    start: int | None  # a candidate: the first pick


class Answer(NamedTuple):
    """Picks in order, with decision values as ``reference.py`` defines them."""

    indices: torch.Tensor  # (k,) int64
    values: torch.Tensor  # (k,) float32
    left: float  # the largest decision value among the candidates that remain, 0 if none
    exponent: int  # squared distances are in units of 4^-exponent


class Traversal(NamedTuple):
    """Samples in the order in which they were picked.

    ``indices`` (k,) int64: pool indices. ``distances`` (k,) float32: the distance of each pick to
    the nearest labeled or earlier picked sample when it was picked, ``inf`` for a first pick with
    nothing labeled; they never increase after a forced start. ``radius``: the largest distance
    from a remaining pool sample to the nearest labeled or picked one (0 when none remains).
    """

    indices: torch.Tensor
    distances: torch.Tensor
    radius: float


class Cover(NamedTuple):
    """An assignment whose arguments have been checked, except for the values of the embeddings."""

    pool: Rows  # (n, d)
    labeled: Rows | None  # (m, d): centers outside the pool, which come first
    indices: torch.Tensor  # int64: centers of the pool, in order
    metric: str


class Covered(NamedTuple):
    """The position of the nearest center of each row, -1 where there is none."""

    nearest: torch.Tensor  # (n,) int64
    values: torch.Tensor  # (n,) float32: decision values, inf where there is none
    exponent: int  # squared distances are in units of 4^-exponent


def as_distances(values: torch.Tensor, exponent: int) -> torch.Tensor:
    """Distances (k,) float32 of squared ones in units of 4^-exponent."""
    return (values.double().sqrt() * 2.0**-exponent).float()


# A backend calls reached(picks so far) now and then; it may raise KeyboardInterrupt.
Reached = Callable[[int], None]
Solve = Callable[[Problem, Reached], Answer]
# A backend looks at every row of a pool once, for a metric, and then solves problems of that pool.
Backend = Callable[[Rows, str], Solve]
