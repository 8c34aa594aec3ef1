"""How our time grows in one variable at a time: curves and fitted exponents."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dynal_fast.bench.cases import Case, StatisticsCase, TraversalCase
from dynal_fast.bench.competitors import method_for
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.record import Growth, Measurement


class Curve(NamedTuple):
    """A case whose field ``variable`` takes each of ``values``.

    For statistics the curve is of the median pass, the cost of an epoch: the whole job also
    includes the first touch of the state's memory.
    """

    case: Case
    variable: str
    values: Sequence[int]

    def operation(self) -> str:
        """What is timed, in words."""
        a_pass = "a pass of " if isinstance(self.case, StatisticsCase) else ""
        return f"{a_pass}{self.case.operation}"

    def seconds(self, point: Measurement) -> float | None:
        """The median pass, or the median traversal, of a point of the curve."""
        return point.median_pass if isinstance(self.case, StatisticsCase) else point.median

    def fixed(self) -> str:
        """The fields that stay, in words."""
        kept = {
            name: value
            for name, value in dataclasses.asdict(self.case).items()
            if name not in (self.variable, "labeled_file", "batch")
        }
        return ", ".join(
            f"{name} {value:,}" if isinstance(value, int) else str(value)
            for name, value in kept.items()
        )


CURVES = [
    Curve(
        TraversalCase("clustered", 0, 64, 1000, labeled=2000),
        "n",
        [62_500, 250_000, 1_000_000, 2_000_000],
    ),
    Curve(
        TraversalCase("clustered", 50_000, 0, 1000, labeled=5000),
        "d",
        [64, 256, 1024, 2048],
    ),
    Curve(
        TraversalCase("clustered", 50_000, 128, 0, labeled=5000),
        "k",
        [500, 2000, 8000],
    ),
    Curve(
        TraversalCase("clustered", 50_000, 128, 1000),
        "labeled",
        [1000, 4000, 16_000, 32_000],
    ),
    # A pass over 62,500 moves 78 MB, which no cache holds; with fewer classes it would fit.
    Curve(StatisticsCase(0, 100, 11), "n", [62_500, 250_000, 1_000_000, 2_000_000]),
    Curve(StatisticsCase(8192, 0, 21), "classes", [2, 10, 100, 1000, 21_841]),
]


def grow(
    curve: Curve, settings: Settings, each: Callable[[Measurement], None] = lambda _: None
) -> Growth:
    """Measure ours along a curve; ``each`` is told of every point."""
    method = method_for(curve.case, OURS)
    values, seconds, missing = [], [], []
    for value in curve.values:
        case: Case = dataclasses.replace(curve.case, **{curve.variable: value})  # type: ignore[arg-type]
        point = measure(case, method, settings, check=False)
        each(point)
        median = curve.seconds(point)
        if median is None:
            missing.append(f"{value:,} {point.unavailable}")
        else:
            values.append(value)
            seconds.append(median)
    fitted = fit(values, seconds)
    return Growth(
        operation=curve.operation(),
        variable=curve.variable,
        fixed=curve.fixed(),
        values=values,
        seconds=seconds,
        exponent=None if fitted is None else fitted[1],
        coefficient=None if fitted is None else fitted[0],
        unavailable=", ".join(missing),
    )


def fit(values: Sequence[float], seconds: Sequence[float]) -> tuple[float, float] | None:
    """The a and p of seconds = a · value^p, by least squares on the logarithms.

    None for fewer than two points.

    >>> a, p = fit([1, 2, 4], [3.0, 12.0, 48.0])
    >>> round(a, 6), round(p, 6)
    (3.0, 2.0)
    """
    if len(values) < 2:
        return None
    slope, intercept = np.polyfit(np.log(values), np.log(seconds), 1)
    return float(np.exp(intercept)), float(slope)
