"""What tells the series of a picture apart: a colour, a marker, the dashes of a line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dynal_fast.charts.markup import Markup, element, joined

MARKERS = ("square", "diamond", "triangle", "cross", "down", "pentagon", "plus", "circle")
COLOURS = 10
DASHES = ("", "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Style:
    """How a series looks: a colour class of the stylesheet, a marker, and the dashes of its line.

    Series never differ in colour alone: each has a marker or dashes of its own.
    """

    colour: str
    marker: str = "circle"
    dashes: str = ""


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each name, the same in every picture; ``random`` is the grey baseline.

    >>> styles(["random", "cod"])["cod"]
    Style(colour='c0', marker='square', dashes='')
    """
    given: dict[str, Style] = {}
    baselines = [name for name in names if name == "random" or name.startswith("random (")]
    for i, name in enumerate(baselines):
        given[name] = Style("base", MARKERS[-1 - i % len(MARKERS)], "2 4")
    for i, name in enumerate(name for name in names if name not in given):
        marker = MARKERS[(i + i // COLOURS) % len(MARKERS)]
        given[name] = Style(f"c{i % COLOURS}", marker, DASHES[i // COLOURS % len(DASHES)])
    return given


def marker(kind: str, x: float, y: float, radius: float = 4.2) -> str:
    """Return the path of a marker around a point.

    >>> marker("square", 10, 10, 2)
    'M8.2 8.2L11.8 8.2L11.8 11.8L8.2 11.8Z'
    """
    if kind == "circle":
        r = radius
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    return (
        "M" + "L".join(f"{x + radius * a:.1f} {y + radius * b:.1f}" for a, b in SHAPES[kind]) + "Z"
    )


def _polygon(corners: int, scale: float = 1.25) -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / corners for i in range(corners)]
    return [(scale * math.sin(turn), -scale * math.cos(turn)) for turn in turns]


_PLUS = [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)]
_PLUS += [(-a, -b) for a, b in _PLUS]
SHAPES = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "diamond": _polygon(4),
    "triangle": _polygon(3),
    "down": [(a, -b) for a, b in _polygon(3)],
    "pentagon": _polygon(5),
    "plus": _PLUS,
    "cross": [((a - b) * 0.75, (a + b) * 0.75) for a, b in _PLUS],
}


def swatch(
    style: Style, area: bool = False, line: bool = True, opacity: float | None = None
) -> Markup:
    """Return the small picture of a style that stands in a legend."""
    drawn = joined([])
    if area:
        kind = f"area {style.colour}"
        drawn = element("rect", class_=kind, x=3, y=2, width=22, height=11)
    elif line:
        look = {"stroke_dasharray": style.dashes or None, "opacity": written_opacity(opacity)}
        ends = {"x1": 1, "y1": 7.5, "x2": 27, "y2": 7.5}
        drawn = element("line", class_=f"line {style.colour}", **ends, **look)
    if style.marker and not area:
        drawn += element("path", class_=f"mark {style.colour}", d=marker(style.marker, 14, 7.5))
    return element("svg", drawn, class_="swatch", viewBox="0 0 28 15", aria_hidden="true")


def written_opacity(opacity: float | None) -> str | None:
    """Return an opacity as the attribute's value."""
    return None if opacity is None else f"{opacity:.2f}"
