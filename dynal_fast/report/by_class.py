"""The part of a report about single classes: which of them profit from more labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup
from dynal_fast.charts.scale import linear, marked
from dynal_fast.charts.series import Series, inset_for
from dynal_fast.charts.style import styles
from dynal_fast.report.analyses import Array
from dynal_fast.report.html import NOTHING, PANEL, legend, missing, panels, section
from dynal_fast.report.of_results import several_seeds
from dynal_fast.report.runs import Method
from dynal_fast.table import Table

MOST_LINES = 20  # of classes, in one picture


def classes(methods: Sequence[Method]) -> Markup:
    """Return the section of the accuracies, or intersections over union, of every class."""
    metric = methods[0].experiment.grid.metric.removeprefix("mean ")
    averaged = ", mean over seeds" if several_seeds(methods) else ", of one seed"
    text = (
        f"Test {metric} of each class (%){averaged}: after every training as a "
        "picture (temporal output discrepancy, Fig. 11), and after the last as a table (its Table "
        "2), where the best of a row is bold."
    )
    curves = {method.name: curve for method in methods if (curve := class_curves(method))}
    if not curves:
        text = f"Test {metric} of each class."
        absent = missing("These results were written before they held single classes.")
        return section("classes", "Single classes", text, absent)
    last = {name: curve[max(curve)] for name, curve in curves.items()}
    names = class_names(methods, max(map(len, last.values())))
    drawn = NOTHING
    if len(names) <= MOST_LINES:
        drawn = _pictures(curves, names, metric)
    rows = []
    for label, name in enumerate(names):
        values = [100 * float(of_one[label]) for of_one in last.values()]
        known = [value for value in values if np.isfinite(value)]
        best = max(known) if len(known) > 1 else None
        rows.append([name, *(_cell(value) + "*" * (value == best) for value in values)])
    ends = [f"{name}, {max(curve):,} labeled" for name, curve in curves.items()]
    title = f"Test {metric} of each class after the last training"
    numbers = [Table(["class", *ends], rows, title)]
    for name, curve in curves.items():
        header = [name, *(f"{count:,}" for count in curve)]
        of_classes = [
            [each, *(_cell(100 * means[i]) for means in curve.values())]
            for i, each in enumerate(names)
        ]
        numbers.append(Table(header, of_classes, f"Test {metric} of each class: {name}"))
    return section("classes", "Single classes", text, drawn, numbers)


def class_names(methods: Sequence[Method], count: int) -> list[str]:
    """Return what the classes are called: a name that the results hold, or a number."""
    every = (method.experiment.grid.class_names for method in methods)
    numbered = [str(label) for label in range(count)]
    names = next((known for known in every if len(known) == count), numbered)
    return [f"class {name}" if name.isdecimal() else name for name in names]


def class_curves(method: Method) -> dict[int, Array]:
    """Return labeled count → mean over seeds, float64 ``(classes,)``, NaN where there is none."""
    values: dict[int, list[list[float]]] = {}
    for run in method.runs:
        for cycle in run.result.cycles:
            if cycle.by_class:
                known = [np.nan if value is None else value for value in cycle.by_class]
                values.setdefault(cycle.labeled, []).append(known)
    return {count: np.mean(values[count], axis=0) for count in sorted(values)}


def _pictures(curves: Mapping[str, dict[int, Array]], names: Sequence[str], metric: str) -> Markup:
    looks = styles(names)
    reached = [100 * v for curve in curves.values() for means in curve.values() for v in means]
    pictures = []
    y = linear([value for value in reached if np.isfinite(value)])
    for method, curve in curves.items():
        lines = {name: _line(name, label, curve) for label, name in enumerate(names)}
        x, inset = marked(list(curve)), inset_for(lines) / 2
        chart = Chart(x, y, "labeled samples", f"test {metric} (%)", *PANEL, inset=inset)
        chart.series(lines, looks, radius=2.6)
        ends = 100 * curve[max(curve)]
        least, most = (names[int(at)] for at in (np.nanargmin(ends), np.nanargmax(ends)))
        description = (
            f"{method}: at the end from {np.nanmin(ends):.1f} % for {least} to "
            f"{np.nanmax(ends):.1f} % for {most}."
        )
        pictures.append((method, chart.svg(description)))
    return legend([(name, looks[name]) for name in names]) + panels(pictures)


def _line(name: str, label: int, curve: Mapping[int, Array]) -> Series:
    counts = [count for count, means in curve.items() if np.isfinite(means[label])]
    values = [100 * float(curve[count][label]) for count in counts]
    tips = [f"{name}: {v:.1f} % at {n:,}" for n, v in zip(counts, values, strict=True)]
    return Series([*map(float, counts)], values, values, values, tips)


def _cell(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else ""
