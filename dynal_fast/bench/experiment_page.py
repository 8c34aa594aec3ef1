"""The page of the recorded experiments, made from their records: no figure is typed by hand.

``python -m dynal_fast.bench.experiment_page`` in the source tree rewrites ``docs/experiments.md``
from ``benchmarks/results/experiments``.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynal_fast.bench.experiment_record import FOLDER, PORTIONS, ExperimentRecord, RunRecord
from dynal_fast.bench.table import markdown_table
from dynal_fast.experiment.results import REFERENCE, mean_and_deviation

Records = Mapping[str, ExperimentRecord]

PAGE = Path("docs") / "experiments.md"
TAIL, SMALL = "long-tail-mnist", "mnist-small"
CONTINUED, CODE = "mnist-small-continue", "mnist-small-code"
DIVERSIFIED, INTERVAL = "mnist-small-diversified", "mnist-small-interval"
TITLES = {
    TAIL: "The long tail: MNIST from 10,000 labels on",
    SMALL: "Learning dynamics: MNIST from 100 labels on",
    CONTINUED: "The same, training on from the last cycle's weights",
    CODE: "The same, COD as its authors' code has it",
    DIVERSIFIED: "The same, a score to shortlist and farthest-first to choose",
    INTERVAL: "The same, prediction stability with epochs far apart",
}
ABOUT = {
    TAIL: "Section 4.1 of the long-tail paper, whose epochs and repeats are not stated; the few "
    "epochs here are what a CPU had time for. `--preset long-tail/mnist` has more.",
    SMALL: "The papers' scores on a data set and a model that a CPU trains in minutes. None of the "
    "papers has this experiment: they use CIFAR and ResNet-18.",
    CONTINUED: "Does COD fail because each cycle starts from the initial weights? The output "
    "discrepancy paper trains on.",
    CODE: "Does COD fail because of its first selection? The authors' code takes the lowest scores "
    "there, and compares with an independent model.",
    DIVERSIFIED: "Do the scores fail because the highest ones are of one kind?",
    INTERVAL: "Does prediction stability fail because five epochs in a row are too much alike? "
    "Eq. 4 takes them at an interval; here they span the training.",
}
INTRODUCTION = """# Experiments

Made by `python -m dynal_fast.bench.experiment_page` from the records in
`benchmarks/results/experiments`; `python -m dynal_fast.bench.experiment_record RUN NAME` makes a
record of an output folder. Accuracies are on the test set in percent, mean ± sample standard
deviation over seeds. Every strategy of a seed starts from the same labeled samples and the same
weights, so differences are taken seed by seed.

