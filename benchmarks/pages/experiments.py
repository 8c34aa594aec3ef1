"""The page of the recorded experiments, made from their records: no figure is typed by hand.

``python -m benchmarks.pages.experiments`` in the source tree rewrites ``docs/experiments.md``
from ``benchmarks/results/experiments``.
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.pages.claims import (
    CODE,
    CONTINUED,
    DIVERSIFIED,
    INTERVAL,
    SMALL,
    TAIL,
    Records,
    claims_table,
)
from benchmarks.pages.experiment_record import FOLDER, PORTIONS, ExperimentRecord, RunRecord
from dynal_fast.bench.table import markdown_table
from dynal_fast.experiment.results import REFERENCE, mean_and_deviation
from dynal_fast.files import write_atomically

PAGE = Path("docs") / "experiments.md"
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

Made by `python -m benchmarks.pages.experiments` from the records in
`benchmarks/results/experiments`; `python -m benchmarks.pages.experiment_record RUN NAME` makes a
record of an output folder. Accuracies are on the test set in percent, mean ± sample standard
deviation over seeds. Every strategy of a seed starts from the same labeled samples and the same
weights, so differences are taken seed by seed.

`DIR` in the commands is the folder with MNIST's four idx files. With `--analysis`, `dynal-fast
report` draws the papers' pictures of such a run.
"""


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
    tail = records[TAIL]
    seeds = len(tail.of("least_confidence"))
    epochs, model = setting(tail, "epochs"), setting(tail, "model")
    chance_drew = picked_by_chance(small, "label_dispersion")
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
epochs are observed, {setting(small, "epochs")} here, so that {chance_drew:.0f}% of its picks were
drawn at random among more samples of the same score, while margin ranks every sample. The other
{100 - chance_drew:.0f}% are what the score chose. Whether a finer ranking would close the gap is
not among these records; nor is the other difference, that margin looks at the last epoch alone.

**Softmax response beside FF-Active.** The difference is small, and {seeds} seeds agree on a sign by
chance once in {2 ** (seeds - 1)} times. It is reported as it came out; more seeds would tell. The
paper states neither its epochs nor its repeats, and mentions no dropout in its network, "similar to
LeNet"; here `{model}`, which has a dropout of 0.5 before its last layer, trains for {epochs} epochs
only. Whether one of these is the reason was not tested.

If redundancy is what fails, choosing farthest-first among the highest scores must help; the last
rows of the first table say whether it does, and whether training on from the last weights, or
epochs further apart, would have been enough."""


def setting(record: ExperimentRecord, option: str) -> str:
    """Return the value of an option in the command of a record.

    Raises
    ------
    ValueError
        The command leaves it at its default.
    """
    words = shlex.split(record.command)
    return words[words.index(f"--{option}") + 1]


def picked_by_chance(record: ExperimentRecord, strategy: str) -> float:
    """Return which percentage of all picks of a strategy was drawn among equal scores."""
    shares = [share for run in record.of(strategy).values() for share in run.picked_by_chance]
    return 100 * mean_and_deviation(shares)[0]


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
    found = (
        "The paper (3.2) finds that label dispersion queries the most misclassified samples, "
        f"whatever their number. Here that {'holds' if holds else 'does not hold'}: of the "
        f"{len(best)} shares below the whole pool, the lowest accuracy is that of {counts}."
    )
    if holds:
        return found
    return (
        f"{found} Ties are no reason: samples of equal score count with their mean over all "
        "orders. What differs is the setting: the paper trains ResNet-18 on 5,000 labels of CIFAR "
        f"for 100 epochs and lowers the rate twice, here `{setting(record, 'model')}` is trained "
        f"on {setting(record, 'initial')} labels of MNIST for {setting(record, 'epochs')} epochs "
        "at one rate. Which of these matters was not tested."
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
    write_atomically(root / PAGE, page_of(root).encode())
