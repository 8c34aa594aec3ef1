"""The learning curve of a strategy: what tables, the page and the picture show of it."""

from collections.abc import Mapping, Sequence

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.scale import linear, marked
from dynal_fast.charts.series import Series, inset_for
from dynal_fast.charts.style import Style
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.runs import Grid
from dynal_fast.report.bands import percent

Curve = dict[int, tuple[float, float]]


def learning_curve(grid: Grid, strategy: str) -> Curve:
    """Return labeled count → mean and standard deviation of the test accuracy over seeds."""
    values: dict[int, list[float]] = {}
    for run in grid.of(strategy):
        for count, accuracy in zip(run.labeled, run.accuracies, strict=True):
            values.setdefault(count, []).append(accuracy)
    return {count: mean_and_deviation(values[count]) for count in sorted(values)}


def drawn(name: str, curve: Curve) -> Series:
    """Return a curve in percent; its spread ends at 0 and at 100 %.

    >>> line = drawn("cod", {10: (0.5, 0.125), 20: (1.0, 0.25)})
    >>> line.means, line.lows, line.highs, line.tips[0]
    ([50.0, 100.0], [37.5, 75.0], [62.5, 100.0], 'cod: 50.0 ± 12.5 % at 10 labeled')
    """
    return Series(
        list(curve),
        [100 * mean for mean, _ in curve.values()],
        [max(0.0, 100 * (mean - deviation)) for mean, deviation in curve.values()],
        [min(100.0, 100 * (mean + deviation)) for mean, deviation in curve.values()],
        [
            f"{name}: {percent(100 * mean, 100 * deviation, deviation > 0)} % at {count:,} labeled"
            for count, (mean, deviation) in curve.items()
        ],
    )


def curves_chart(
    lines: Mapping[str, Series],
    looks: Mapping[str, Style],
    metric: str,
    references: Sequence[float],
    width: int,
    height: int,
    right: float = 16,
) -> Chart:
    """Draw learning curves; ``references`` are accuracies on all labels, in percent."""
    counts = sorted({count for line in lines.values() for count in line.xs})
    reached = [end for line in lines.values() for end in (*line.lows, *line.highs)]
    chart = Chart(
        marked(counts),
        linear([*reached, *references]),
        "labeled samples",
        f"test {metric} (%)",
        width,
        height,
        right=right,
        inset=inset_for(lines),
    )
    for level in references:
        chart.rule(y=level, label="all data" if level == max(references) else "")
    chart.series(lines, looks)
    return chart
