"""Finished runs as plain text tables."""

from collections.abc import Sequence

from dynal_fast.aligned import aligned
from dynal_fast.experiment.results import GridResult, mean_and_deviation
from dynal_fast.report.learning_curve import learning_curve


def accuracy_table(grid: GridResult) -> str:
    """Return the test accuracy in percent, mean ± standard deviation over seeds, by labeled count.

    The best mean of each column is marked with an asterisk. A single seed has no deviation.
    """
    several = len({run.seed for run in grid.runs}) > 1

    def cell(mean: float, deviation: float) -> str:
        return f"{100 * mean:.1f} ± {100 * deviation:.1f}" if several else f"{100 * mean:.1f}"

    curves = {name: learning_curve(grid, name) for name in grid.strategies()}
    counts = sorted({count for curve in curves.values() for count in curve})
    best = {
        count: max(curve[count][0] for curve in curves.values() if count in curve)
        for count in counts
    }
    rows = [["labeled", *(f"{count} " for count in counts)]]
    for name, curve in curves.items():
        cells = [name]
        for count in counts:
            mark = "*" if count in curve and curve[count][0] == best[count] else " "
            cells.append(cell(*curve[count]) + mark if count in curve else "")
        rows.append(cells)
    reference = grid.reference_accuracies()
    footer = f"\nall data: {cell(*mean_and_deviation(reference))}" if reference else ""
    return aligned(rows) + footer


def loss_table(grid: GridResult) -> str:
    """Return the mean training loss of each training, for runs without a test set."""
    rows = []
    for run in grid.runs:
        rows += [
            ["labeled", *(f"{cycle.labeled}" for cycle in run.cycles)],
            [run.strategy, *(f"{cycle.train_loss:.3g}" for cycle in run.cycles)],
        ]
    return aligned(rows)


def cost_table(grid: GridResult) -> str:
    """Return what a selection takes: means over all selections, and the highest memory."""
    rows = [["per selection", "select", "peak extra memory", "observe the pool", "train"]]
    for name in grid.strategies():
        timings = [timing for run in grid.of(name) for timing in run.timings]
        selections = [timing.selection for timing in timings if timing.selection is not None]
        if not selections:
            continue
        observing = [t.observe_seconds for t in timings if t.selection is not None]
        rows.append(
            [
                name,
                milliseconds([selection.seconds for selection in selections]),
                f"{max(selection.peak_extra_bytes for selection in selections) / 2**20:.1f} MiB",
                milliseconds(observing),
                milliseconds([timing.train_seconds for timing in timings]),
            ]
        )
    return aligned(rows)


def milliseconds(seconds: Sequence[float]) -> str:
    """Return the mean in milliseconds.

    >>> milliseconds([0.001, 0.002])
    '1.5 ms'
    """
    return f"{1000 * sum(seconds) / len(seconds):.1f} ms"
