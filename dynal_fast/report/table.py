"""Finished runs as plain text tables."""

from collections.abc import Sequence

from dynal_fast.experiment.results import GridResult, mean_and_deviation


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


def learning_curve(grid: GridResult, strategy: str) -> dict[int, tuple[float, float]]:
    """Return labeled count → mean and standard deviation of the test accuracy over seeds."""
    values: dict[int, list[float]] = {}
    for run in grid.of(strategy):
        for count, accuracy in zip(run.labeled, run.accuracies, strict=True):
            values.setdefault(count, []).append(accuracy)
    return {count: mean_and_deviation(values[count]) for count in sorted(values)}


def milliseconds(seconds: Sequence[float]) -> str:
    """Return the mean in milliseconds.

    >>> milliseconds([0.001, 0.002])
    '1.5 ms'
    """
    return f"{1000 * sum(seconds) / len(seconds):.1f} ms"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text: the first column to the left, the others to the right.

    >>> print(aligned([["name", "n"], ["random", "10"]]))
    name     n
    random  10
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
