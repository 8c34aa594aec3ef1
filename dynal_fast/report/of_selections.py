"""The part of a report with what strategies reported about their selections, such as a bound."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dynal_fast.charts.markup import Markup, element, joined
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.report.html import NOTHING, section, table
from dynal_fast.report.runs import Method
from dynal_fast.table import Table

SELECTIONS = (
    "selections",
    "What the selections reported",
    "Some strategies report on each selection: mean ± standard deviation over seeds of what is a "
    "number, and how many seeds of what is not.",
)
BOUND = joined(
    [
        " CoreSet reports the radius within which its centres and the labeled samples cover all "
        "other samples but the outliers, that of the farthest-first solution that it starts from, "
        "and a proven lower bound: no choice of centres has a smaller radius. Its search stopped "
        "because the radius is ",
        element("em", "optimal"),
        ", or at the limit that is named.",
    ]
)


def selection_reports(methods: Sequence[Method]) -> Markup:
    """Return the section of what strategies reported, or nothing where none did."""
    tables, bounded = NOTHING, False
    for method in methods:
        cycles: dict[int, list[dict[str, Any]]] = {}
        for run in method.runs:
            for cycle in run.result.cycles:
                if cycle.report:
                    cycles.setdefault(cycle.labeled, []).append(cycle.report)
        if not cycles:
            continue
        keys = list(dict.fromkeys(key for reports in cycles.values() for r in reports for key in r))
        bounded = bounded or "lower_bound" in keys
        rows = [
            [
                f"{count:,}",
                *(over_seeds([r[key] for r in cycles[count] if key in r]) for key in keys),
            ]
            for count in sorted(cycles)
        ]
        header = [f"{method.name}: labeled before", *(key.replace("_", " ") for key in keys)]
        tables += table(Table(header, rows, f"Reports of {method.name}"))
    identifier, title, text = SELECTIONS
    if not tables:
        return NOTHING
    return section(identifier, title, text + BOUND if bounded else text, tables)


def over_seeds(values: Sequence[float | str]) -> str:
    """Return numbers as mean ± standard deviation, and other values with how often they occur.

    >>> over_seeds([1.0, 2.0]), over_seeds([2.5]), over_seeds([])
    ('1.5 ± 0.71', '2.5', '')
    >>> over_seeds(["optimal", "optimal"]), over_seeds(["optimal", "max_pairs", "optimal"])
    ('optimal', 'optimal (2), max_pairs (1)')
    >>> over_seeds([True, False])
    'yes (1), no (1)'
    """
    if not values:
        return ""
    if any(isinstance(value, bool | str) for value in values):
        counts = Counter(_text(value) for value in values).most_common()
        if len(counts) == 1:
            return counts[0][0]
        return ", ".join(f"{text} ({count})" for text, count in counts)
    mean, deviation = mean_and_deviation([float(value) for value in values])
    return f"{mean:.4g} ± {deviation:.2g}" if len(values) > 1 else f"{mean:.4g}"


def _text(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
