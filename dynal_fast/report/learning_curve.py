"""The learning curve of a strategy: what tables, pages and pictures show of it."""

from dataclasses import dataclass

from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.runs import Grid

Curve = dict[int, tuple[float, float]]


def learning_curve(grid: Grid, strategy: str) -> Curve:
    """Return labeled count → mean and standard deviation of the test accuracy over seeds."""
    values: dict[int, list[float]] = {}
    for run in grid.of(strategy):
        for count, accuracy in zip(run.labeled, run.accuracies, strict=True):
            values.setdefault(count, []).append(accuracy)
    return {count: mean_and_deviation(values[count]) for count in sorted(values)}


@dataclass(frozen=True)
class Drawn:
    """A curve as it is drawn, in percent: the line, and the band of one standard deviation."""

    counts: list[int]
    means: list[float]
    lows: list[float]
    highs: list[float]


def drawn(curve: Curve) -> Drawn:
    """Return a curve in percent; the band ends at 0 and at 100 %.

    >>> drawn({10: (0.5, 0.125), 20: (1.0, 0.25)})
    Drawn(counts=[10, 20], means=[50.0, 100.0], lows=[37.5, 75.0], highs=[62.5, 100.0])
    """
    return Drawn(
        list(curve),
        [100 * mean for mean, _ in curve.values()],
        [max(0.0, 100 * (mean - deviation)) for mean, deviation in curve.values()],
        [min(100.0, 100 * (mean + deviation)) for mean, deviation in curve.values()],
    )
