"""A report page taken apart: its sections, tables and tags."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """The tables of a page, by their label, and every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.rows = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if dict(attributes).get("role") == "region":
            self.rows = self.tables[dict(attributes)["aria-label"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        if self.rows and getattr(self, "in_cell", False):
            self.rows[-1][-1] += data

    def row(self, table, *start):
        (found,) = [row for row in self.tables[table] if tuple(row[: len(start)]) == start]
        return found[len(start) :]


def sections_of(text):
    return dict(re.findall(r'<section id="([\w-]+)">(.*?)</section>', text, re.DOTALL))
