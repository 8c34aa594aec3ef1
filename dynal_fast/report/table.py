"""The tables of finished runs, for the terminal and for the page."""

from collections.abc import Mapping, Sequence

from dynal_fast.experiment.results import GridResult, mean_and_deviation
from dynal_fast.experiment.runs import CycleTiming, RunResult
from dynal_fast.report.bands import percent
from dynal_fast.report.learning_curve import Curve, learning_curve
from dynal_fast.table import Table


def accuracy_table(grid: GridResult) -> Table:
    """Return the test accuracy in percent, mean ± standard deviation over seeds, by labeled count.

    A single seed has no deviation.
    """
    several = len({run.seed for run in grid.runs}) > 1
    curves = {name: learning_curve(grid, name) for name in grid.strategies()}
    levels = grid.reference_accuracies()
    mean, deviation = mean_and_deviation(levels or [0.0])
    note = f"all data: {percent(100 * mean, 100 * deviation, several)}" if levels else ""
    return by_count(curves, f"Test {grid.metric} (%)", several, note)


def by_count(curves: Mapping[str, Curve], label: str, several: bool, note: str = "") -> Table:
    """Return curves as rows, in percent, and mark the best of each column, if they differ."""
    counts = sorted({count for curve in curves.values() for count in curve})
    means = {n: {curve[n][0] for curve in curves.values() if n in curve} for n in counts}
    best = {count: max(values) for count, values in means.items() if len(values) > 1}
    rows = []
    for name, curve in curves.items():
        cells = [name]
        for count in counts:
            mean, deviation = curve.get(count, (None, 0.0))
            mark = "*" if mean is not None and mean == best.get(count) else ""
            cells.append(
                "" if mean is None else percent(100 * mean, 100 * deviation, several) + mark
            )
        rows.append(cells)
    return Table(["method", *thousands(counts)], rows, label, note)


def loss_table(runs: Sequence[tuple[str, RunResult]]) -> Table:
    """Return the training loss of each training, for named runs without a test set."""
    rows = [
        [name, str(run.seed), f"{cycle.labeled:,}", f"{cycle.train_loss:.4g}"]
        for name, run in runs
        for cycle in run.cycles
    ]
    return Table(["method", "seed", "labeled", "training loss"], rows, "Loss of each training")


def cost_table(timings: Mapping[str, Sequence[CycleTiming]]) -> Table:
    """Return what selections take, of the methods that selected: times are means over them.

    The highest memory is listed.
    """
    rows = []
    for name, every in timings.items():
        selecting = [timing for timing in every if timing.selection is not None]
        selections = [timing.selection for timing in selecting if timing.selection is not None]
        if not selections:
            continue
        seconds = [selection.seconds for selection in selections]
        memory = max(selection.peak_extra_bytes for selection in selections) / 2**20
        others = (
            [timing.observe_seconds for timing in selecting],
            [timing.train_seconds for timing in every],
        )
        cells = [1000 * each for each in (_mean(seconds), min(seconds), max(seconds))]
        cells += [memory, *(1000 * _mean(each) for each in others)]
        rows.append([name, *(f"{cell:,.2f}" for cell in cells), str(len(selections))])
    header = ["method", "select (ms)", "least", "most", "memory (MiB)"]
    header += ["observe (ms)", "train (ms)", "selections"]
    label = "Time and peak extra memory per selection"
    return Table(header, rows, label)


def timings_of(grid: GridResult) -> dict[str, list[CycleTiming]]:
    """Return strategy → the timings of all its cycles."""
    return {n: [timing for run in grid.of(n) for timing in run.timings] for n in grid.strategies()}


def thousands(counts: Sequence[int]) -> list[str]:
    """Return numbers with their thousands set apart.

    >>> thousands([500, 22000])
    ['500', '22,000']
    """
    return [f"{count:,}" for count in counts]


def _mean(values: Sequence[float]) -> float:
    return mean_and_deviation(values)[0]
