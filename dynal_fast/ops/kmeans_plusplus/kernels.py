"""The two primitives that D² sampling adds to those of farthest-first."""

from typing import NamedTuple, Protocol

from torch import Tensor

from dynal_fast.ops.farthest_first.kernels import Kernels, P


class Clocks(NamedTuple):
    """What is known of each pool row, (n,) each: its rate and when it fires (reference.py)."""

    rates: Tensor  # float32
    firing: Tensor  # float64


class Fired(NamedTuple):
    """Picks in order, (k,) each: room for all of them."""

    rows: Tensor  # int32
    values: Tensor  # float32: their rates as they fired
    times: Tensor  # float64


class RaceKernels(Kernels[P], Protocol[P]):
    """The primitives of one device for one metric."""

    def advance(
        self, x: P, rows: Tensor, y: P, first: Tensor, fired: Fired, clocks: Clocks
    ) -> None:
        """Apply to each of ``rows`` (R,) int32 the picks that it lacks, in order: rows of ``y``.

        ``first`` (R,) int32, increasing: the position in ``fired`` of the first pick that a row
        lacks. Rates and firing times become those of the direct race, to the bit.
        """

    def race(self, x: P, rows: Tensor, outside: float, fired: Fired, clocks: Clocks) -> int:
        """Pick among ``rows`` (R,) int32, increasing, while one fires before ``outside``.

        The rates and firing times of the rows are those of the direct race, and stay so. Picks
        fill ``fired`` from the front, up to its end. Those picked get the rate 0 and fire at
        infinity. Returns how many there are.
        """
