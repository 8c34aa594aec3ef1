"""The page of ``dynal-fast demo-2d``: which points the methods label, and the results."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, element
from dynal_fast.charts.scale import Scale, linear, marked
from dynal_fast.charts.series import Series, inset_for, spread_words
from dynal_fast.charts.style import Style, styles
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.experiment.three_gaussians import EXTENT, SHOWN, START, Course, three_gaussians
from dynal_fast.files import write_atomically
from dynal_fast.report.bands import percent
from dynal_fast.report.html import LARGE_PANEL, both_widths, legend, page, panels, section, table
from dynal_fast.table import Table

SIDE_BY_SIDE = ("least_confidence", "farthest_first")
NEGATIVE, POSITIVE = Style("c1", "circle"), Style("c0", "square")
UNLABELED = Style("base", "circle")
CONTENTS = (("rounds", "Round by round"), ("accuracy", "Accuracy"), ("radius", "Radius"))


def write_demo_2d(courses: Sequence[Course], folder: str | Path) -> list[Path]:
    """Write ``index.html`` and ``demo-2d.json`` into ``folder`` and return their paths.

    The pictures of the rounds are those of the first seed; the numbers are of all.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    title = "Farthest-first and softmax response on three Gaussians"
    lead = element(
        "p",
        "The example of section 5 of ",
        element("em", "Deep Active Learning over the Long Tail"),
        " (its Fig. 5): 200 points of three Gaussians, the middle one of the negative class, the "
        "two around it of the positive. From one labeled point of each class, every method labels "
        "one point at a time, and a network with one hidden layer is trained anew.",
    )
    sections = [_rounds(courses), _accuracies(courses), _radii(courses)]
    values = {
        "labeled": courses[0].labeled,
        "courses": [
            {
                field.name: getattr(course, field.name)
                for field in dataclasses.fields(course)
                if field.name not in ("regions", "labeled")
            }
            for course in courses
        ],
    }
    paths = [folder / "index.html", folder / "demo-2d.json"]
    write_atomically(paths[0], page(title, lead + "\n", sections, CONTENTS).encode())
    write_atomically(paths[1], (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
    return paths


def demo_2d_table(courses: Sequence[Course]) -> Table:
    """Return the numbers at the rounds of the pictures, means over seeds."""
    rows = []
    for method, of_one in _by_method(courses).items():
        for count in SHOWN:
            at = of_one[0].labeled.index(count)
            gaussians = mean_and_deviation([c.gaussians[at] for c in of_one])[0]
            radius = mean_and_deviation([c.radii[at] for c in of_one])[0]
            accuracy = _accuracy(of_one, count)
            rows.append([method, str(count), accuracy, f"{gaussians:.3g} of 3", f"{radius:.2f}"])
    header = ["method", "labeled", "accuracy (%)", "Gaussians reached", "radius"]
    return Table(header, rows, "The rounds of the pictures")


def _accuracy(of_one: Sequence[Course], count: int) -> str:
    """Return the accuracy of a method in percent with so many labels, over its seeds."""
    at = of_one[0].labeled.index(count)
    values = [100 * course.accuracies[at] for course in of_one]
    return percent(*mean_and_deviation(values), len(of_one) > 1)


def _rounds(courses: Sequence[Course]) -> Markup:
    seed = courses[0].seed
    _, points, gaussian = three_gaussians(seed)
    drawn = {course.method: course for course in courses if course.seed == seed}
    pictures = []
    for count in SHOWN:
        for method in SIDE_BY_SIDE:
            course = drawn[method]
            at = course.labeled.index(count)
            accuracy = f"{100 * course.accuracies[at]:.1f} %"
            chart = _plane(course, points, gaussian, count)
            described = (
                f"{method} with {_labels(count)}, in {course.gaussians[at]} of the three "
                f"Gaussians: {accuracy} test accuracy."
            )
            title = f"{method}, {_labels(count)}: {accuracy}"
            pictures.append((title, chart.svg(described)))
    looks = [("labeled, positive", POSITIVE), ("labeled, negative", NEGATIVE)]
    key = legend([*looks, ("not labeled", UNLABELED)], lines=False)
    text = (
        f"Softmax response beside farthest-first, from the same start (seed {seed}). The shaded "
        f"region is where the classifier says positive. The {START} points of the start count as "
        "labeled, as in the paper. Softmax response asks along the boundary that it has; "
        "farthest-first asks where nothing is labeled."
    )
    rows = [
        [str(i + 1)]
        + [
            f"({points[pick][0]:.2f}, {points[pick][1]:.2f}), "
            + ("negative" if gaussian[pick] == 1 else "positive")
            for pick in (drawn[method].picks[i] for method in SIDE_BY_SIDE)
        ]
        for i in range(len(drawn[SIDE_BY_SIDE[0]].picks))
    ]
    numbers = [Table(["label", *SIDE_BY_SIDE], rows, "The points in the order of labeling")]
    return section("rounds", "Round by round", text, key + panels(pictures, large=True), numbers)


def _labels(count: int) -> str:
    """Return how many points are labeled, and how many of them the method chose.

    >>> _labels(2), _labels(6)
    ('2 labeled (the start)', '6 labeled (2 + 4 asked)')
    """
    chosen = f"{START} + {count - START} asked" if count > START else "the start"
    return f"{count} labeled ({chosen})"


def _plane(course: Course, points: Tensor, gaussian: Tensor, count: int) -> Chart:
    (left, right), (low, high) = EXTENT
    xs, ys = Scale(left, right, _ticks(-6, 7, 2)), Scale(low, high, _ticks(-3, 4, 1))
    chart = Chart(xs, ys, "first coordinate", "second coordinate", *LARGE_PANEL)
    chart.regions(course.regions[count].tolist(), POSITIVE)
    labeled = course.picks[:count]
    rest = [i for i in range(len(points)) if i not in labeled]
    chart.dots(points[rest, 0].tolist(), points[rest, 1].tolist(), UNLABELED)
    for i, pick in enumerate(labeled):
        x, y = points[pick].tolist()
        style = NEGATIVE if gaussian[pick] == 1 else POSITIVE
        chart.points([x], [y], style, [f"label {i + 1}: ({x:.2f}, {y:.2f})"])
    return chart


def _ticks(first: int, end: int, step: int) -> dict[float, str]:
    return {float(value): str(value) for value in range(first, end, step)}


def _accuracies(courses: Sequence[Course]) -> Markup:
    by_method = _by_method(courses)
    text = (
        f"Accuracy on 2,000 other points by labeled points, mean over seeds; "
        f"{spread_words(by_method)}. Where a method never reaches one of the Gaussians, it stays "
        "near two thirds. Spreading labels is what helps, and chance spreads them, too: "
    )
    text += "; ".join(
        f"with {count} labels random has {_accuracy(by_method['random'], count)} % and "
        f"farthest-first {_accuracy(by_method['farthest_first'], count)} %"
        for count in SHOWN[1:]
    )
    values = {
        method: [[100 * accuracy for accuracy in course.accuracies] for course in of_one]
        for method, of_one in by_method.items()
    }
    drawn = _curves(values, courses[0].labeled, "test accuracy (%)", ceiling=100.0)
    drawn += table(demo_2d_table(courses))
    numbers = _every_round(values, courses[0].labeled, "Accuracy (%) by labeled points")
    return section("accuracy", "Accuracy", text + ".", drawn, [numbers])


def _radii(courses: Sequence[Course]) -> Markup:
    text = (
        "How far the farthest of the 200 points is, in the plane, from its nearest labeled one: "
        "what farthest-first keeps small, there in the hidden layer. Mean over seeds."
    )
    values = {
        method: [course.radii for course in of_one]
        for method, of_one in _by_method(courses).items()
    }
    drawn = _curves(values, courses[0].labeled, "radius in the plane")
    numbers = _every_round(values, courses[0].labeled, "Radius by labeled points")
    return section("radius", "Radius", text, drawn, [numbers])


def _every_round(values: dict[str, list[list[float]]], labeled: Sequence[int], label: str) -> Table:
    rows = []
    for i, count in enumerate(labeled):
        spread = [mean_and_deviation([course[i] for course in v]) for v in values.values()]
        rows.append([str(count), *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in spread)])
    return Table(["labeled", *values], rows, label)


def _curves(
    values: dict[str, list[list[float]]],
    labeled: Sequence[int],
    label: str,
    ceiling: float = float("inf"),
) -> Markup:
    """Draw the mean and the spread over seeds of each method."""
    looks, lines = styles([*values]), {}
    for method, of_one in values.items():
        pairs = [mean_and_deviation(column) for column in zip(*of_one, strict=True)]
        lines[method] = Series(
            [*map(float, labeled)],
            [mean for mean, _ in pairs],
            [max(0.0, mean - deviation) for mean, deviation in pairs],
            [min(ceiling, mean + deviation) for mean, deviation in pairs],
            [f"{method}: {m:.3g} at {n}" for n, (m, _) in zip(labeled, pairs, strict=True)],
        )

    def draw(width: int, height: int) -> Chart:
        ends = [end for line in lines.values() for end in (*line.lows, *line.highs)]
        x, inset = marked(labeled), inset_for(lines)
        chart = Chart(x, linear(ends), "labeled points", label, width, height, inset=inset)
        chart.series(lines, looks, radius=3.2)
        return chart

    ends = ", ".join(f"{method} {line.means[-1]:.3g}" for method, line in lines.items())
    description = f"{label} against labeled points. At {labeled[-1]}: {ends}."
    return legend([(method, looks[method]) for method in values]) + both_widths(draw, description)


def _by_method(courses: Sequence[Course]) -> dict[str, list[Course]]:
    return {
        method: [course for course in courses if course.method == method]
        for method in dict.fromkeys(course.method for course in courses)
    }
