"""The primitives that a device implements for the exact algorithm of ``heads.py``.

All tensors that a primitive reads or writes lie on the pool's device; row numbers are int32. A
*decision value* is defined in ``reference.py``.
"""

from typing import NamedTuple, Protocol, TypeVar

import torch

from dynal_fast.ops.farthest_first import contract, reference
from dynal_fast.ops.farthest_first.contract import Rows


class Points(NamedTuple):
    """Embeddings whose values have been checked, with what a filter needs to know of each row."""

    rows: Rows  # (n, d)
    norms: torch.Tensor  # (n,) float32: the squared norm of each row as the filter sees it
    scales: torch.Tensor  # (n,) float64: what the filter multiplies a row by; empty if nothing
    squares: torch.Tensor  # (n,) float64: the squared norms at exponent 0; empty for cosine
    largest: float  # the largest magnitude of an element
    exponent: int = 0  # decision values are in units of 4^-exponent (reference.py)


class Measured(Protocol):
    """What is known of embeddings on every device."""

    @property
    def rows(self) -> Rows: ...

    @property
    def largest(self) -> float: ...


P = TypeVar("P", bound=Measured)  # `Points`, or something of the device's own


def on_one_scale(kernels: "Kernels[P]", metric: str, x: P, y: P | None) -> tuple[P, P | None, int]:
    """The pool and the labeled samples, if any, in units of 4^-exponent, and the exponent."""
    largest = max(x.largest, 0.0 if y is None else y.largest)
    if metric == "euclidean":
        contract.check_smallest(largest, x.rows, None if y is None else y.rows)
    exponent = reference.scale_exponent(largest, x.rows.columns)
    return kernels.scaled(x, exponent), None if y is None else kernels.scaled(y, exponent), exponent


class Groups(NamedTuple):
    """Blocks of work: group g compares ``rows[row_ends[g-1]:row_ends[g]]`` with its centers.

    Either may be empty.
    """

    rows: torch.Tensor  # (R,) int32; a row stands at most once in a group
    row_ends: torch.Tensor  # (G,) int64, on the CPU
    centers: torch.Tensor  # (C,) int32
    center_ends: torch.Tensor  # (G,) int64, on the CPU

    @staticmethod
    def one(rows: torch.Tensor, centers: torch.Tensor) -> "Groups":
        """All of ``rows`` with all of ``centers``."""
        return Groups(rows, torch.tensor([len(rows)]), centers, torch.tensor([len(centers)]))


class Kernels(Protocol[P]):
    """The primitives of one traversal, whose metric they know."""

    rounding: float  # no decision value differs from the exact distance by more than this
    # plus one part in 2^24

    def points(self, rows: Rows, name: str) -> P:
        """Check the values of ``rows`` (ValueError as ``contract.bad_row`` says) and measure."""

    def scaled(self, points: P, exponent: int) -> P:
        """The same points for decision values in units of 4^-exponent, the same for all."""

    def distances(
        self, x: P, rows: torch.Tensor, y: P, centers: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds ``lower <= decision value <= upper``, each (rows, centers) float32, at least 0.

        They hold for the value before its rounding too, and are as near to it as a float32 matrix
        product comes.
        """

    def bound(self, x: P, y: P, groups: Groups, bound: torch.Tensor) -> None:
        """Lower ``bound`` (n,) float32 to an upper bound of each row's smallest decision value."""

    def refresh(
        self,
        x: P,
        y: P,
        groups: Groups,
        first: torch.Tensor | None,
        bound: torch.Tensor,
        exact: torch.Tensor,
    ) -> None:
        """Lower ``exact`` (n,) float32 to each row's smallest decision value over its centers.

        Values that are at least ``exact`` or exceed ``bound`` (n,) float32, which is only read, may
        be left out. ``first`` (R,) int32, increasing, with one group only: the centers before
        this position have been applied to the row already and may be left out.
        """

    def assign(
        self,
        x: P,
        y: P,
        groups: Groups,
        ranks: torch.Tensor,
        bound: torch.Tensor,
        keys: torch.Tensor,
    ) -> None:
        """Lower ``keys`` (n,) int64 to (bits of the decision value << 32) + rank of a center.

        ``ranks`` (rows of y,) int32, not negative. Centers whose value exceeds ``bound`` (n,)
        float32, which is only read, may be left out.
        """

    def traverse(
        self,
        x: P,
        head: torch.Tensor,
        outside: int,
        exact: torch.Tensor,
        picks: torch.Tensor,
        values: torch.Tensor,
    ) -> int:
        """Farthest-first in ``head`` (T,) int32, increasing, while no row outside can be next.

        ``exact`` (n,) float32 holds the smallest decision value of each head row to all centers
        so far; it is updated for the head rows, and becomes -inf for those picked. The next pick
        is the head row with the largest key (``heads.keys``), which must exceed ``outside``. Fills
        ``picks`` (limit,) int32 and ``values`` (limit,) float32 from the front, stops at their
        end, and returns how many there are.
        """
