"""The HTML of a report: tables, figures and the page around them, which needs nothing else."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from dynal_fast._version import __version__
from dynal_fast.report.svg import Chart, Style, swatch

STYLESHEET = Path(__file__).with_name("page.css")
WIDE, NARROW = (760, 380), (340, 300)  # pixels: on a desktop, on a phone
PANEL, LARGE_PANEL = (300, 225), (400, 280)
# Nothing may be fetched, by whatever a name in the results says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Return a table that scrolls inside its own box; the first column names the rows.

    >>> table(["method", "accuracy"], [["a<b", "1"]], "Accuracy").count("a&lt;b")
    1
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(_cell(cell) for cell in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _cell(text: str) -> str:
    best = text.endswith("*")
    return f'<td class="best">{escape(text[:-1])}</td>' if best else f"<td>{escape(text)}</td>"


def legend(entries: Sequence[tuple[str, Style]], area: bool = False, lines: bool = True) -> str:
    """Return the names beside what they look like in the pictures."""
    items = "".join(
        f"<li>{swatch(style, area, lines)}<span>{escape(name)}</span></li>"
        for name, style in entries
    )
    return f'<ul class="legend">{items}</ul>\n'


def both_widths(draw: Callable[[int, int], Chart], description: str) -> str:
    """Return a picture drawn for a desktop and for a phone; the stylesheet shows one of them."""
    wide, narrow = draw(*WIDE).svg(description, "wide"), draw(*NARROW).svg(description, "narrow")
    return f"{wide}\n{narrow}\n"


def panels(pictures: Sequence[tuple[str, str]], large: bool = False) -> str:
    """Return titled small pictures side by side, as many as the width holds."""
    size = " large" if large else ""
    drawn = "".join(f"<div><h3>{escape(title)}</h3>\n{svg}</div>\n" for title, svg in pictures)
    return f'<div class="panels{size}">\n{drawn}</div>\n'


def section(identifier: str, title: str, text: str, content: str, numbers: str = "") -> str:
    """Return a section of the page. ``text`` and ``content`` are HTML, ``title`` is not.

    ``numbers`` are the tables behind the pictures, folded away.
    """
    folded = f"<details><summary>The numbers</summary>\n{numbers}</details>\n" if numbers else ""
    return (
        f'<section id="{identifier}">\n<h2>{escape(title)}</h2>\n<p>{text}</p>\n'
        f"{content}{folded}</section>\n"
    )


def missing(text: str) -> str:
    """Return what stands in the place of a picture that cannot be drawn. ``text`` is HTML."""
    return f'<p class="missing">{text}</p>\n'


def page(
    title: str, lead: str, sections: Sequence[str], contents: Sequence[tuple[str, str]]
) -> str:
    """Return the whole page. ``lead`` and the sections are HTML; ``contents`` are id and title."""
    links = "".join(f'<li><a href="#{target}">{escape(name)}</a></li>' for target, name in contents)
    navigation = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if contents else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLESHEET.read_text()}</style>\n</head>\n"
        f"<body>\n<main>\n<header><h1>{escape(title)}</h1>\n{lead}</header>\n{navigation}"
        f"{''.join(sections)}<footer>Written by dynal_fast {__version__}.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
