"""Predict what a job that is too large to run would cost, from smaller runs of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from dynal_fast.bench.competitors.base import Size

Terms = Callable[[Size], Sequence[float]]


@dataclass(frozen=True)
class Limits:
    """How much one measurement may take."""

    seconds: float = 20
    memory_bytes: float = 6e9
    repeats: int = 5
    repeat_seconds: float = 15


class Run(NamedTuple):
    """One measured run: its size, seconds, peak extra bytes, and seconds of its passes, if any."""

    size: Size
    seconds: float
    memory_bytes: float
    pass_seconds: Sequence[float] = ()


def predict(terms: Terms, runs: Sequence[Run], measured: Sequence[float], size: Size) -> float:
    """What ``measured`` (one number for each of ``runs``) would be at ``size``.

    The last run is the largest. From it on, the measurement grows linearly in ``terms``, with the
    coefficients of a least squares fit to all runs in which none is negative: noise never makes
    more cost less.

    >>> runs = [Run(Size(2, 0), 3.0, 0), Run(Size(4, 0), 5.0, 0)]
    >>> seconds = [run.seconds for run in runs]
    >>> round(predict(lambda size: (1, size.amount), runs, seconds, Size(100, 0)), 6)
    101.0
    """
    rows = np.array([terms(run.size) for run in runs], dtype=np.float64)
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1
    slopes = nnls(rows / scale, np.asarray(measured, np.float64))[0] / scale
    growth = np.asarray(terms(size), dtype=np.float64) - rows[-1]
    return float(max(measured[-1] + growth @ slopes, 0))


def predict_seconds(terms: Terms, runs: Sequence[Run], size: Size) -> float:
    """Seconds at ``size``."""
    return predict(terms, runs, [run.seconds for run in runs], size)


def predict_memory(terms: Terms, runs: Sequence[Run], size: Size) -> float:
    """Peak extra bytes at ``size``."""
    return predict(terms, runs, [run.memory_bytes for run in runs], size)


def pilots(full: Size) -> list[Size]:
    """Small runs that separate the costs of a pick, an epoch and a labeled sample.

    >>> pilots(Size(4000, 25000))
    [Size(amount=2, labeled=64), Size(amount=2, labeled=256), Size(amount=10, labeled=256)]
    >>> pilots(Size(20, 0))
    [Size(amount=2, labeled=0), Size(amount=4, labeled=0)]
    """
    if not full.labeled:
        few = Size(min(2, full.amount), 0)
        return [few, Size(min(4 if full.amount <= 100 else 10, full.amount), 0)]
    some, more = min(64, full.labeled), min(256, full.labeled)
    return [
        Size(min(2, full.amount), some),
        Size(min(2, full.amount), more),
        Size(min(10, full.amount), more),
    ]


def largest_within(
    terms: Terms,
    memory_terms: Terms,
    runs: Sequence[Run],
    full: Size,
    limits: Limits,
) -> Size | None:
    """The largest part of a job within the limits: first all labeled samples, then the amount.

    None when not even a pilot's size does.
    """
    labeled_sizes = [full.labeled] if not full.labeled else _halvings(full.labeled, 256)
    for labeled in labeled_sizes:
        for amount in _halvings(full.amount, 2):
            size = Size(amount, labeled)
            if (
                predict_seconds(terms, runs, size) <= limits.seconds
                and predict_memory(memory_terms, runs, size) <= limits.memory_bytes
            ):
                return size
    return None


def longest_pilot(
    terms: Terms, memory_terms: Terms, runs: Sequence[Run], full: Size, limits: Limits
) -> Size:
    """With a pilot's labeled samples, as many picks or epochs as half of the limit allows.

    The cost of a pick is extrapolated a thousandfold: the few of the other pilots drown in noise.
    """
    half = Limits(limits.seconds / 2, limits.memory_bytes)
    smallest = Size(full.amount, runs[0].size.labeled)
    within = largest_within(terms, memory_terms, runs, smallest, half)
    return Size(within.amount, runs[0].size.labeled) if within else runs[0].size


def _halvings(value: int, least: int) -> list[int]:
    sizes = [value]
    while sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    return sizes


def describe(runs: Sequence[Run], full: Size, noun: str) -> str:
    """What an extrapolated figure was extrapolated from.

    >>> describe([Run(Size(40, 256), 1, 0), Run(Size(8, 25000), 1, 0)], Size(4000, 25000), "picks")
    'extrapolated from up to 40 picks'
    >>> describe([Run(Size(2, 2000), 1, 0)], Size(4000, 25000), "picks")
    'extrapolated from up to 2 picks and 2,000 labeled'
    """
    amount = max(run.size.amount for run in runs)
    most = max(run.size.labeled for run in runs)
    labeled = f" and {most:,} labeled" if most < full.labeled else ""
    return f"extrapolated from up to {amount:,} {noun}{labeled}"
