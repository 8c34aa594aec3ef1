"""Charts keep their words inside and apart, and their series visible."""

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dynal_fast.charts.chart import APART, Chart
from dynal_fast.charts.picture import STYLESHEET, name_ends, picture, room_for_names, spread
from dynal_fast.charts.scale import duration, linear, logarithmic, marked
from dynal_fast.charts.series import BANDS, MOST_APART, Series, inset_for
from dynal_fast.charts.style import COLOURS, styles
from dynal_fast.charts.text import text_width

COUNTS = [2000.0 * count for count in range(1, 12)]  # to 22,000, as the long-tail paper
WIDTHS = [760, 340, 300]


def series(count, xs=COUNTS, deviation=2.0):
    """Series that coincide at their first point."""
    return {
        f"method_{i}": Series(
            list(xs),
            [50.0 + i * k for k in range(len(xs))],
            [50.0 + i * k - deviation for k in range(len(xs))],
            [50.0 + i * k + deviation for k in range(len(xs))],
            [f"tip {k}" for k in range(len(xs))],
        )
        for i in range(count)
    }


def drawn(lines, width=760, x=None, **more):
    xs = sorted({x for line in lines.values() for x in line.xs})
    ends = [end for line in lines.values() for end in (*line.lows, *line.highs)]
    more.setdefault("inset", inset_for(lines))
    chart = Chart(x or marked(xs), linear(ends), "labeled samples", "accuracy (%)", width, **more)
    chart.series(lines, styles([*lines]))
    return chart


def boxes(texts):
    """Words with their left and right ends."""
    for text in texts:
        width, x = text_width(text.text or ""), float(text.get("x"))
        left = x - width * {"middle": 0.5, "end": 1.0}.get(text.get("text-anchor"), 0.0)
        yield text.text, left, left + width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "x",
    [
        marked(COUNTS),
        marked([100_000, 1_000_000]),
        marked([1]),
        linear([0, 100]),
        linear([0.0, 0.0123]),
        logarithmic([0.001, 0.9], duration),
        logarithmic([1.0, 100.0]),
    ],
)
def test_no_label_is_cut_or_touches_another(width, x):
    lines = series(7, [x.low, x.high])
    root = ElementTree.fromstring(drawn(lines, width, x).svg("drawn"))
    written = list(boxes(root.iter("text")))
    assert len(written) > 4
    assert all(left >= 0 and right <= width for _, left, right in written), written
    bottom = max(float(text.get("y")) for text in root.iter("text") if text.get("class") == "tick")
    ticks = [
        (left, right)
        for text, (_, left, right) in zip(root.iter("text"), written, strict=True)
        if text.get("class") == "tick" and float(text.get("y")) == bottom
    ]
    assert 1 <= len(ticks) <= len(x.ticks)
    for (_, right), (left, _) in itertools.pairwise(ticks):
        assert right + APART <= left + 1e-9


def test_the_last_label_is_always_written():
    root = ElementTree.fromstring(drawn(series(1), 300).svg("drawn"))
    assert "22,000" in [text.text for text in root.iter("text")]


@pytest.mark.parametrize("count", [1, BANDS, BANDS + 1, 7])
def test_the_spreads_of_few_series_are_bands_and_of_many_error_bars(count):
    root = ElementTree.fromstring(drawn(series(count)).svg("drawn"))
    classes = [element.get("class", "").split()[0:1] for element in root.iter()]
    bands, bars = classes.count(["band"]), classes.count(["bar"])
    assert (bands, bars) == ((count, 0) if count <= BANDS else (0, count))
    (one,) = [e for e in root.iter("path") if e.get("class") == "bar c0"] or [None]
    if one is not None:
        assert one.get("d").count("M") == len(COUNTS)


def test_a_single_point_has_an_error_bar_and_no_line():
    lines = series(2) | {"batch": Series([4000.0], [60.0], [55.0], [65.0], ["batch"])}
    groups = ElementTree.fromstring(drawn(lines).svg("drawn")).findall("g")
    kinds = [[child.get("class").split()[0] for child in group] for group in groups]
    assert kinds[2] == ["bar", "mark"]
    assert kinds[0][:2] == ["band", "line"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [2, 7])
