"""The part of a report about single classes: which of them profit from more labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynal_fast.report.analyses import Array
from dynal_fast.report.html import NOTHING, PANEL, legend, missing, panels, section, table
from dynal_fast.report.markup import Markup
from dynal_fast.report.of_results import several_seeds
from dynal_fast.report.runs import Method
from dynal_fast.report.svg import Chart, linear, marked, styles

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
    names = [f"class {label}" for label in range(max(map(len, last.values())))]
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
    numbers = table(["class", *ends], rows, f"Test {metric} of each class after the last training")
    for name, curve in curves.items():
        header = [name, *(f"{count:,}" for count in curve)]
        of_classes = [
            [label, *(_cell(100 * means[i]) for means in curve.values())]
            for i, label in enumerate(names)
        ]
        numbers += table(header, of_classes, f"Test {metric} of each class: {name}")
    return section("classes", "Single classes", text, drawn, numbers)


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
    for method, curve in curves.items():
        chart = Chart(
            marked(list(curve)),
            linear([value for value in reached if np.isfinite(value)]),
            "labeled samples",
            f"test {metric} (%)",
            *PANEL,
        )
        for label, name in enumerate(names):
            counts = [count for count, means in curve.items() if np.isfinite(means[label])]
            values = [100 * float(curve[count][label]) for count in counts]
            tips = [f"{name}: {v:.1f} % at {n:,}" for n, v in zip(counts, values, strict=True)]
            chart.line(counts, values, looks[name])
            chart.points(counts, values, looks[name], tips, 2.2)
        ends = 100 * curve[max(curve)]
        description = (
            f"{method}: at the end from {np.nanmin(ends):.1f} % for class {np.nanargmin(ends)} to "
            f"{np.nanmax(ends):.1f} % for class {np.nanargmax(ends)}."
        )
        pictures.append((method, chart.svg(description)))
    return legend([(name, looks[name]) for name in names]) + panels(pictures)


def _cell(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else ""