`DIR` in the commands is the folder with MNIST's four idx files. With `--analysis`, `dynal-fast
report` draws the papers' pictures of such a run.
"""


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
        (TAIL, "softmax_response"),
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
        "prediction stability, 4.3 (CIFAR)",
        (SMALL, "prediction_stability"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability does about as well as entropy",
        "prediction stability, 4.2 (CIFAR-10)",
        (SMALL, "prediction_stability"),
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


def accuracies_table(record: ExperimentRecord) -> str:
    """Return the accuracy of every strategy by the number of labeled samples."""
    names = [
        name for name in dict.fromkeys(run.strategy for run in record.runs) if name != REFERENCE
    ]
    counts = sorted(
        {count for run in record.runs for count in run.labeled if run.strategy in names}
    )
    lines = []
    for name in names:
        runs = record.of(name).values()
        cells = [f"`{name}`", str(len(runs))]
        for count in counts:
            at = [dict(zip(run.labeled, run.accuracies, strict=True)).get(count) for run in runs]
            values = [100 * accuracy for accuracy in at if accuracy is not None]
            cells.append(spread(values) if values else "")
        lines.append(tuple(cells))
    text = markdown_table(("strategy", "seeds", *(f"{count:,}" for count in counts)), lines)
    everything = [100 * run.accuracies[-1] for run in record.of(REFERENCE).values()]
    if everything:
        text += f"\n\nWith all labels: {spread(everything)}."
    return text


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return mean ± sample standard deviation, or the value where there is one.

    >>> spread([1.0, 3.0]), spread([2.5], digits=1)
    ('2.00 ± 1.41', '2.5')
    """
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


def picks_table(records: Records) -> str:
    """Return what the selections consisted of, at the first and at the last of a run."""
    lines = []
    for name in (SMALL, CONTINUED, CODE, DIVERSIFIED, INTERVAL):
        recorded = records[name].runs if name in records else []
        for strategy in dict.fromkeys(run.strategy for run in recorded):
            runs = [run for run in records[name].of(strategy).values() if run.picked_correct]
            if runs and not (name == CONTINUED and strategy == "random"):
                right = [spread([100 * run.picked_correct[i] for run in runs], 0) for i in (0, -1)]
                classes = [spread([run.picked_classes[i] for run in runs], 1) for i in (0, -1)]
                label = {CONTINUED: ", training on", INTERVAL: ", epochs far apart"}.get(name, "")
                lines.append((f"`{strategy}`{label}", *right, *classes))
    header = ("strategy", "predicted right (%), first", "last", "effective classes, first", "last")
    return markdown_table(header, lines)


def informativeness_table(record: ExperimentRecord) -> str:
    """Return the model's accuracy on the samples that each score ranks highest (Fig. 3)."""
    columns = [f"{portion:.0%}" for portion in PORTIONS]
    return _score_table(
        record, columns, lambda run: [100 * value for value in run.informativeness], digits=1
    )


def losses_table(record: ExperimentRecord) -> str:
    """Return the relative real loss of the highest scores at every selection (Fig. 5)."""
    selections = max(len(run.relative_loss) for run in record.runs)
    columns = [f"selection {i}" for i in range(1, selections + 1)]
    return _score_table(record, columns, lambda run: run.relative_loss, digits=2)


def _score_table(
    record: ExperimentRecord,
    columns: Sequence[str],
    values: Callable[[RunRecord], list[float]],
    digits: int,
) -> str:
    lines = []
    for strategy in dict.fromkeys(run.strategy for run in record.runs):
        curves = [values(run) for run in record.of(strategy).values()]
        if all(curves):
            cells = (spread(column, digits) for column in zip(*curves, strict=True))
            lines.append((f"`{strategy}`", *cells))
    return markdown_table(("score", *columns), lines)


def _mean(record: ExperimentRecord, strategy: str, attribute: str, i: int) -> float:
    values = [getattr(run, attribute)[i] for run in record.of(strategy).values()]
    return mean_and_deviation(values)[0]


def explanation(records: Records) -> str:
    """Return why some statements did not hold, as far as the records show it."""
    small = records[SMALL]
    right = 100 * _mean(small, "cod", "picked_correct", 0)
    classes = {name: _mean(small, name, "picked_classes", 0) for name in ("cod", "random")}
    code_right = 100 * _mean(records[CODE], "tod_code", "picked_correct", 0)
    code_classes = [_mean(records[CODE], "tod_code", "picked_classes", i) for i in (0, -1)]
    stable = _mean(small, "prediction_stability", "picked_classes", 0)
    wrong = 100 * (1 - _mean(small, "prediction_stability", "picked_correct", 0))
    budget = small.runs[0].labeled[1] - small.runs[0].labeled[0]
    chance = 100 * (1 - _mean(small, "random", "picked_correct", 0))
    seeds = len(records[TAIL].of("softmax_response"))
    dispersed, doubtful = (
        100 * (1 - _mean(small, name, "picked_correct", -1))
        for name in ("label_dispersion", "margin")
    )
    return f"""\
**COD.** Its first selection compares with the initial model, whose outputs are nearly
uniform, so the distance is longest where the trained model is most sure: {right:.0f}% of the first
picks were predicted right already, and they came from {classes["cod"]:.1f} effective classes of ten
(random: {classes["random"]:.1f}). Later selections compare two models that differ by a few labels,
and a class that the two see differently fills the budget: the score finds high losses from the
second selection on, but of one kind. The authors' code takes the lowest scores
first: {100 - code_right:.0f}% of those picks were predicted wrong, from {code_classes[0]:.1f}
effective classes, but its last picks, the highest scores, came from {code_classes[1]:.1f}.

**Prediction stability.** Its picks are informative ({wrong:.0f}% of the first were predicted wrong,
of random ones {chance:.0f}%), but they came from {stable:.1f} effective classes. A likely reason:
in the last epochs one boundary between two classes moves back and forth, and the samples beside it
all vary together, so that a budget of {budget} is spent on one boundary.

**Label dispersion beside margin.** Both come from many classes, and of the last picks
{dispersed:.0f}% and {doubtful:.0f}% were predicted wrong, so neither redundancy nor easy samples
explain the gap. One difference is the ranking: label dispersion takes at most as many values as
epochs are observed, and ties are broken at random, while margin ranks every sample. Whether that is
the reason was not tested.

**Softmax response beside FF-Active.** The difference is small, and {seeds} seeds agree on a sign by
chance once in {2 ** (seeds - 1)} times. It is reported as it came out; more seeds would tell.

If redundancy is what fails, choosing farthest-first among the highest scores must help; the last
rows of the first table say whether it does, and whether training on from the last weights, or
epochs further apart, would have been enough."""


def most_informative(record: ExperimentRecord) -> str:
    """Return which score ranks the most misclassified samples highest, and at how many shares."""
    strategies = dict.fromkeys(run.strategy for run in record.runs)
    recorded = [
        name for name in strategies if all(r.informativeness for r in record.of(name).values())
    ]
    best = [
        min(recorded, key=lambda name: _mean(record, name, "informativeness", i))
        for i in range(len(PORTIONS) - 1)
    ]
    counts = ", ".join(f"`{name}` at {best.count(name)}" for name in dict.fromkeys(best))
    holds = set(best) == {"label_dispersion"}
    return (
        "The paper (3.2) finds that label dispersion queries the most misclassified samples, "
        f"whatever their number. Here that {'holds' if holds else 'does not hold'}: of the "
        f"{len(best)} shares below the whole pool, the lowest accuracy is that of {counts}."
    )


def section(record: ExperimentRecord, picture: str) -> str:
    """Return the part of the page about one record."""
    name = record.name
    config = (
        f"With `{name}.toml`:\n\n```toml\n{record.config_file}\n```\n" if record.config_file else ""
    )
    environment = record.environment
    parts = [
        f"## {TITLES[name]}\n",
        f"{ABOUT[name]}\n",
        f"```sh\n{record.command}\n```\n",
        config,
        f"Commit {record.commit}, {environment['cpu']}, {environment['threads']} thread, torch "
        f"{environment['torch']}; recorded in `{(FOLDER / name).as_posix()}.json`.\n",
        f"These runs had not finished: {'; '.join(record.missing)} (strategy, seed).\n"
        if record.missing
        else "",
        accuracies_table(record) + "\n",
        f"![Learning curves]({picture})\n" if picture else "",
    ]
    return "\n".join(part for part in parts if part)


def experiments_page(records: Records, pictures: Mapping[str, str]) -> str:
    """Return the page of all records; ``pictures`` are links by the record's name."""
    parts = [
        INTRODUCTION,
        "## What the papers say, and what came out here\n",
        "Differences of accuracy in percentage points: the mean, and each seed's. A statement "
        "holds or fails where all seeds agree on the sign. The long-tail paper counts the labels "
        "that random needs to catch up, up to 20,000 more; these runs end before that. None of the "
        "papers' runs on CIFAR is repeated here: they need a GPU.\n",
        claims_table(records) + "\n",
        "### What was picked\n",
        "Of the first and the last selection, mean ± deviation over seeds: the share of the picks "
        "whose label the model predicted already, and the effective number of classes among them "
        "(the exponential of the entropy of their labels).\n",
        picks_table(records) + "\n",
        explanation(records) + "\n",
        "### Informativeness\n",
        "The analysis of label dispersion's Fig. 3 at the first selection: accuracy (%) of the "
        "model on the given share of the pool with the highest scores, mean ± deviation over "
        "seeds. The lower, the more there is to learn from those labels.\n",
        informativeness_table(records[SMALL]) + "\n",
        most_informative(records[SMALL]) + "\n",
        "### Real loss\n",
        "The analysis of output discrepancy's Fig. 5: the mean real loss of the 5% of the pool "
        "with the highest scores, over that of the whole pool, mean ± deviation over "
        "seeds. Above 1, the score finds samples with a high loss, as the paper says of COD.\n",
        losses_table(records[SMALL]) + "\n",
    ]
    parts += [section(records[name], pictures.get(name, "")) for name in TITLES if name in records]
    return "\n".join(parts)


def load_records(root: Path) -> dict[str, ExperimentRecord]:
    """Return the records below ``root`` by name."""
    paths = sorted((root / FOLDER).glob("*.json"))
    return {path.stem: ExperimentRecord.load(path) for path in paths}


def page_of(root: Path) -> str:
    """Return the page of the records and pictures below ``root``."""
    records = load_records(root)
    pictures = {
        name: f"../{(FOLDER / name).as_posix()}.png"
        for name in records
        if (root / FOLDER / f"{name}.png").exists()
    }
    return experiments_page(records, pictures)


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    (root / PAGE).write_text(page_of(root))
