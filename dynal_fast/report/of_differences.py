"""The section of a report about the differences from a baseline."""

from collections.abc import Mapping

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup
from dynal_fast.charts.scale import linear, marked
from dynal_fast.charts.series import Series, banded, inset_for
from dynal_fast.charts.style import Style
from dynal_fast.report.differences import (
    CURVE,
    TEST,
    Differences,
    differences_table,
    written,
)
from dynal_fast.report.html import both_widths, legend, section


def differences_section(
    every: Mapping[str, Differences], looks: Mapping[str, Style], metric: str, baseline: str
) -> Markup:
    """Return the section: a picture by number of labels, and the table with the whole curve."""
    lines = {name: _drawn(name, of_one) for name, of_one in every.items()}

    def draw(width: int, height: int) -> Chart:
        reached = [end for line in lines.values() for end in (*line.lows, *line.highs)]
        chart = Chart(
            marked(sorted({x for line in lines.values() for x in line.xs})),
            linear([0.0, *reached]),
            "labeled samples",
            "difference (points)",
            width,
            height,
            inset=inset_for(lines),
        )
        chart.rule(y=0, label=baseline)
        chart.series(lines, looks)
        return chart

    ends = ", ".join(f"{name} {written(of_one[CURVE])}" for name, of_one in every.items())
    description = f"Differences from {baseline} over the curve, in percentage points: {ends}."
    several = any(of_one[CURVE].interval for of_one in every.values())
    text = (
        f"Test {metric} minus that of {baseline} with the same seed, which began with the same "
        "labeled samples and the same weights, in percentage points"
    )
    text += f": mean over seeds. The {'band' if banded(lines) else 'bar'} is the interval: {TEST}. "
    text += "The mean over the curve is that of all trainings after a selection, seed by seed."
    if not several:
        text = text.partition(": mean over")[0] + ", of one seed."
    for name, of_one in every.items():
        if against := of_one[CURVE].against:
            text += f" {name} has no {baseline} of its own: the difference is from {against}."
    picture = legend([(name, looks[name]) for name in lines]) + both_widths(draw, description)
    table = differences_table(every, metric, baseline)
    return section("differences", "Differences", text, picture, [table])


def _drawn(name: str, of_one: Differences) -> Series:
    counts = sorted(set(of_one) - {CURVE})
    means = [of_one[count].mean for count in counts]
    ends = [of_one[count].interval or (of_one[count].mean,) * 2 for count in counts]
    tips = [f"{name}: {written(of_one[count])} at {count:,} labeled" for count in counts]
    return Series([*counts], means, [low for low, _ in ends], [high for _, high in ends], tips)
