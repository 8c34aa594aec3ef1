"""Tables as plain text: every table on a terminal is made here."""

from collections.abc import Sequence


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
