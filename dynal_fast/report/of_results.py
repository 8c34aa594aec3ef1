"""The parts of a report that need results alone: learning curves, accuracies, costs, settings."""

import json
from collections.abc import Callable, Sequence

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, element, joined
from dynal_fast.charts.scale import Scale, duration, linear, logarithmic
from dynal_fast.charts.series import spread_words
from dynal_fast.charts.style import Style
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.runs import REFERENCE
from dynal_fast.report.html import both_widths, legend, missing, section, table
from dynal_fast.report.learning_curve import Curve, curves_chart, drawn, learning_curve
from dynal_fast.report.runs import Experiment, Method
from dynal_fast.report.table import by_count, cost_table, loss_table, thousands
from dynal_fast.table import Table

Styles = dict[str, Style]
SHORTEST = 1e-9  # seconds: what a logarithmic scale shows for 0, below what a clock can measure


def curve_of(method: Method) -> Curve:
    """Return labeled count → mean and standard deviation over seeds of the test accuracy."""
    return learning_curve(method.experiment.grid, method.strategy)


def learning_curves(
    methods: Sequence[Method], experiments: Sequence[Experiment], styles: Styles
) -> Markup:
    """Return the section of the learning curves."""
    metric = experiments[0].grid.metric
    curves = {method.name: curve_of(method) for method in methods}
    counts = sorted({count for curve in curves.values() for count in curve})
    references = [
        100 * mean_and_deviation(levels)[0]
        for experiment in experiments
        if (levels := experiment.grid.reference_accuracies())
    ]
    lines = {name: drawn(name, curve) for name, curve in curves.items()}

    def draw(width: int, height: int) -> Chart:
        return curves_chart(lines, styles, metric, references, width, height)

    ends = ", ".join(f"{name} {100 * list(c.values())[-1][0]:.1f} %" for name, c in curves.items())
    description = f"Test {metric} against labeled samples. At the end: {ends}."
    several = several_seeds(methods)
    text = f"{capitalized(metric)} on the test set after each training" + (
        f", mean over seeds; {spread_words(lines)}." if several else ", of one seed."
    )
    notes = dict.fromkeys(experiment.grid.protocol_note for experiment in experiments)
    changed = [note.partition(":")[0] for note in notes if note.startswith("Not ")]
    text = " ".join([text, *(f"{note}: what differs stands at the top." for note in changed)])
    picture = legend([(name, styles[name]) for name in curves]) + both_widths(draw, description)
    numbers = [_every_seed(methods, counts)]
    if references:
        rows = [
            [experiment.label, str(run.seed), f"{100 * run.accuracies[-1]:.2f}"]
            for experiment in experiments
            for run in experiment.grid.of(REFERENCE)
        ]
        if rows:
            header = ["all data", "seed", f"test {metric} (%)"]
            numbers.append(Table(header, rows, f"{capitalized(metric)} on all data"))
    numbers += _steps(methods, counts)
    return section("learning-curves", "Learning curves", text, picture, numbers)


def _every_seed(methods: Sequence[Method], counts: Sequence[int]) -> Table:
    rows = []
    for method in methods:
        for run in method.runs:
            of_run = dict(zip(run.result.labeled, run.result.accuracies, strict=True))
            cells = [f"{100 * of_run[n]:.2f}" if n in of_run else "" for n in counts]
            rows.append([method.name, str(run.result.seed), *cells])
        curve = curve_of(method)
        for what, part in (("mean", 0), ("std", 1)) if len(method.runs) > 1 else ():
            cells = [f"{100 * curve[n][part]:.2f}" if n in curve else "" for n in counts]
            rows.append([method.name, what, *cells])
    metric = methods[0].experiment.grid.metric
    header = [f"test {metric} (%)", "seed", *thousands(counts)]
    return Table(header, rows, f"{capitalized(metric)} of every seed")


def _steps(methods: Sequence[Method], counts: Sequence[int]) -> list[Table]:
    """Return the table of how many optimizer steps the trainings took, if the results say so."""
    rows = []
    for method in methods:
        steps: dict[int, set[int]] = {}
        for run in method.runs:
            for cycle in run.result.cycles:
                if cycle.steps:
                    steps.setdefault(cycle.labeled, set()).add(cycle.steps)
        if steps:
            taken = [steps.get(count, set()) for count in counts]
            ends = [sorted({min(some), max(some)}) if some else [] for some in taken]
            cells = [" to ".join(thousands(some)) for some in ends]
            rows.append([method.name, *cells])
    label = "Optimizer steps of a training"
    return [Table(["optimizer steps", *thousands(counts)], rows, label)] if rows else []


def accuracy_tables(methods: Sequence[Method]) -> Markup:
    """Return the section with the accuracies, absolute and relative to training on all data."""
    absolute = {method.name: curve_of(method) for method in methods}
    relative = {}
    for method in methods:
        levels = method.experiment.grid.reference_accuracies()
        if levels:
            level = mean_and_deviation(levels)[0]
            relative[method.name] = {
                count: (mean / level, deviation / level)
                for count, (mean, deviation) in curve_of(method).items()
            }
    several = several_seeds(methods)
    metric = methods[0].experiment.grid.metric
    content = element("h3", f"Test {metric} (%)") + "\n"
    content += table(by_count(absolute, f"Test {metric} (%)", several))
    if not all(method.experiment.grid.asked for method in methods):
        content += element("h3", "Relative to training on all data (%)") + "\n"
    if relative:
        label = f"Test {metric} relative to all data (%)"
        content += table(by_count(relative, label, several))
    without = ", ".join(
        method.name
        for method in methods
        if method.name not in relative and not method.experiment.grid.asked
    )
    if without:
        option = element("code", "--reference")
        content += missing(
            f"No training on all data to compare {without} with. Run the same command again with "
            + option
            + ", into the same folder: only that is trained."
        )
    text = "By labeled samples"
    text += ", mean ± standard deviation over seeds" if several else ", of one seed"
    text += ". The best of a column is bold."
    return section("accuracy", capitalized(metric), text, content)


