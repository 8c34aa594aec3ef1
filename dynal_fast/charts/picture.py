"""A file of its own with one or more charts: colours, title and notes included."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, element, styled
from dynal_fast.charts.style import Style
from dynal_fast.charts.text import text_width

STYLESHEET = Path(__file__).with_name("charts.css")
MARGIN, TITLE, NOTE, NAME = 16, 26, 16, 16  # pixels: around all, and of a line of each
BOLD = 1.12  # how much wider bold letters are


def picture(
    panels: Sequence[tuple[str, Chart]], description: str, note: str = "", columns: int = 1
) -> Markup:
    """Return titled charts, ``columns`` of them side by side, as an SVG file.

    It follows the colour scheme of whoever shows it, light or dark. ``note`` is written below, and
    ``description`` is for screen readers.
    """
    wide = max(chart.width for _, chart in panels)
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    width = columns * (wide + MARGIN) + MARGIN
    parts, y = [], MARGIN
    for line in lines:
        for i, (title, chart) in enumerate(line):
            x = MARGIN + i * (wide + MARGIN)
            parts.append(element("text", title, class_="title", x=x, y=y + 14))
            size = {"width": chart.width, "height": chart.height}
            parts.append(chart.svg(title, None, x=x, y=y + TITLE, **size))
        y += TITLE + max(chart.height for _, chart in line) + MARGIN
    for text in textwrap.wrap(note, int((width - 2 * MARGIN) / 7.8)):
        parts.append(element("text", text, class_="tick", x=MARGIN, y=y))
        y += NOTE
    frame = {"width": width, "height": y, "viewBox": f"0 0 {width} {y}"}
    return element(
        "svg",
        styled(STYLESHEET.read_text("utf-8")),
        element("rect", class_="back", width=width, height=y),
        *(piece for part in parts for piece in ("\n", part)),
        "\n",
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        aria_label=description,
        **frame,
    )


def room_for_names(names: Sequence[str]) -> float:
    """Return the right margin of a chart that the names of its lines need, in pixels."""
    return 34 + BOLD * max(map(text_width, names), default=0)


def name_ends(chart: Chart, ends: Mapping[str, tuple[float, float, Style]]) -> None:
    """Write names beside the right ends of lines, moved apart where the ends are close.

    ``ends`` holds the last point of each line, and its style.
    """
    heights = spread([chart.py(y) for _, y, _ in ends.values()], NAME, low=NAME / 2)
    left = chart.width - chart.right + 24
    for (name, (x, y, style)), height in zip(ends.items(), heights, strict=True):
        start = {"x1": f"{chart.px(x) + 12:.1f}", "y1": f"{chart.py(y):.1f}"}
        stop = {"x2": f"{left - 4:.1f}", "y2": f"{height:.1f}"}
        chart.notes.append(element("line", class_=f"lead {style.colour}", **start, **stop))
        place = {"x": f"{left:.1f}", "y": f"{height + 4:.1f}"}
        chart.notes.append(element("text", name, class_=f"name {style.colour}", **place))


def spread(values: Sequence[float], gap: float, low: float = -math.inf) -> list[float]:
    """Return the values moved apart to distances of at least ``gap``, in the same order.

    None is moved below ``low``.

    >>> spread([1.0, 1.0, 5.0], 1.0), spread([1.0, 1.0, 5.0], 1.0, low=1.0)
    ([0.5, 1.5, 5.0], [1.0, 2.0, 5.0])
    """

    def places(members: Sequence[int]) -> list[float]:
        centre = sum(values[member] for member in members) / len(members)
        first = max(low, centre - gap * (len(members) - 1) / 2)
        return [first + gap * rank for rank in range(len(members))]

    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[list[int]] = []  # neighbours that had to be moved, each around its own mean
    for i in order:
        groups.append([i])
        while len(groups) > 1 and places(groups[-1])[0] < gap + places(groups[-2])[-1]:
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(values)
    for members in groups:
        for member, place in zip(members, places(members), strict=True):
            placed[member] = place
    return placed
