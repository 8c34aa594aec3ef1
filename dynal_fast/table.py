"""A table, however it is written; on a terminal, every table is written here."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Columns, rows of cells, of which the first names the row, and what they show.

    A cell that ends in ``*`` is the best of its column. ``note`` stands below.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    label: str
    note: str = ""


def as_text(table: Table) -> str:
    """Return a table as lines of text.

    >>> print(as_text(Table(["", "accuracy"], [["random", "0.5"], ["cod", "0.6*"]], "Accuracy")))
            accuracy
    random      0.5
    cod         0.6*
    """
    columns = []
    for column in zip(table.header, *table.rows, strict=True):
        starred = any(cell.endswith("*") for cell in column)
        columns.append([cell + " " * (starred and cell[-1:] != "*") for cell in column])
    text = aligned([*zip(*columns, strict=True)])
    return f"{text}\n{table.note}" if table.note else text


def aligned(
    rows: Sequence[Sequence[str]], *, numbers: bool = True, widths: Sequence[int] | None = None
) -> str:
    """Return rows of cells as lines of text whose columns stand below each other.

    Parameters
    ----------
    numbers
        All columns but the first hold numbers, which are aligned to the right.
    widths
        Characters of each column; by default those of its longest cell. Longer cells run over.

    >>> print(aligned([["name", "n"], ["random", "10"]]))
    name     n
    random  10
    """
    widths = widths or [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        for cell, width in zip(rest, widths[1:], strict=True):
            cells.append(cell.rjust(width) if numbers else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
