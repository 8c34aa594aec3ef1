"""The learning curves of one run as a file of their own."""

from pathlib import Path

from dynal_fast.charts.picture import name_ends, picture, room_for_names
from dynal_fast.charts.series import spread_words
from dynal_fast.charts.style import styles
from dynal_fast.experiment.results import GridResult, mean_and_deviation
from dynal_fast.files import write_atomically
from dynal_fast.report.learning_curve import curves_chart, drawn, learning_curve

PLOT, HEIGHT, NAME = 640, 400, 18  # pixels: of the axes without the names, and of one name


def draw_learning_curves(grid: GridResult, folder: Path, name: str = "learning_curves") -> Path:
    """Write ``name.svg`` and return its path.

    One line for each strategy: the mean test accuracy over seeds against the number of labeled
    samples, and one standard deviation; a dashed line for training on all labels. The note below
    names the preset and every departure from it.
    """
    looks = styles(grid.strategies())
    lines = {strategy: drawn(strategy, learning_curve(grid, strategy)) for strategy in looks}
    ends = {
        strategy: (line.xs[-1], line.means[-1], looks[strategy]) for strategy, line in lines.items()
    }
    levels = [100 * accuracy for accuracy in grid.reference_accuracies()]
    references = [mean_and_deviation(levels)[0]] if levels else []
    right = room_for_names([*ends])
    height = max(HEIGHT, NAME * len(ends) + 76)
    chart = curves_chart(lines, looks, grid.metric, references, PLOT + round(right), height, right)
    name_ends(chart, ends)
    title = f"{grid.configuration['data']}, {grid.configuration['model']}"
    seeds = len({run.seed for run in grid.runs})
    words = f"Mean of {seeds} seeds; {spread_words(lines)}. " if seeds > 1 else ""
    listed = ", ".join(f"{strategy} {y:.1f} %" for strategy, (_, y, _) in ends.items())
    whole = picture(
        [(title, chart)], f"Test {grid.metric}, at the end: {listed}.", words + grid.protocol_note
    )
    path = folder / f"{name}.svg"
    write_atomically(path, whole.encode())
    return path
