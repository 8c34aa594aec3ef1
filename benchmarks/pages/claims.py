"""What the papers say and what we conjecture, as comparisons of recorded strategies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.pages.experiment_record import ExperimentRecord
from benchmarks.pages.markers import markdown_table
from dynal_fast.experiment.runs import REFERENCE
from dynal_fast.report.differences import Difference, written

Records = Mapping[str, ExperimentRecord]

# The same statements are tried in each of these settings, by the name of the record that has most.
SETTINGS = {
    "from-1000-mnist-mlp": "MNIST, perceptron",
    "from-1000-mnist-cnn": "MNIST, small CNN",
    "from-1000-texts-linear": "texts, linear head",
    "from-1000-texts-mlp": "texts, perceptron",
}
TAIL, SMALL = "long-tail-mnist", "mnist-small"
CONTINUED, CODE = "mnist-small-continue", "mnist-small-code"
DIVERSIFIED, INTERVAL = "mnist-small-diversified", "mnist-small-interval"


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, or a conjecture of ours, as a comparison of two strategies.

    ``better`` and ``than`` are names of a record and a strategy; with ``alike`` the statement is
    that neither is better.
    """

    statement: str
    source: str
    better: tuple[str, str]
    than: tuple[str, str]
    alike: bool = False


def _beside_random(strategy: str, source: str, statement: str = "", variant: str = "") -> Claim:
    """A strategy is better than random; in each setting, or in its record of a variant."""
    statement = statement or f"`{strategy}` is better than random"
    return Claim(statement, source, (variant, strategy), (variant, "random"))


# Here a record is named by what follows the setting's name in its own.
PROTOCOL_CLAIMS = (
    _beside_random("entropy", "prediction stability, 4.2 (CIFAR)"),
    _beside_random("margin", "label dispersion, Table 1 (CIFAR)"),
    _beside_random("label_dispersion", "label dispersion, 4.2 (CIFAR)"),
    Claim(
        "`label_dispersion` is better than `margin`",
        "label dispersion, 4.2 (CIFAR)",
        ("", "label_dispersion"),
        ("", "margin"),
    ),
    _beside_random("prediction_stability", "prediction stability, 4.2 (CIFAR)"),
    Claim(
        "`prediction_stability` is better than `entropy`",
        "prediction stability, 4.2 (CIFAR)",
        ("", "prediction_stability"),
        ("", "entropy"),
    ),
    _beside_random(
        "prediction_stability",
        "prediction stability, 4.4.2",
        "the same, at an interval of 1 epoch",
        "-interval-1",
    ),
    _beside_random(
        "prediction_stability",
        "prediction stability, 4.4.2",
        "the same, at an interval of 5 epochs",
        "-interval-5",
    ),
    _beside_random("cod", "output discrepancy, 5.2 (CIFAR and others)"),
    _beside_random(
        "cod", "output discrepancy, 4", "the same, training on from the last weights", "-continue"
    ),
    _beside_random("tod_code", "output discrepancy, as its authors' code has it"),
    _beside_random(
        "tod_code",
        "output discrepancy, as its authors' code has it",
        "the same, training on from the last weights",
        "-continue",
    ),
    _beside_random("farthest_first", "long tail, 4.1"),
    Claim(
        "`margin` is indistinguishable from `farthest_first`",
        "long tail, 4.1, of softmax response",
        ("", "margin"),
        ("", "farthest_first"),
        alike=True,
    ),
    _beside_random("bald", "none of the papers"),
    _beside_random("badge", "none of the papers"),
    Claim(
        "farthest-first from the shortlist of `prediction_stability` is better than the score",
        "conjecture",
        ("", "prediction_stability+farthest_first"),
        ("", "prediction_stability"),
    ),
    Claim(
        "farthest-first from the shortlist of `cod` is better than the score",
        "conjecture",
        ("", "cod+farthest_first"),
        ("", "cod"),
    ),
)

CLAIMS = (
    Claim(
        "FF-Active is better than random at as many labels",
        "long tail, 4.1",
        (TAIL, "farthest_first"),
        (TAIL, "random"),
    ),
    Claim(
        "softmax response is indistinguishable from FF-Active",
        "long tail, 4.1",
        (TAIL, "least_confidence"),
        (TAIL, "farthest_first"),
        alike=True,
    ),
    Claim(
        "label dispersion is better than random",
        "label dispersion, 4.2 (CIFAR)",
        (SMALL, "label_dispersion"),
        (SMALL, "random"),
    ),
    Claim(
        "label dispersion is better than margin",
        "label dispersion, 4.2 (CIFAR)",
        (SMALL, "label_dispersion"),
        (SMALL, "margin"),
    ),
    Claim(
        "margin is better than random",
        "label dispersion, Table 1 (CIFAR)",
        (SMALL, "margin"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability is better than random",
        "prediction stability, 4.3 (CIFAR-100, with epochs in a row)",
        (SMALL, "prediction_stability"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability does about as well as entropy, with five epochs in a row",
        "prediction stability, 4.2 (CIFAR-10, but at an interval of 5)",
        (SMALL, "prediction_stability"),
        (SMALL, "entropy"),
        alike=True,
    ),
    Claim(
        "the same, with epochs far apart",
        "prediction stability, 4.2 (CIFAR-10, at an interval of 5)",
        (INTERVAL, "prediction_stability"),
        (SMALL, "entropy"),
        alike=True,
    ),
    Claim(
        "COD is better than random",
        "output discrepancy, 5.2 (CIFAR and others)",
        (SMALL, "cod"),
        (SMALL, "random"),
    ),
    Claim(
        "COD is better than random when training goes on from the last weights",
        "conjecture",
        (CONTINUED, "cod"),
        (CONTINUED, "random"),
    ),
    Claim(
        "COD is better than random with the score of its authors' code, and nothing else of it",
        "conjecture",
        (CODE, "tod_code"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability gains from epochs far apart",
        "conjecture",
        (INTERVAL, "prediction_stability"),
        (SMALL, "prediction_stability"),
    ),
    Claim(
        "COD is better than random once farthest-first chooses from its shortlist",
        "conjecture",
        (DIVERSIFIED, "cod+farthest_first"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability is better than random once farthest-first chooses from its shortlist",
        "conjecture",
        (DIVERSIFIED, "prediction_stability+farthest_first"),
        (SMALL, "random"),
    ),
)


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
