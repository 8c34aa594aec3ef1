"""Fill the tables of a page that is written by hand: only what stands between markers changes.

A table's place is a line ``<!-- begin: NAME -->`` and, below it, a line ``<!-- end: NAME -->``.
"""

import re
from collections.abc import Mapping, Sequence


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return ``text`` with each of ``tables`` between the markers of its name.

    Raises
    ------
    ValueError
        A table has no pair of markers, or a marker belongs to no table.

    >>> page = "Times:\\n<!-- begin: times -->\\nold\\n<!-- end: times -->\\nThat is all."
    >>> print(fill(page, {"times": "new"}))
    Times:
    <!-- begin: times -->
    new
    <!-- end: times -->
    That is all.
    """
    for name, table in tables.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->\n"
        start, stop = text.find(begin) + len(begin), text.find(end)
        if text.count(begin) != 1 or text.count(end) != 1 or stop < start:
            raise ValueError(f"must have, once each, {begin.strip()} and below it {end.strip()}")
        text = f"{text[:start]}{table}\n{text[stop:]}"
    for name in re.findall(r"<!-- (?:begin|end): (\S+) -->", text):
        if name not in tables:
            raise ValueError(f"has a marker for {name}: the records give no such table")
    return text


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table.

    >>> print(markdown_table(("a", "b"), [("1", "2")]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
