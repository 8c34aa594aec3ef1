"""The tables of ``docs/experiments.md``, from the records of finished experiments."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.pages.claims import Records, claims_table, differences_table, protocol_table
from benchmarks.pages.experiment_record import FOLDER, PORTIONS, ExperimentRecord, RunRecord
from benchmarks.pages.markers import markdown_table
from benchmarks.pages.statements import CODE, CONTINUED, DIVERSIFIED, INTERVAL, SETTINGS, SMALL
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.runs import REFERENCE


def load_records(root: Path) -> dict[str, ExperimentRecord]:
    """Return the records below ``root`` by name."""
    paths = sorted((root / FOLDER).glob("*.json"))
    return {path.stem: ExperimentRecord.load(path) for path in paths}


def page_tables(root: Path) -> dict[str, str]:
    """Return the tables of ``docs/experiments.md`` by name; each record is a table of its own."""
    records = load_records(root)
    settings = [name for name in SETTINGS if name in records]
    tables = {
        "claims": claims_table(records),
        "picks": picks_table(records, (SMALL, CONTINUED, CODE, DIVERSIFIED, INTERVAL)),
        "informativeness": informativeness_table(records[SMALL]),
        "real-loss": losses_table(records[SMALL]),
    }
    if settings:
        tables["protocol-claims"] = protocol_table(records)
        tables["protocol-picks"] = picks_table(records, settings)
    for name, record in records.items():
        picture = FOLDER / f"{name}.svg"
        link = f"../{picture.as_posix()}" if (root / picture).exists() else ""
        tables[name] = record_table(record, link, differences_table(records, name))
    return tables


def record_table(record: ExperimentRecord, picture: str, differences: str) -> str:
    """Return the command, the machine and the accuracies of a record, with a link to its curves.

    ``differences``: the table of those from random, or ''.
    """
    name, environment = record.name, record.environment
    parts = [f"```sh\n{record.command}\n```"]
    if record.config_file:
        parts.append(f"With `{name}.toml`:\n\n```toml\n{record.config_file}\n```")
    parts.append(
        f"Commit {record.commit}, {environment['cpu']}, {environment['threads']} thread, torch "
        f"{environment['torch']}; recorded in `{(FOLDER / name).as_posix()}.json`."
    )
    if record.missing:
        parts.append(f"Not finished (strategy, seed): {'; '.join(record.missing)}.")
    parts.append(accuracies_table(record))
    if differences:
        parts += ["More than random, in points, with 95% intervals over the seeds:", differences]
    if picture:
        parts.append(f"![Learning curves of {name}]({picture})")
    return "\n\n".join(parts)


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


def picks_table(records: Records, names: Sequence[str]) -> str:
    """Return what the selections consisted of: the first one, the last one, and all of a run."""
    lines = []
    for name in names:
        recorded = records[name].runs if name in records else []
        for strategy in dict.fromkeys(run.strategy for run in recorded):
            runs = [run for run in records[name].of(strategy).values() if run.picked_correct]
            if runs and not (name == CONTINUED and strategy == "random"):
                right = [spread([100 * run.picked_correct[i] for run in runs], 0) for i in (0, -1)]
                classes = [spread([run.picked_classes[i] for run in runs], 1) for i in (0, -1)]
                labels = {CONTINUED: "training on", INTERVAL: "epochs far apart"} | SETTINGS
                label = f", {labels[name]}" if name in labels else ""
                drawn = f"{picked_by_chance(runs):.0f}" if runs[0].picked_by_chance else ""
                lines.append((f"`{strategy}`{label}", *right, *classes, drawn))
    header = (
        "strategy",
        "predicted right (%), first",
        "last",
        "effective classes, first",
        "last",
        "drawn among equals (%)",
    )
    return markdown_table(header, lines)


def picked_by_chance(runs: Sequence[RunRecord]) -> float:
    """Return which percentage of all picks of these runs was drawn among equal scores."""
    return 100 * mean_and_deviation([share for run in runs for share in run.picked_by_chance])[0]


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
