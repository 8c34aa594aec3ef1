"""Learning curves as pictures."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynal_fast.experiment.results import GridResult, mean_and_deviation
from dynal_fast.files import write_atomically
from dynal_fast.report.html import STYLESHEET
from dynal_fast.report.learning_curve import drawn, learning_curve
from dynal_fast.report.svg import styles

MARKERS = {  # of the page: those of matplotlib
    "square": "s",
    "diamond": "D",
    "triangle": "^",
    "cross": "X",
    "down": "v",
    "pentagon": "p",
    "plus": "P",
    "circle": "o",
}


def draw_learning_curves(
    grid: GridResult, folder: Path, name: str = "learning_curves"
) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` and return their paths.

    One line for each strategy: the mean test accuracy over seeds against the number of labeled
    samples, with one standard deviation as a band; a dashed line for training on all labels. The
    note below names the preset and every departure from it.
    """
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 11,
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name may hold $
        "svg.hashsalt": "dynal_fast",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
    }
    paths = []
    with rc_context(style):
        figure = Figure(figsize=(9, 5.4), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, grid)
        if grid.protocol_note:
            figure.supxlabel("\n".join(textwrap.wrap(grid.protocol_note, 110)), fontsize=8.5)
        for ending, metadata in (("png", None), ("svg", {"Date": None})):
            picture = io.BytesIO()
            figure.savefig(picture, format=ending, dpi=160, metadata=metadata)
            paths.append(folder / f"{name}.{ending}")
            write_atomically(paths[-1], picture.getvalue())
    return paths


def _draw(axes: Any, grid: GridResult) -> None:
    ends: list[tuple[float, str, str]] = []
    colours = page_colours()
    all_counts: list[int] = []
    for name, style in styles(grid.strategies()).items():
        curve, colour = drawn(learning_curve(grid, name)), colours[style.colour]
        axes.fill_between(
            curve.counts, curve.lows, curve.highs, color=colour, alpha=0.10, linewidth=0
        )
        axes.plot(
            curve.counts,
            curve.means,
            color=colour,
            marker=MARKERS[style.marker],
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            linewidth=1.8,
            linestyle=(0, tuple(map(float, style.dashes.split()))) if style.dashes else "-",
            label=name,
        )
        ends.append((curve.means[-1], name, colour))
        all_counts += curve.counts
    reference = grid.reference_accuracies()
    if reference:
        level = 100 * mean_and_deviation(reference)[0]
        axes.axhline(level, color="#111827", linewidth=1.1, linestyle=(0, (6, 4)), zorder=0)
        ends.append((level, "all labels", "#111827"))
    counts = sorted(set(all_counts))
    axes.set_xticks(counts if len(counts) <= 12 else counts[:: -(-len(counts) // 12)])
    axes.set_xlabel("labeled samples")
    axes.set_ylabel(f"test {grid.metric} (%)")
    seeds = len({run.seed for run in grid.runs})
    config = grid.configuration
    title = f"{config['data']}, {config['model']}: mean and standard deviation of {seeds} seeds"
    axes.set_title(title if seeds > 1 else f"{config['data']}, {config['model']}", loc="left")
    axes.grid(axis="y", color="#E5E7EB", linewidth=0.8)
    axes.set_axisbelow(True)
    _label_ends(axes, ends, counts)


def page_colours() -> dict[str, str]:
    """Return the colours that the page's stylesheet gives to its classes on a light screen."""
    light = STYLESHEET.read_text("utf-8").partition("@media")[0]
    return dict(re.findall(r"--(c\d|base): (#[0-9a-f]{6})", light))


def _label_ends(axes: Any, ends: list[tuple[float, str, str]], counts: Sequence[int]) -> None:
    """Write each curve's name at its right end, moved apart where the ends are close."""
    low, high = axes.get_ylim()
    placed = spread([end[0] for end in ends], gap=0.048 * (high - low))
    for (value, name, colour), height in zip(ends, placed, strict=True):
        axes.annotate(
            name,
            xy=(counts[-1], value),
            xytext=(1.05, (height - low) / (high - low)),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=10.5,
            fontweight="bold",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "alpha": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 2,
                "shrinkB": 5,
            },
        )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Return the values moved apart to distances of at least ``gap``, in the same order.

    >>> spread([1.0, 1.0, 5.0], 1.0)
    [0.5, 1.5, 5.0]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    groups: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        groups.append([i])
        centres.append(values[i])
        while len(groups) > 1 and _overlap(groups, centres, gap):
            members = groups[-2] + groups.pop()
            centres.pop()
            groups[-1] = members
            centres[-1] = sum(values[member] for member in members) / len(members)
    placed = [0.0] * len(values)
    for members, centre in zip(groups, centres, strict=True):
        for rank, member in enumerate(members):
            placed[member] = centre + gap * (rank - (len(members) - 1) / 2)
    return placed


def _overlap(groups: list[list[int]], centres: list[float], gap: float) -> bool:
    below = centres[-2] + gap * (len(groups[-2]) - 1) / 2
    above = centres[-1] - gap * (len(groups[-1]) - 1) / 2
    return above - below < gap