def without_test_set(methods: Sequence[Method]) -> Markup:
    """Return what stands in the place of learning curves where there is no test set."""
    absent = missing("There was no labeled hold-out to test on, so there is no accuracy.")
    losses = loss_table([(method.name, run.result) for method in methods for run in method.runs])
    return section("learning-curves", "Learning curves", "What was trained.", absent, [losses])


def costs(methods: Sequence[Method], styles: Styles) -> Markup:
    """Return the section of time and memory per selection."""
    title = "Time and memory per selection"
    timings = {
        method.name: [timing for run in method.runs for timing in run.result.timings]
        for method in methods
    }
    measured = {
        name: selections
        for name, all_timings in timings.items()
        if (selections := [t.selection for t in all_timings if t.selection is not None])
    }
    if not measured:
        absent = missing(
            "No times: "
            + element("code", "timings.json")
            + ", which "
            + element("code", "dynal-fast run")
            + " writes beside the results, is not there, or no selection was made."
        )
        return section("cost", title, "What a selection takes.", absent)
    seconds = {
        name: [max(m.seconds, SHORTEST) for m in of_one] for name, of_one in measured.items()
    }
    memory = {
        name: max(m.peak_extra_bytes for m in of_one) / 2**20 for name, of_one in measured.items()
    }
    machines = dict.fromkeys(_machine(method.experiment) for method in methods)
    ways = sorted({m.memory_method for of_one in measured.values() for m in of_one})
    text = (
        "Above, the time of the selection alone: the mean as a marker, the line from the fastest "
        "to the slowest. Below, the highest rise of memory during a selection "
        f"({'; '.join(ways)}). Observing the pool while the model trains is listed apart, "
        f"in the table. Measured on: {'; '.join(machines)}."
    )
    times = {name: (min(v), mean_and_deviation(v)[0], max(v)) for name, v in seconds.items()}
    picture = _rows(
        times,
        styles,
        logarithmic([value for values in times.values() for value in values], duration),
        "time of a selection (logarithmic)",
        duration,
    )
    picture += _rows(
        {name: (0.0, value, value) for name, value in memory.items()},
        styles,
        linear([0.0, *memory.values()]),
        "peak extra memory of a selection (MiB)",
        lambda value: f"{value:.2f} MiB",
    )
    return section("cost", title, text, picture, [cost_table(timings)])


def _rows(
    values: dict[str, tuple[float, float, float]],
    styles: Styles,
    scale: Scale,
    axis: str,
    written: Callable[[float], str],
) -> Markup:
    """Draw for each name, in a row of its own, a marker and a line from one value to another.

    ``values`` holds where the line begins, the marker and where the line ends.
    """

    def draw(width: int, _: int) -> Chart:
        rows = Scale(-0.5, len(values) - 0.5, {})
        height = 60 + 36 * len(values)
        chart = Chart(scale, rows, axis, "", width, height, left=24, top=10, right=24, rows=True)
        for i, (name, (begin, middle, end)) in enumerate(reversed(values.items())):
            chart.text(name, chart.left + 2, i + 0.25)
            chart.line([scale.low, scale.high], [i - 0.2, i - 0.2], Style("track"))
            chart.line([begin, end], [i - 0.2, i - 0.2], Style(styles[name].colour))
            chart.points([middle], [i - 0.2], styles[name], [f"{name}: {written(middle)}"])
        return chart

    listed = ", ".join(f"{name} {written(middle)}" for name, (_, middle, _) in values.items())
    return both_widths(draw, f"{axis}: {listed}.")


def _machine(experiment: Experiment) -> str:
    known = experiment.grid.environment
    parts = [str(known[key]) for key in ("cpu", "machine") if known.get(key)]
    if known.get("threads"):
        parts.append(f"{known['threads']} thread{'s' if known['threads'] > 1 else ''}")
    if known.get("torch"):
        parts.append(f"torch {known['torch']}")
    return ", ".join([*parts, f"device {experiment.configuration.get('device', 'unknown')}"])


def settings(experiments: Sequence[Experiment]) -> Markup:
    """Return the section with the configuration of every experiment, as a file to run again."""
    parts = []
    for experiment in experiments:
        kept = {k: v for k, v in experiment.configuration.items() if k not in LOCAL and v != ""}
        summary = element("summary", f"{experiment.label}.yaml")
        file = element("pre", json.dumps(kept, indent=2))
        parts.append(element("details", summary, file) + "\n")
    command = element("code", run_again(experiments[0]))
    text = "Saved as a file, this runs the same experiment again: " + command + "."
    return section("settings", "Settings", text, joined(parts))


LOCAL = (
    "data_root",
    "data_cache",
    "embeddings",
    "labels",
    "holdout",
)  # folders of the machine that ran it


def run_again(experiment: Experiment, options: str = "") -> str:
    """Return the command that runs the experiment again, from the file under Settings."""
    data = " --data-root DIR" if experiment.configuration.get("data_root") else ""
    data += " --embeddings FILE" if experiment.configuration.get("embeddings") else ""
    return f"dynal-fast run {experiment.label}.yaml{data}{options} -o NEW"


def capitalized(metric: str) -> str:
    """Return the name of a metric as a sentence begins with it.

    >>> capitalized("mean IoU")
    'Mean IoU'
    """
    return metric[0].upper() + metric[1:]


def several_seeds(methods: Sequence[Method]) -> bool:
    """Return whether any method has a spread over seeds."""
    return any(len(method.runs) > 1 for method in methods)
