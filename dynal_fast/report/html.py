"""The HTML of a report: tables, figures and the page around them, which needs nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dynal_fast._version import __version__
from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, document, element, joined
from dynal_fast.charts.picture import STYLESHEET as CHARTS
from dynal_fast.charts.style import Style, swatch
from dynal_fast.charts.text import LINE, text_width
from dynal_fast.table import Table

STYLESHEETS = (CHARTS, Path(__file__).with_name("page.css"))
WIDE, NARROW = (760, 380), (340, 300)  # pixels: on a desktop, on a phone
PANEL, LARGE_PANEL = (300, 225), (400, 280)
# The page must not load anything, whatever a name in the results contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SCROLLS = "The table goes on to the right: scroll it sideways."
FIRST_COLUMN = 152  # pixels: on a phone
NOTHING = joined([])


def table(of: Table) -> Markup:
    """Return a table that scrolls inside its own box.

    >>> table(Table(["method", "accuracy"], [["a<b", "1"]], "Accuracy")).count("a&lt;b")
    1
    """
    head = element("tr", *(element("th", cell, scope="col") for cell in of.header))
    body = [
        element("tr", element("th", row[0], scope="row"), *map(_cell, row[1:])) + "\n"
        for row in of.rows
    ]
    content = element("table", "\n", element("thead", head), "\n", element("tbody", *body))
    box = {"class_": "scroll", "role": "region", "tabindex": 0, "aria_label": of.label}
    scrolled = element("div", content, "\n", **box) + "\n"
    return (
        element("p", SCROLLS, class_="hint") + "\n" + scrolled
        if _width(of) > NARROW[0]
        else scrolled
    )


def _width(of: Table) -> float:
    """Return about how many pixels wide a table is."""
    columns = zip(of.header, *of.rows, strict=True)
    widths = [max(text_width(cell) * 13.76 / LINE + 24 for cell in column) for column in columns]
    return min(widths[0], FIRST_COLUMN) + sum(widths[1:])


def _cell(text: str) -> Markup:
    best = text.endswith("*")
    return element("td", text[:-1], class_="best") if best else element("td", text)


def legend(entries: Sequence[tuple[str, Style]], area: bool = False, lines: bool = True) -> Markup:
    """Return the names beside what they look like in the pictures."""
    return key([(name, swatch(style, area, lines)) for name, style in entries])


def key(entries: Sequence[tuple[str, Markup]]) -> Markup:
    """Return names beside small pictures."""
    items = (element("li", picture, element("span", name)) for name, picture in entries)
    return element("ul", *items, class_="legend") + "\n"


def both_widths(draw: Callable[[int, int], Chart], description: str) -> Markup:
    """Return a picture drawn for a desktop and for a phone; the stylesheet shows one of them."""
    wide, narrow = draw(*WIDE).svg(description, "wide"), draw(*NARROW).svg(description, "narrow")
    return joined([wide, "\n", narrow, "\n"])


def panels(pictures: Sequence[tuple[str, Markup]], large: bool = False) -> Markup:
    """Return titled small pictures side by side, as many as the width holds."""
    drawn = (
        element("div", element("h3", title), "\n", picture) + "\n" for title, picture in pictures
    )
    return element("div", "\n", *drawn, class_="panels large" if large else "panels") + "\n"


def section(
    identifier: str, title: str, text: str, content: Markup, numbers: Sequence[Table] = ()
) -> Markup:
    """Return a section of the page; ``numbers`` are the tables behind its pictures, folded away."""
    folded = NOTHING
    if numbers:
        summary = element("summary", "The numbers")
        folded = element("details", summary, "\n", *map(table, numbers)) + "\n"
    parts = [element("h2", title), "\n", element("p", text), "\n", content, folded]
    return element("section", "\n", *parts, id=identifier) + "\n"


def missing(text: str) -> Markup:
    """Return the text that replaces a picture that cannot be drawn."""
    return element("p", text, class_="missing") + "\n"


def page(
    title: str, lead: Markup, sections: Sequence[Markup], contents: Sequence[tuple[str, str]]
) -> Markup:
    """Return the whole page; ``contents`` are the identifiers and titles of its sections."""
    links = (
        element("li", element("a", name, href=f"#{identifier}")) for identifier, name in contents
    )
    navigation = NOTHING
    if contents:
        navigation = element("nav", element("ul", *links), aria_label="Contents") + "\n"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
    ]
    main = element(
        "main",
        "\n",
        element("header", element("h1", title), "\n", lead),
        "\n",
        navigation,
        *sections,
        element("footer", f"Written by dynal_fast {__version__}."),
        "\n",
    )
    stylesheet = "".join(path.read_text("utf-8") for path in STYLESHEETS)
    return document([part + "\n" for part in head], [main], stylesheet)
