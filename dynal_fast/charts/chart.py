"""One pair of axes as SVG, coloured by a stylesheet: that of the page or of the picture."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dynal_fast.charts.markup import Markup, element
from dynal_fast.charts.scale import Scale
from dynal_fast.charts.series import MOST_APART, Series, banded
from dynal_fast.charts.style import Style, marker, written_opacity
from dynal_fast.charts.text import text_width

APART = 9  # pixels between the labels of an axis


@dataclass
class Chart:
    """One pair of axes and what is drawn on them.

    ``width`` and ``height`` are in pixels of a text of 12 pixels; the page scales the whole. The
    margins are as wide as the labels need, and at least ``left`` and ``right``. ``inset`` keeps the
    ends of the horizontal scale away from those of the axis. With ``rows`` the vertical axis names
    rows, and the grid stands upright.
    """

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    width: int = 760
    height: int = 380
    left: float = 0
    top: int = 30
    right: float = 16
    inset: float = 0
    rows: bool = False
    behind: list[Markup] = field(default_factory=list)
    marks: list[Markup] = field(default_factory=list)
    notes: list[Markup] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bottom = 46
        beside = max(map(text_width, self.y.ticks.values()), default=0)
        self.left = max(self.left, round(12 + beside))
        for value, label in self.x.ticks.items():
            half = text_width(label) / 2 + 1 - self.inset
            if value == self.x.low:
                self.left = max(self.left, round(half))
            if value == self.x.high:
                self.right = max(self.right, round(half))

    def px(self, x: float) -> float:
        """Return the pixel of a value of the horizontal axis."""
        return self.left + self.inset + self.x.at(x) * self._across()

    def py(self, y: float) -> float:
        """Return the pixel of a value of the vertical axis."""
        return self.height - self.bottom - self.y.at(y) * (self.height - self.top - self.bottom)

    def _across(self) -> float:
        return self.width - self.left - self.right - 2 * self.inset

    def _points(self, xs: Sequence[float], ys: Sequence[float], shift: float = 0) -> str:
        pixels = ((self.px(x) + shift, self.py(y)) for x, y in zip(xs, ys, strict=True))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        style: Style,
        opacity: float | None = None,
        shift: float = 0,
    ) -> None:
        """Draw a line through the points, ``shift`` pixels to the right of them."""
        self.marks.append(
            element(
                "polyline",
                class_=f"line {style.colour}",
                points=self._points(xs, ys, shift),
                stroke_dasharray=style.dashes or None,
                opacity=written_opacity(opacity),
            )
        )

    def points(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        style: Style,
        tips: Sequence[str],
        radius: float = 4.2,
        opacity: float | None = None,
        shift: float = 0,
    ) -> None:
        """Draw a marker at each point; ``tips`` show when the pointer rests on one."""
        for x, y, tip in zip(xs, ys, tips, strict=True):
            self.marks.append(
                element(
                    "path",
                    element("title", tip),
                    class_=f"mark {style.colour}",
                    d=marker(style.marker, self.px(x) + shift, self.py(y), radius),
                    opacity=written_opacity(opacity),
                )
            )

    def series(
        self, lines: Mapping[str, Series], looks: Mapping[str, Style], radius: float | None = None
    ) -> None:
        """Draw named lines with their spreads, each in a group that is lifted under the pointer.

        Where lines meet, their markers stand side by side.
        """
        radius = radius or (4.2 if banded(lines) else 3.4)
        xs = sorted({self.px(x) for line in lines.values() for x in line.xs})
        gap = min((b - a for a, b in itertools.pairwise(xs)), default=self._across())
        apart = min(MOST_APART, gap / 2 / max(1, len(lines)))
        for i, (name, line) in enumerate(lines.items()):
            shift, style, begin = apart * (i - (len(lines) - 1) / 2), looks[name], len(self.marks)
            if line.lows != line.highs:
                draw = self._band if banded(lines) and len(line.xs) > 1 else self._error_bars
                draw(line, style, shift)
            if len(line.xs) > 1:
                self.line(line.xs, line.means, style, shift=shift)
            self.points(line.xs, line.means, style, line.tips, radius, shift=shift)
            self.marks[begin:] = [element("g", *self.marks[begin:], class_="series")]

    def _band(self, line: Series, style: Style, shift: float) -> None:
        points = self._points(line.xs, line.lows, shift)
        points += " " + self._points(line.xs[::-1], line.highs[::-1], shift)
        self.marks.append(element("polygon", class_=f"band {style.colour}", points=points))

    def _error_bars(self, line: Series, style: Style, shift: float) -> None:
        bars = (
            f"M{self.px(x) + shift:.1f} {self.py(low):.1f}V{self.py(high):.1f}"
            for x, low, high in zip(line.xs, line.lows, line.highs, strict=True)
        )
        self.marks.append(element("path", class_=f"bar {style.colour}", d="".join(bars)))

    def dots(self, xs: Sequence[float], ys: Sequence[float], style: Style) -> None:
        """Draw small marks in the background, without tips."""
        shapes = (
            marker(style.marker, self.px(x), self.py(y), 1.8) for x, y in zip(xs, ys, strict=True)
        )
        self.marks.append(element("path", class_=f"dots {style.colour}", d="".join(shapes)))

    def regions(self, cells: Sequence[Sequence[bool]], style: Style) -> None:
        """Shade the cells, ``cells[column][row]`` from low to high, of a grid over both scales."""
        columns, rows = len(cells), len(cells[0])
        right, bottom = self.width - self.right, self.height - self.bottom
        wide, high = (right - self.left) / columns, (bottom - self.top) / rows
        shapes = []
        for row in range(rows):
            column = 0
            for shaded, run in itertools.groupby(cells[i][row] for i in range(columns)):
                length = len(list(run))
                if shaded:
                    x, y = self.left + column * wide, bottom - (row + 1) * high
                    down = min(y + high + 0.5, bottom)  # overlaps the row below, to hide the seam
                    shapes.append(f"M{x:.1f} {y:.1f}h{length * wide:.1f}V{down:.1f}H{x:.1f}Z")
                column += length
        self.marks.append(element("path", class_=f"region {style.colour}", d="".join(shapes)))

    def text(self, words: str, x_pixel: float, y: float) -> None:
        """Write words that start at a pixel, at the height of a value."""
        self.marks.append(element("text", words, x=f"{x_pixel:.1f}", y=f"{self.py(y) + 4:.1f}"))

    def diagonal(self, label: str) -> None:
        """Draw a dashed line from the lowest to the highest values of both axes."""
        x1, x2 = self.px(self.x.low), self.px(self.x.high)
        y1, y2 = self.height - self.bottom, self.top
        self.behind.append(element("line", class_="rule", x1=x1, y1=y1, x2=x2, y2=y2))
        x, y = x1 + 0.62 * (x2 - x1), y1 - 0.55 * (y1 - y2)
        self.notes.append(element("text", label, class_="note", x=f"{x:.1f}", y=f"{y:.1f}"))

    def steps(self, edges: Sequence[float], heights: Sequence[float], style: Style) -> None:
        """Fill under a histogram whose bins lie between ``edges``."""
        xs = [edge for edge in edges for _ in range(2)]  # each edge is a riser
        ys = [0.0, *(height for height in heights for _ in range(2)), 0.0]
        points = self._points(xs, ys)
        self.marks.append(element("polygon", class_=f"area {style.colour}", points=points))

    def bar(self, row: float, end: float, style: Style, label: str, pale: bool = False) -> None:
        """Draw a bar from the left of the axes to a value, and write its label behind it."""
        x, y, high = self.px(end), self.py(row), 0.7 * abs(self.py(1) - self.py(0))
        kind = "area" if pale else "mark"
        size = {"width": f"{max(0.5, x - self.left):.1f}", "height": f"{high:.1f}"}
        place = {"x": f"{self.left:.1f}", "y": f"{y - high / 2:.1f}"}
        self.marks.append(element("rect", class_=f"{kind} {style.colour}", **place, **size))
        self.notes.append(element("text", label, class_="note", x=f"{x + 5:.1f}", y=f"{y + 4:.1f}"))

    def rule(self, *, x: float | None = None, y: float | None = None, label: str = "") -> None:
        """Draw a dashed line across the axes at a value, and write what it is beside it."""
        if y is not None:
            ends = [self.left, self.py(y), self.width - self.right, self.py(y)]
            place = (f"{self.left + 5:.1f}", f"{self.py(y) - 5:.1f}", "start")
        else:
            assert x is not None
            ends = [self.px(x), self.top, self.px(x), self.height - self.bottom]
            beyond = self.px(x) + text_width(label) > self.width - self.right
            side, anchor = (-5, "end") if beyond else (5, "start")
            place = (f"{self.px(x) + side:.1f}", f"{self.top + 11}", anchor)
        x1, y1, x2, y2 = (f"{end:.1f}" for end in ends)
        self.behind.append(element("line", class_="rule", x1=x1, y1=y1, x2=x2, y2=y2))
        at, height, anchored = place
        self.notes.append(
            element("text", label, class_="note", x=at, y=height, text_anchor=anchored)
        )

    def svg(self, description: str, css_class: str | None = None, **place: object) -> Markup:
        """Return the picture; ``description`` is for screen readers.

        ``place`` are the attributes of a picture that stands in another one.
        """
        middle = f"{(self.left + self.width - self.right) / 2:.1f}"
        below = {"x": middle, "y": self.height - 8, "text_anchor": "middle"}
        parts = [
            *self._vertical_axis(),
            *self._horizontal_axis(),
            *self.behind,
            *self.marks,
            *self.notes,
            element("text", self.x_label, class_="label", **below),
            element("text", self.y_label, class_="label", x=2, y=14),
        ]
        return element(
            "svg",
            "\n",
            *(piece for part in parts for piece in (part, "\n")),
            class_=css_class,
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_label=description,
            **place,
        )

    def _vertical_axis(self) -> Iterator[Markup]:
        right = self.width - self.right
        for value, label in self.y.ticks.items():
            y = self.py(value)
            if not self.rows:
                at = f"{y:.1f}"
                yield element("line", class_="grid", x1=self.left, y1=at, x2=right, y2=at)
            place = {"x": self.left - 7, "y": f"{y + 4:.1f}", "text_anchor": "end"}
            yield element("text", label, class_="tick", **place)

    def _horizontal_axis(self) -> Iterator[Markup]:
        bottom, right = self.height - self.bottom, self.width - self.right
        written = self._written_ticks()
        for value, label in self.x.ticks.items():
            top = self.top if self.rows else bottom
            kind, at = "grid" if self.rows else "axis", f"{self.px(value):.1f}"
            yield element("line", class_=kind, x1=at, y1=top, x2=at, y2=bottom + 4)
            if value in written:
                place = {"x": at, "y": bottom + 18, "text_anchor": "middle"}
                yield element("text", label, class_="tick", **place)
        yield element("line", class_="axis", x1=self.left, y1=bottom, x2=right, y2=bottom)

    def _written_ticks(self) -> list[float]:
        """Return the ticks to label: the last and every so many before it, so that none touch."""
        ends = [
            (value, self.px(value) - text_width(label) / 2, self.px(value) + text_width(label) / 2)
            for value, label in self.x.ticks.items()
        ]
        for step in range(1, len(ends) + 1):
            kept = ends[::-1][::step][::-1]
            if all(right + APART <= left for (*_, right), (_, left, _) in itertools.pairwise(kept)):
                break
        return [value for value, _, _ in kept] if ends else []