def test_markers_of_equal_points_stand_side_by_side_and_inside(width, count):
    chart = drawn(series(count, deviation=0.0), width)
    root = ElementTree.fromstring(chart.svg("drawn"))
    lines = [
        [float(point.split(",")[0]) for point in line.get("points").split()]
        for line in root.iter("polyline")
    ]
    for at, pixels in zip(COUNTS, zip(*lines, strict=True), strict=True):
        steps = np.diff(pixels)
        assert (steps > 0.5).all() or width == 300
        assert (steps > 0.2).all()
        assert (steps <= MOST_APART + 0.11).all()
        assert np.mean(pixels) == pytest.approx(chart.px(at), abs=0.1)
        assert min(pixels) - 4 >= chart.left
        assert max(pixels) + 4 <= width - chart.right
    gaps = [right[0] - left[-1] for left, right in itertools.pairwise(zip(*lines, strict=True))]
    assert min(gaps) > 0


def test_without_series_a_picture_is_still_drawn():
    chart = Chart(linear([0, 1]), linear([0, 1]), "x", "y")
    chart.series({}, {})
    assert chart.svg("empty").count("<text") > 4


def test_labels_keep_their_distance_and_their_order():
    values = [5.0, 1.0, 1.1, 1.05, 4.9]
    placed = spread(values, 0.5)
    order = sorted(range(5), key=values.__getitem__)
    steps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
    assert min(steps) >= 0.5 - 1e-12
    assert spread([1.0, 9.0], 0.5) == [1.0, 9.0]
    assert spread([], 1.0) == []
    assert spread([3.0, 1.0, 1.0], 2.0, low=0.5) == [4.5, 0.5, 2.5]


def test_a_file_holds_its_words_and_its_colours():
    lines = series(7)
    looks = styles([*lines])
    long = {f"prediction_stability+farthest_first ({name})": line for name, line in lines.items()}
    right = room_for_names([*long])
    chart = drawn(lines, 640 + round(right), right=right)
    ends = {name: (line.xs[-1], line.means[-1], looks[short]) for (name, line), short in
            zip(long.items(), lines, strict=True)}  # fmt: skip
    name_ends(chart, ends)
    note = "Not the protocol of long-tail/mnist itself: " + "repeats 2 instead of 3; " * 12
    text = picture([("digits", chart), ("mnist", chart)], "two", note, columns=2)
    root = ElementTree.fromstring(text)
    width, height = (float(root.get(size)) for size in ("width", "height"))
    svg = "{http://www.w3.org/2000/svg}"
    inner = root.findall(f"{svg}svg")
    for part, wide in [(root, width), *((part, float(part.get("width"))) for part in inner)]:
        own = [element for element in part if element.tag == f"{svg}text"]
        assert own
        for words, left, end in boxes(own):
            assert left >= 0, words
            assert end <= wide, words
        assert all(float(text.get("y")) <= height for text in own)
    assert float(inner[1].get("x")) + float(inner[1].get("width")) <= width
    names = [text for text in inner[0].iter(f"{svg}text") if text.get("class").startswith("name")]
    heights = sorted(float(text.get("y")) for text in names)
    assert len(heights) == 7
    assert min(np.diff(heights)) >= 14
    assert "prefers-color-scheme: dark" in root.find(f"{svg}style").text


def oklab(colour):
    """Perceived lightness and colour (Ottosson 2020)."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    light = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468],
              [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ light)


def test_no_two_colours_look_alike():
    schemes = re.findall(r":root \{(.*?)\}", STYLESHEET.read_text(), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = re.findall(r"--(c\d|base): (#\w{6})", scheme)
        assert len(colours) == COLOURS + 1
        for (one, a), (other, b) in itertools.combinations(colours, 2):
            assert np.linalg.norm(oklab(a) - oklab(b)) > 0.08, (one, other)
