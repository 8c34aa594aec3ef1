"""Whether the statements of `statements.py` hold in the records, by intervals over the seeds."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.pages.experiment_record import ExperimentRecord
from benchmarks.pages.markers import markdown_table
from benchmarks.pages.statements import CLAIMS, PROTOCOL_CLAIMS, SETTINGS
from dynal_fast.experiment.runs import REFERENCE
from dynal_fast.report.differences import Difference, written

Records = Mapping[str, ExperimentRecord]


def difference(
    records: Records,
    better: tuple[str, str],
    than: tuple[str, str],
    value: Callable[[Sequence[float]], float],
) -> Difference | None:
    """Return ``value`` of the accuracies of one minus the other's, in points, over the seeds.

    None where no seed has both.
    """
    first, second = (
        records[name].of(strategy) if name in records else {} for name, strategy in (better, than)
    )
    seeds = sorted(first.keys() & second.keys())
    values = [
        100 * (value(first[seed].accuracies) - value(second[seed].accuracies)) for seed in seeds
    ]
    return Difference(tuple(values)) if values else None


def after_the_first(accuracies: Sequence[float]) -> float:
    """Return the mean accuracy over the trainings after a selection.

    >>> after_the_first([0.5, 0.7, 0.9])
    0.8
    """
    return sum(accuracies[1:]) / len(accuracies[1:])


def at_the_end(accuracies: Sequence[float]) -> float:
    """Return the last accuracy."""
    return accuracies[-1]


def verdict(found: Difference, alike: bool) -> str:
    """Return whether a statement held, by the confidence interval of the difference.

    >>> verdict(Difference((1.0, 1.1)), False), verdict(Difference((-1.0, -1.1)), False)
    ('yes', 'no: the reverse')
    >>> verdict(Difference((1.0, -2.0)), False), verdict(Difference((1.0,)), False)
    ('undecided', 'undecided: one seed')
    >>> verdict(Difference((1.0, -2.0)), True), verdict(Difference((1.0, 1.1)), True)
    ('undecided: no difference seen', 'no: better')
    """
    if found.interval is None:
        return "undecided: one seed" if len(found.values) == 1 else "undecided"
    low, high = found.interval
    if low <= 0 <= high:
        return "undecided: no difference seen" if alike else "undecided"
    if alike:
        return f"no: {'better' if low > 0 else 'worse'}"
    return "yes" if low > 0 else "no: the reverse"


def protocol_table(records: Records) -> str:
    """Return the statements with what came out of each setting, over the curve."""
    settings = {base: name for base, name in SETTINGS.items() if base in records}
    lines = []
    for claim in PROTOCOL_CLAIMS:
        cells = []
        for base in settings:
            pair = [(base + variant, strategy) for variant, strategy in (claim.better, claim.than)]
            found = difference(records, pair[0], pair[1], after_the_first)
            cells.append(f"{written(found)}: {verdict(found, claim.alike)}" if found else "")
        if any(cells):
            lines.append((claim.statement, claim.source, *cells))
    return markdown_table(("statement", "where", *settings.values()), lines)


def claims_table(records: Records) -> str:
    """Return what the papers say beside what came out, over the curve and at the end."""
    lines = []
    for claim in CLAIMS:
        curve = difference(records, claim.better, claim.than, after_the_first)
        end = difference(records, claim.better, claim.than, at_the_end)
        if curve is None or end is None:
            continue
        here, then = (verdict(found, claim.alike) for found in (curve, end))
        if then != here:
            here = f"over the curve {here}; at the end {then}"
        lines.append((claim.statement, claim.source, written(curve), written(end), here))
    header = ("statement", "where", "mean over the curve", "at the end", "here")
    return markdown_table(header, lines)


def differences_table(records: Records, name: str) -> str:
    """Return what each strategy of a record has more than random; empty without random."""
    runs = [run for run in records[name].runs if run.strategy != REFERENCE]
    strategies = dict.fromkeys(run.strategy for run in runs)
    lines = []
    for strategy in strategies:
        values = [
            difference(records, (name, strategy), (name, "random"), value)
            for value in (after_the_first, at_the_end)
        ]
        if strategy == "random" or None in values:
            continue
        curve, end = (found for found in values if found is not None)
        better = f"{curve.better} of {len(curve.values)}"
        p = "" if curve.p is None else "< 0.001" if curve.p < 0.001 else f"{curve.p:.3f}"
        lines.append((f"`{strategy}`", better, written(curve), p, written(end)))
    header = ("strategy", "seeds better", "mean over the curve", "p", "at the end")
    return markdown_table(header, lines) if lines else ""
