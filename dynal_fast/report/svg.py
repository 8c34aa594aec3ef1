"""Charts as SVG, coloured by the stylesheet of the page around them."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from dynal_fast.report.markup import Markup, element, joined

CHARACTER = 6.8  # pixels: the width of a wide character of the text
MARKERS = ("square", "diamond", "triangle", "cross", "down", "pentagon", "plus", "circle")
COLOURS = 8
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


@dataclass(frozen=True)
class Scale:
    """The values from ``low`` to ``high`` along an axis, and its labelled ticks."""

    low: float
    high: float
    ticks: dict[float, str]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 at ``low`` to 1 at ``high``."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float], count: int = 5, end_on_ticks: bool = True) -> Scale:
    """Return a scale over all ``values`` with about ``count`` ticks at round numbers.

    >>> list(linear([0.2, 9.7]).ticks.values())
    ['0', '2', '4', '6', '8', '10']
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low - abs(low or 1) / 10, high + abs(high or 1) / 10
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if not end_on_ticks:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    labels = dict(zip(ticks, tick_labels(ticks), strict=True))
    if end_on_ticks:
        low, high = ticks[0], ticks[-1]
    return Scale(low, high, labels)


def logarithmic(values: Sequence[float], label: Callable[[float], str] | None = None) -> Scale:
    """Return a logarithmic scale over positive ``values``, with ticks at 1, 2, 5 or at 1 alone.

    ``label`` writes a tick; by default as a plain number.

    >>> list(logarithmic([0.02, 0.7]).ticks.values())
    ['0.02', '0.05', '0.1', '0.2', '0.5', '1']
    """
    low, high = min(values), max(values)
    factors: Sequence[int] = (1, 2, 5) if high / low < 200 else (1,)
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max(i for i, tick in enumerate(every) if tick <= low * 1.000001)
    end = min(i for i, tick in enumerate(every) if tick >= high * 0.999999 and i > start)
    ticks = every[start : end + 1]
    labels = [label(tick) for tick in ticks] if label is not None else tick_labels(ticks)
    return Scale(ticks[0], ticks[-1], dict(zip(ticks, labels, strict=True)), True)


def duration(seconds: float) -> str:
    """Return a time with its unit.

    >>> duration(0.0005), duration(0.02), duration(10.0)
    ('0.5 ms', '20 ms', '10 s')
    """
    return f"{seconds:,.10g} s" if seconds >= 0.9999 else f"{1000 * seconds:.10g} ms"


def marked(values: Sequence[float]) -> Scale:
    """Return a scale with a tick at each of the values.

    >>> marked([1000, 3000]).ticks
    {1000: '1,000', 3000: '3,000'}
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    return Scale(low, high, dict(zip(values, tick_labels(values), strict=True)))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the numbers without needless zeros, thousands set apart.

    >>> tick_labels([0.0, 0.25, 0.5]), tick_labels([0.0, 5000.0])
    (['0', '0.25', '0.5'], ['0', '5,000'])
    """
    return [f"{tick:,.10g}" for tick in ticks]


