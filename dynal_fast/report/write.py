"""The whole report of one or more runs, as one self-contained HTML page."""

from collections.abc import Iterable
from pathlib import Path

from dynal_fast.charts.markup import Markup, element, joined
from dynal_fast.charts.style import styles
from dynal_fast.experiment.chance import chance_note
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.runs import REFERENCE
from dynal_fast.files import write_atomically
from dynal_fast.report.by_class import classes
from dynal_fast.report.compression import compression
from dynal_fast.report.differences import BASELINE, of_methods, write_differences
from dynal_fast.report.html import missing, page
from dynal_fast.report.of_differences import differences_section
from dynal_fast.report.of_gradients import gradients_section
from dynal_fast.report.of_recordings import recorded_sections
from dynal_fast.report.of_results import (
    accuracy_tables,
    capitalized,
    costs,
    learning_curves,
    settings,
    without_test_set,
)
from dynal_fast.report.of_selections import selection_reports
from dynal_fast.report.recorded import Recorded, read_recorded
from dynal_fast.report.runs import Experiment, load_experiments, methods

PAGE = "index.html"
CONTENTS = (
    ("learning-curves", "Learning curves"),
    ("accuracy", "Accuracy"),
    ("differences", "Differences"),
    ("classes", "Classes"),
    ("compression", "Compression"),
    ("informativeness", "Informativeness"),
    ("score-and-loss", "Score and loss"),
    ("loss-by-rank", "Loss by rank"),
    ("highest-losses", "Highest losses"),
    ("scores", "Scores"),
    ("trajectories", "Trajectories"),
    ("gradients", "Gradients"),
    ("selections", "Selections"),
    ("cost", "Time and memory"),
    ("settings", "Settings"),
)


def write_report(runs: Iterable[str | Path], folder: str | Path, baseline: str = BASELINE) -> Path:
    """Write ``folder/index.html`` about ``runs`` and return its path.

    The page needs no network and no other file. It is the same on every repeat. Where runs of the
    baseline and of another method began alike, ``folder/differences.csv`` has their differences.

    Parameters
    ----------
    runs
        Output folders of ``dynal-fast run``, or result files, of one data set. Parts of one
        experiment, such as more seeds, are put together; others are named by their folder.
    baseline
        The strategy from which the differences of the others are taken.

    Raises
    ------
    ValueError
        A path is not there, holds no results or a damaged recording, or the data sets differ.
    OSError
        The page cannot be written; the one before is intact.
    """
    experiments = load_experiments(runs)
    every = methods(experiments)
    looks = styles([method.name for method in every])
    recordings: dict[str, list[Recorded]] = {}
    compressing = [method for method in every if method.experiment.grid.compresses]
    querying = [method for method in every if method not in compressing]
    for method in querying:
        read = [read_recorded(run) for run in method.runs]
        recordings[method.name] = [recorded for recorded in read if recorded is not None]
    tested = [method for method in every if method.experiment.grid.evaluated]
    gradients = gradients_section(recordings, looks)
    differences = of_methods(tested, baseline)
    recordable = [method for method in querying if not method.experiment.grid.asked]
    metric = experiments[0].grid.metric
    sections = [
        learning_curves(tested, experiments, looks) if tested else without_test_set(every),
        *([accuracy_tables(tested)] if tested else []),
        *([differences_section(differences, looks, metric, baseline)] if differences else []),
        *([classes(tested)] if tested else []),
        *([compression(compressing)] if compressing else []),
        *(recorded_sections(recordable, recordings, looks) if recordable else []),
        *([gradients] if gradients is not None else []),
        selection_reports(every),
        costs(every, looks),
        settings(experiments),
    ]
    title = f"Active learning on {experiments[0].configuration.get('data', 'a data set')}"
    there = joined(sections)
    titles = dict(CONTENTS) | {"accuracy": capitalized(metric)}
    contents = [entry for entry in titles.items() if f' id="{entry[0]}"' in there]
    path = Path(folder) / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(title, _lead(experiments), sections, contents).encode())
    write_differences(differences, path.parent, baseline)
    return path


def _lead(experiments: list[Experiment]) -> Markup:
    runs = [run for experiment in experiments for run in experiment.grid.runs]
    selecting = [run for run in runs if run.strategy != REFERENCE]
    models = dict.fromkeys(str(e.configuration.get("model", "unknown")) for e in experiments)
    labeled = [count for run in selecting for count in run.labeled]
    references = [level for e in experiments for level in e.grid.reference_accuracies()]
    facts = [
        ("model", ", ".join(models)),
        ("strategies", str(len({run.strategy for run in selecting}))),
        ("seeds", str(len({run.seed for run in runs}))),
        ("labeled samples", f"{min(labeled):,} to {max(labeled):,}"),
    ]
    if references:
        metric = experiments[0].grid.metric
        facts.append((f"{metric} on all data", f"{100 * mean_and_deviation(references)[0]:.1f} %"))
    trained = [cycle.steps for run in runs for cycle in run.cycles if cycle.steps]
    if trained:
        few, many = f"{min(trained):,}", f"{max(trained):,}"
        facts.append(("optimizer steps", few if few == many else f"{few} to {many}"))
    items = (element("li", element("span", name), value) for name, value in facts)
    names = ", ".join(experiment.label for experiment in experiments)
    lead = [f"{len(runs)} runs, from {names}."]
    lead += [
        f"{experiment.label}: {note}"
        for experiment in experiments
        if (note := experiment.grid.protocol_note)
    ]
    paragraphs = [element("p", text) + "\n" for text in lead]
    paragraphs += [
        missing(f"{experiment.label}: {warning}")
        for experiment in experiments
        if (warning := chance_note(experiment.grid))
    ]
    return joined([*paragraphs, element("ul", *items, class_="facts"), "\n"])
