"""How the cost of ours grows in one variable at a time: curves and fitted exponents."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dynal_fast.bench.cases import Case, StatisticsCase, TraversalCase
from dynal_fast.bench.competitors import OURS, method_for
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.record import Growth, Measurement


class Curve(NamedTuple):
    """A case whose field ``variable`` takes each of ``values``."""

    case: Case
    variable: str
    values: Sequence[int]

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
    Curve(StatisticsCase(0, 10, 5), "n", [62_500, 250_000, 1_000_000, 2_000_000]),
    Curve(StatisticsCase(8192, 0, 5), "classes", [2, 10, 100, 1000, 21_841]),
]


def grow(
    curve: Curve, settings: Settings, each: Callable[[Measurement], None] = lambda _: None
) -> Growth:
    """Measure ours along a curve; ``each`` is told of every point."""
    method = method_for(curve.case, OURS)
    values, seconds = [], []
    for value in curve.values:
        case: Case = dataclasses.replace(curve.case, **{curve.variable: value})  # type: ignore[arg-type]
        point = measure(case, method, settings, check=False)
        each(point)
        if point.median is not None:
            values.append(value)
            seconds.append(point.median)
    return Growth(
        operation=curve.case.operation,
        variable=curve.variable,
        fixed=curve.fixed(),
        values=values,
        seconds=seconds,
        exponent=exponent(values, seconds),
    )


def exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """The p of seconds = a · value^p, by least squares on the logarithms.

    >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    if len(values) < 2:
        return float("nan")
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