@dataclass
class Chart:
    """One pair of axes and what is drawn on them.

    ``width`` and ``height`` are in pixels of a text of 12 pixels; the page scales the whole. With
    ``rows`` the vertical axis counts rows, which have no values, and the grid stands upright.
    """

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    width: int = 760
    height: int = 380
    left: int = 0
    top: int = 30
    right: int = 16
    rows: bool = False
    marks: list[Markup] = field(default_factory=list)
    notes: list[Markup] = field(default_factory=list)

    def __post_init__(self) -> None:
        longest = max((len(label) for label in self.y.ticks.values()), default=1)
        self.left = self.left or round(14 + CHARACTER * longest)
        self.bottom = 46

    def px(self, x: float) -> float:
        """Return the pixel of a value of the horizontal axis."""
        return self.left + self.x.at(x) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        """Return the pixel of a value of the vertical axis."""
        return self.height - self.bottom - self.y.at(y) * (self.height - self.top - self.bottom)

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in zip(xs, ys, strict=True))

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        style: Style,
        opacity: float | None = None,
    ) -> None:
        """Draw a line through the points."""
        self.marks.append(
            element(
                "polyline",
                class_=f"line {style.colour}",
                points=self._points(xs, ys),
                stroke_dasharray=style.dashes or None,
                opacity=written_opacity(opacity),
            )
        )

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: Style
    ) -> None:
        """Fill between two lines."""
        points = f"{self._points(xs, lows)} {self._points(xs[::-1], highs[::-1])}"
        self.marks.append(element("polygon", class_=f"band {style.colour}", points=points))

    def points(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        style: Style,
        tips: Sequence[str],
        radius: float = 4.2,
        opacity: float | None = None,
    ) -> None:
        """Draw a marker at each point; ``tips`` show when the pointer rests on one."""
        for x, y, tip in zip(xs, ys, tips, strict=True):
            shape = marker(style.marker, self.px(x), self.py(y), radius)
            self.marks.append(
                element(
                    "path",
                    element("title", tip),
                    class_=f"mark {style.colour}",
                    d=shape,
                    opacity=written_opacity(opacity),
                )
            )

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
        bottom, right = self.height - self.bottom, self.width - self.right
        self.marks.append(
            element("line", class_="rule", x1=self.left, y1=bottom, x2=right, y2=self.top)
        )
        x, y = self.left + 0.62 * (right - self.left), bottom - 0.55 * (bottom - self.top)
        self.notes.append(element("text", label, class_="note", x=f"{x:.1f}", y=f"{y:.1f}"))

    def steps(self, edges: Sequence[float], heights: Sequence[float], style: Style) -> None:
        """Fill under a histogram whose bins lie between ``edges``."""
        xs = [edge for edge in edges for _ in range(2)]  # each edge is a riser
        ys = [0.0, *(height for height in heights for _ in range(2)), 0.0]
        points = self._points(xs, ys)
        self.marks.append(element("polygon", class_=f"area {style.colour}", points=points))

    def rule(self, *, x: float | None = None, y: float | None = None, label: str = "") -> None:
        """Draw a dashed line across the axes at a value, and write what it is beside it."""
        if y is not None:
            ends = [self.left, self.py(y), self.width - self.right, self.py(y)]
            place = (f"{self.width - self.right}", f"{self.py(y) - 5:.1f}", "end")
        else:
            assert x is not None
            ends = [self.px(x), self.top, self.px(x), self.height - self.bottom]
            beyond = self.px(x) + CHARACTER * len(label) > self.width - self.right
            side, anchor = (-5, "end") if beyond else (5, "start")
            place = (f"{self.px(x) + side:.1f}", f"{self.top + 11}", anchor)
        x1, y1, x2, y2 = (f"{end:.1f}" for end in ends)
        self.marks.append(element("line", class_="rule", x1=x1, y1=y1, x2=x2, y2=y2))
        at, height, anchored = place
        self.notes.append(
            element("text", label, class_="note", x=at, y=height, text_anchor=anchored)
        )

    def svg(self, description: str, css_class: str = "") -> Markup:
        """Return the picture; ``description`` is for screen readers."""
        middle = f"{(self.left + self.width - self.right) / 2:.1f}"
        below = {"x": middle, "y": self.height - 8, "text_anchor": "middle"}
        parts = [
            *self._vertical_axis(),
            *self._horizontal_axis(),
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
        )

    def _vertical_axis(self) -> Iterator[Markup]:
        right = self.width - self.right
        for value, label in self.y.ticks.items():
            y = self.py(value)
            at = f"{y:.1f}"
            yield element("line", class_="grid", x1=self.left, y1=at, x2=right, y2=at)
            place = {"x": self.left - 7, "y": f"{y + 4:.1f}", "text_anchor": "end"}
            yield element("text", label, class_="tick", **place)

    def _horizontal_axis(self) -> Iterator[Markup]:
        bottom, right = self.height - self.bottom, self.width - self.right
        written_to = -math.inf  # skip a label that would touch the previous one
        for value, label in self.x.ticks.items():
            x, half = self.px(value), CHARACTER * len(label) / 2
            top = self.top if self.rows else bottom
            kind, at = "grid" if self.rows else "axis", f"{x:.1f}"
            yield element("line", class_=kind, x1=at, y1=top, x2=at, y2=bottom + 4)
            if x - half > written_to + CHARACTER:
                written_to = x + half
                place = {"x": at, "y": bottom + 18, "text_anchor": "middle"}
                yield element("text", label, class_="tick", **place)
        yield element("line", class_="axis", x1=self.left, y1=bottom, x2=right, y2=bottom)


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
