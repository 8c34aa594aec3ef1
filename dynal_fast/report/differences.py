"""Differences of methods from a baseline, seed by seed, with their confidence intervals."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.runs import Grid, RunResult
from dynal_fast.files import write_atomically
from dynal_fast.report.runs import Method
from dynal_fast.report.table import thousands
from dynal_fast.table import Table

BASELINE = "random"
FILE = "differences.csv"
CONFIDENCE = 0.95
CURVE = 0  # in the place of a number of labels: the mean over all trainings after a selection
TEST = (
    f"the interval holds the true mean with {CONFIDENCE:.0%} confidence, by Student's t of the "
    "differences of the seeds; it is not corrected for how many are shown"
)


@dataclass(frozen=True)
class Difference:
    """What a method has more than the baseline, in percentage points, with each seed.

    ``against`` names the baseline where it is that of another experiment.
    """

    values: tuple[float, ...]
    against: str = ""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return mean_and_deviation(self.values)[0]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The confidence interval of the mean by Student's t; None without a spread of seeds.

        Seeds that all differ alike, as on a small test set, say nothing of the spread.

        >>> low, high = Difference((1.0, 2.0, 3.0)).interval
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
        """
        seeds = len(self.values)
        mean, deviation = mean_and_deviation(self.values)
        if seeds < 2 or deviation == 0:
            return None
        half = t_quantile(CONFIDENCE, seeds - 1) * deviation / math.sqrt(seeds)
        return mean - half, mean + half

    @property
    def p(self) -> float | None:
        """The probability of so large a mean where there is no difference; two-sided t test.

        None without a spread of seeds.
        """
        seeds = len(self.values)
        mean, deviation = mean_and_deviation(self.values)
        if seeds < 2 or deviation == 0:
            return None
        within = t_within(abs(mean) / deviation * math.sqrt(seeds), seeds - 1)
        return max(0.0, 1 - within)

    @property
    def better(self) -> int:
        """With how many seeds the method is better."""
        return sum(value > 0 for value in self.values)


Differences = dict[int, Difference]


