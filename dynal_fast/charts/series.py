"""A line of a picture with its spread, and how the spreads of several are drawn."""

from collections.abc import Sized
from dataclasses import dataclass

BANDS = 3  # series whose spreads are bands; those of more would merge into one grey
MOST_APART = 3.0  # pixels between the markers of two series at one place


@dataclass(frozen=True)
class Series:
    """A line of means, how far each spreads, and what its markers say under the pointer."""

    xs: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]
    tips: list[str]


def banded(lines: Sized) -> bool:
    """Return whether the spreads of so many series are bands; else they are error bars."""
    return len(lines) <= BANDS


def spread_words(lines: Sized) -> str:
    """Return what a caption says of the spreads.

    >>> spread_words(["random", "cod"])
    'the band is one standard deviation'
    """
    drawn = "the band is" if banded(lines) else "the bars are"
    return f"{drawn} one standard deviation"


def inset_for(lines: Sized) -> float:
    """Return the inset of a chart that keeps so many markers side by side off its ends."""
    return 5 + MOST_APART * (len(lines) - 1) / 2
