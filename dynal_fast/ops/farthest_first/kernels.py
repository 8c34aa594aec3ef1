"""The primitives that each device implements, and what they take: `Kernels`, `Points`, `Groups`.

The exact algorithms (`heads`, `routing`, `nearest`) are written once over these primitives. All
tensors lie on the pool's device; row numbers are int32. ``reference.py`` defines *decision values*.
"""

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import contract, reference
from dynal_fast.ops.farthest_first.contract import Rows


class Points(NamedTuple):
    """Embeddings whose values were checked, and what the filter needs to know of each row."""

    rows: Rows  # (n, d)
    norms: Tensor  # (n,) float32: squared norms as the filter sees rows; empty: 1/2 each
    scales: Tensor  # (n,) float64: the filter multiplies rows by them; empty: it does not
    squares: Tensor  # (n,) float64: the squared norms at exponent 0; may be empty of `scaled`
    largest: float  # the largest magnitude of an element
    exponent: int = 0  # decision values are in units of 4^-exponent (reference.py)
    left_exponent: int = 0  # of outer products: the filter's scale of the first factors


class Measured(Protocol):
    """What every device knows of embeddings: `Points`, or a class of its own."""

    @property
    def rows(self) -> Rows: ...

    @property
    def largest(self) -> float: ...


P = TypeVar("P", bound=Measured)


def on_one_scale(kernels: "Kernels[P]", points: list[P]) -> tuple[list[P], int]:
    """Scale the pool and the labeled samples alike; return them and the exponent."""
    largest = max(part.largest for part in points)
    if kernels.metric == "euclidean":
        contract.check_smallest(largest, *(part.rows for part in points))
    exponent = reference.scale_exponent(largest, points[0].rows.dimensions)
    return [kernels.scaled(part, exponent) for part in points], exponent


class Groups(NamedTuple):
    """Group g compares ``rows[row_ends[g-1]:row_ends[g]]`` with its centers, sliced alike.

    Either slice may be empty.
    """

    rows: Tensor  # (R,) int32; no row twice in one group
    row_ends: Tensor  # (G,) int64, on the CPU
    centers: Tensor  # (C,) int32
    center_ends: Tensor  # (G,) int64, on the CPU
    kept: Any = None  # what `Kernels.keep` made of these centers

    @staticmethod
    def one(rows: Tensor, centers: Tensor) -> "Groups":
        """All of ``rows`` with all of ``centers``."""
        return Groups(rows, torch.tensor([len(rows)]), centers, torch.tensor([len(centers)]))


@dataclass(frozen=True)
class Clusters(Generic[P]):
    """Cluster g of some points has ``members[ends[g-1]:ends[g]]``, and ``centroids[g]``."""

    points: P
    centroids: Tensor  # (G,) int32
    members: Tensor  # (m,) int32
    ends: Tensor  # (G,) int64, on the CPU


@dataclass(frozen=True)
class Cluster(Generic[P]):
    """Labeled samples that are one cluster."""

    points: P
    members: Tensor  # (m,) int32: rows of points
    stage: Tensor  # (n,) int8: EXACT (routing.py) for rows that were compared with all of them


class Known(NamedTuple):
    """What a traversal knows of the rows of its pool (`heads.HeadTraversal`), and its picks."""

    candidates: Tensor
    bound: Tensor
    exact: Tensor
    applied: Tensor
    picks: Tensor  # with room for those to come
    values: Tensor


class Kernels(Protocol[P]):
    """The primitives of one device for one metric."""

    metric: str
    # A decision value differs from the exact distance by at most this plus one part in 2^24.
    rounding: float

    def points(self, rows: Rows, name: str) -> P:
        """Check the values of ``rows`` (ValueError as ``contract.bad_row`` says) and measure."""

    def scaled(self, points: P, exponent: int) -> P:
        """The same points, for decision values in units of 4^-exponent."""

    def distances(self, x: P, rows: Tensor, y: P, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Return bounds ``lower <= decision value <= upper``, (rows, centers) float32, at least 0.

        They also hold for the value before its rounding, and are about as tight as float32 matrix
        products allow; those of very many pairs as products of rows rounded to 16 bits allow.
        """

    def bound(self, x: P, y: P, groups: Groups, bound: Tensor) -> None:
        """Lower ``bound`` (n,) float32 to an upper bound of each row's smallest decision value."""

    def refresh(
        self, x: P, y: P, groups: Groups, first: Tensor | None, bound: Tensor, exact: Tensor
    ) -> None:
        """Lower ``exact`` (n,) float32 to each row's smallest decision value over its centers.

        Values that are at least ``exact``, or exceed ``bound`` (n,) float32, may be skipped.
        ``first`` (R,) int32, increasing, only with one group: the centers before this position
        have been applied to the row already and may be skipped.
        """

    def assign(
        self, x: P, y: P, groups: Groups, ranks: Tensor, bound: Tensor, keys: Tensor
    ) -> None:
        """Lower ``keys`` (n,) int64 to (bits of the decision value << 32) + rank of a center.

        ``ranks`` (rows of y,) int32, not negative. Centers whose value exceeds ``bound`` (n,)
        float32 may be skipped.
        """

    def traverse(
        self, x: P, head: Tensor, outside: int, exact: Tensor, picks: Tensor, values: Tensor
    ) -> int:
        """Pick in ``head`` (T,) int32, increasing, while no row outside can be next.

        ``exact`` (n,) float32: the smallest decision value of each head row to all centers so far;
        it is updated for the rows of the head, and set to -inf for those picked. The next pick is
        the head row with the largest key (``highest.keys``), which must exceed ``outside``. Picks
        fill ``picks`` (limit,) int32 and ``values`` (limit,) float32 from the front, up to their
        end. Returns how many there are.
        """

    def keep(self, clusters: Clusters[P]) -> Any:
        """What makes many calls with the same clusters faster; None where nothing does."""
        return None

    def probe(
        self, x: P, rows: Tensor, clusters: Clusters[P], kept: Any, probes: int, bound: Tensor
    ) -> bool:
        """Lower ``bound`` of ``rows`` by the members of their ``probes`` nearest clusters.

        Returns whether it did: else `distances` and `bound` have to. ``kept`` is not None.
        """
        return False

    def at_once(self, candidates: int) -> bool:
        """Whether `rounds` is the way to pick from so few candidates."""
        return False

    def rounds(
        self, x: P, clusters: list[Cluster[P]], known: Known, count: int
    ) -> tuple[int, float | None]:
        """Go on from ``count`` picks as `HeadTraversal` does, some rounds in one call.

        Returns the number of picks, and the largest value left once all of them are made.
        """
        raise AssertionError("nothing is picked at once on this device")