def t_within(t: float, freedom: int) -> float:
    """Return the probability that Student's t is between -t and t.

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4, for whole degrees of freedom.

    >>> round(t_within(2.776, 4), 4), round(t_within(12.706, 1), 4)
    (0.95, 0.95)
    """
    angle = math.atan2(t, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2 == 1
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if odd else inside


def t_quantile(confidence: float, freedom: int) -> float:
    """Return the t within which Student's t is with this probability.

    >>> round(t_quantile(0.95, 4), 3), round(t_quantile(0.95, 30), 3)
    (2.776, 2.042)
    """
    low, high = 0.0, 1.0
    while t_within(high, freedom) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < confidence else (low, middle)
    return high


def paired(runs: Sequence[RunResult], baseline: Sequence[RunResult]) -> Differences:
    """Return number of labels → difference of test accuracy, over the seeds that both have.

    A seed counts if both runs began with the same labeled samples; the training on those alone
    does not, since no strategy has a part in it. The entry `CURVE` is the mean over the others.
    """
    others = {run.seed: run for run in baseline}
    by_count: dict[int, list[float]] = {}
    for run in runs:
        other = others.get(run.seed)
        if other is None or other.initial != run.initial:
            continue
        theirs = dict(zip(other.labeled[1:], other.accuracies[1:], strict=True))
        of_seed = {
            count: 100 * (accuracy - theirs[count])
            for count, accuracy in zip(run.labeled[1:], run.accuracies[1:], strict=True)
            if count in theirs
        }
        if of_seed:
            of_seed[CURVE] = sum(of_seed.values()) / len(of_seed)
        for count, value in of_seed.items():
            by_count.setdefault(count, []).append(value)
    return {count: Difference(tuple(values)) for count, values in by_count.items()}


def of_grid(grid: Grid, baseline: str = BASELINE) -> dict[str, Differences]:
    """Return strategy → its differences from the baseline; empty without the baseline."""
    if not grid.evaluated:
        return {}
    found = {
        name: paired(grid.of(name), grid.of(baseline))
        for name in grid.strategies()
        if name != baseline
    }
    return {name: differences for name, differences in found.items() if differences}


def of_methods(methods: Sequence[Method], baseline: str = BASELINE) -> dict[str, Differences]:
    """Return method → its differences from the baseline of its own experiment.

    A method whose experiment has none is compared with that of another experiment, if the model is
    the same one, rather with one that trains alike: only seeds that began with the same labeled
    samples count.
    """
    bases = [method for method in methods if method.strategy == baseline]
    found = {}
    for method in methods:
        if method in bases:
            continue
        mine = method.experiment.configuration
        own = [base for base in bases if base.experiment is method.experiment]
        alike = [
            base
            for base in bases
            if base not in own and base.experiment.configuration.get("model") == mine.get("model")
        ]
        alike.sort(key=lambda base: _departures(base.experiment.configuration, mine))
        runs = [run.result for run in method.runs]
        for base in [*own, *alike]:
            differences = paired(runs, [run.result for run in base.runs])
            if differences:
                against = "" if base in own else base.name
                found[method.name] = {
                    count: dataclasses.replace(difference, against=against)
                    for count, difference in differences.items()
                }
                break
    return found


def _departures(first: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    """Return in how many options of the training and the protocol two experiments differ."""
    number = 0
    for part in ("training", "protocol"):
        one, other = first.get(part, {}), second.get(part, {})
        number += sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())
    return number


def differences_table(
    every: Mapping[str, Differences], metric: str, baseline: str = BASELINE
) -> Table:
    """Return the mean differences and their intervals, by number of labels.

    >>> table = differences_table({"cod": {20: Difference((1.0, 2.0)), 0: Difference((1.0, 2.0))}},
    ...                           "accuracy")
    >>> table.rows
    [['cod', '2 of 2', '+1.50 (-4.85 to +7.85)', '0.205', '+1.50 (-4.85 to +7.85)']]
    """
    counts = sorted({count for of_one in every.values() for count in of_one} - {CURVE})
    rows = []
    for name, of_one in every.items():
        curve = of_one[CURVE]
        p = "" if curve.p is None else "< 0.001" if curve.p < 0.001 else f"{curve.p:.3f}"
        cells = [written(of_one[count]) if count in of_one else "" for count in counts]
        better = f"{curve.better} of {len(curve.values)}"
        rows.append([name, better, written(curve), p, *cells])
    header = ["method", "seeds better", "mean over the curve", "p", *thousands(counts)]
    label = f"Test {metric} minus that of {baseline}, in percentage points"
    several = any(of_one[CURVE].interval for of_one in every.values())
    return Table(header, rows, label, capitalized_first(TEST) + "." if several else "")


def written(difference: Difference) -> str:
    """Return a difference with its interval.

    >>> written(Difference((0.5,)))
    '+0.50'
    """
    interval = difference.interval
    mean = f"{difference.mean:+.2f}"
    return f"{mean} ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else mean


def capitalized_first(text: str) -> str:
    """Return a text as a sentence begins."""
    return text[0].upper() + text[1:]


def differences_csv(every: Mapping[str, Differences], baseline: str = BASELINE) -> str:
    """Return the same as CSV: one line for each method and number of labels, and each curve."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["method", "baseline", "labeled", "seeds", "better", "mean", "low", "high", "p"]
    writer.writerow([*header, "differences"])
    for name, of_one in every.items():
        for count in sorted(of_one):
            difference = of_one[count]
            low, high = difference.interval or ("", "")
            row: list[object] = [
                name,
                difference.against or baseline,
                "curve" if count == CURVE else count,
                len(difference.values),
            ]
            row += [difference.better, difference.mean, low, high]
            p = "" if difference.p is None else difference.p
            writer.writerow([*row, p, " ".join(map(repr, difference.values))])
    return text.getvalue()


def write_differences(
    every: Mapping[str, Differences], folder: Path, baseline: str = BASELINE
) -> Path | None:
    """Write ``differences.csv`` and return its path; where there are none, remove it."""
    path = folder / FILE
    if not every:
        path.unlink(missing_ok=True)  # of an earlier report
        return None
    write_atomically(path, differences_csv(every, baseline).encode())
    return path
