"""What the papers say and what we conjecture, as comparisons of recorded strategies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.pages.experiment_record import ExperimentRecord
from benchmarks.pages.markers import markdown_table
from dynal_fast.experiment.results import mean_and_deviation

Records = Mapping[str, ExperimentRecord]

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


def differences(
    records: Records, claim: Claim, value: Callable[[Sequence[float]], float]
) -> list[float]:
    """Return ``value`` of the accuracies of one minus the other's, in points, for each seed."""
    first, second = (
        records[name].of(strategy) if name in records else {}
        for name, strategy in (claim.better, claim.than)
    )
    return [
        100 * (value(first[seed].accuracies) - value(second[seed].accuracies))
        for seed in sorted(first.keys() & second.keys())
    ]


def after_the_first(accuracies: Sequence[float]) -> float:
    """Return the mean accuracy over the trainings after a selection.

    >>> after_the_first([0.5, 0.7, 0.9])
    0.8
    """
    return sum(accuracies[1:]) / len(accuracies[1:])


def verdict(values: Sequence[float], alike: bool) -> str:
    """Return whether a statement held, by the signs of the differences of at least two seeds.

    >>> verdict([1.0, 2.0], False), verdict([-1.0, -2.0], False), verdict([1.0, -2.0], False)
    ('yes, with every seed', 'no: the reverse with every seed', 'undecided: the seeds differ')
    >>> verdict([1.0, -2.0], True), verdict([1.0, 2.0], True)
    ('yes: the seeds differ', 'no: better with every seed')
    """
    if len(values) < 2:
        return "undecided: one seed"
    higher, lower = all(value > 0 for value in values), all(value < 0 for value in values)
    if alike:
        if not higher and not lower:
            return "yes: the seeds differ"
        return f"no: {'better' if higher else 'worse'} with every seed"
    if higher or lower:
        return "yes, with every seed" if higher else "no: the reverse with every seed"
    return "undecided: the seeds differ"


def claims_table(records: Records) -> str:
    """Return what the papers say beside what came out."""
    lines = []
    for claim in CLAIMS:
        curve = differences(records, claim, after_the_first)
        if not curve:
            continue
        end = differences(records, claim, lambda accuracies: accuracies[-1])
        found = verdict(curve, claim.alike)
        if (at_the_end := verdict(end, claim.alike)) != found:
            found = f"over the curve {found}; at the end {at_the_end}"
        lines.append((claim.statement, claim.source, signed(curve), signed(end), found))
    header = ("statement", "where", "mean over the curve", "at the end", "here")
    return markdown_table(header, lines)


def signed(values: Sequence[float]) -> str:
    """Return the mean difference, and those of the seeds.

    >>> signed([1.0, -0.5])
    '+0.25 (+1.00, -0.50)'
    """
    return (
        f"{mean_and_deviation(values)[0]:+.2f} ({', '.join(f'{value:+.2f}' for value in values)})"
    )
