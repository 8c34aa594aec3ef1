"""Text tables: .csv, .tsv, and columns separated by blanks as np.savetxt writes; gzip too.

Text has no dtype: the numbers become float64, as in other readers of such tables.
"""

import contextlib
import csv
import gzip
import io
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.embeddings.columns import INDEXES, Chosen, Kind, choose_columns
from dynal_fast.embeddings.source import FileError, Source, Wanted, allocate, parsing

DELIMITERS = ",\t;|"
SAMPLED = 100  # records that show the delimiter, the header and the kinds of the columns
BOOLEANS = ("true", "false")
BLOCK = 2**18  # fields that are parsed at a time
LONGEST_LINE = 2**26  # characters
Record = list[str]


class _Layout:
    """How a text is cut into records: found from its first lines."""

    def __init__(self, path: Path, header: bool | None) -> None:
        self.path = path
        with _lines(path) as lines:
            first = list(itertools.islice(lines, SAMPLED))
        if not first:
            raise FileError(f"{path} holds no rows")
        self.delimiter = _delimiter(first)
        sample = _whole_records(self.records(first))
        if not sample:
            raise FileError(f"{path} is text whose quotes do not close")
        self.width = len(sample[0])
        self.header = _has_header(path, sample) if header is None else header
        self.names = (
            [name.strip() for name in sample[0]]
            if self.header
            else [str(i) for i in range(self.width)]
        )
        self.body = sample[1:] if self.header else sample
        self.kinds = [
            _kind([row[i] for row in self.body if i < len(row)]) for i in range(self.width)
        ]

    def records(self, lines: Iterable[str]) -> Iterator[Record]:
        if self.delimiter == " ":
            return (line.split() for line in lines)
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True, strict=True)


def open_text(path: Path, wanted: Wanted) -> Source:
    """Open a table of numbers in text."""
    wanted.check_no_key(path)
    with parsing(path, "a text table"):
        layout = _Layout(path, wanted.header)
        if layout.width > 1 and layout.delimiter != " " and not layout.body:
            raise FileError(f"{path} holds a line of names and no rows")
        if "number" not in layout.kinds and "list" not in layout.kinds:
            raise FileError(f"{path} is text, and no column of it holds numbers")
        try:
            chosen = choose_columns(layout.names, layout.kinds, wanted.columns)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from None
        rows, plain = _count(layout)
        first = _parse(layout, layout.body[0], chosen, "its first row")
    shape, dtype = (rows, len(first)), np.dtype(np.float64)

    def fill(out: np.ndarray) -> None:
        with parsing(path, "a text table"), _lines(path) as lines:
            row = 0
            for block in _blocks(layout, lines, chosen, plain, shape[1]):
                if row + len(block) > rows:
                    raise FileError(f"{path} changed while it was read")
                out[row : row + len(block)] = block
                row += len(block)
            if row != rows:
                raise FileError(f"{path} changed while it was read")

    def read() -> np.ndarray:
        array = allocate(shape, dtype, path)
        fill(array)
        return array

    return Source(path, shape, dtype, read, fill, chosen.left_out)


def read_texts(path: Path, wanted: Wanted) -> tuple[list[str], list[Record]]:
    """Return the names of the columns and every record of a table that may hold texts."""
    with parsing(path, "a text table"):
        layout = _Layout(path, wanted.header)
        with _lines(path) as lines:
            records = list(layout.records(lines))
    return layout.names, records[1:] if layout.header else records


def _count(layout: _Layout) -> tuple[int, bool]:
    """Return the number of rows, and whether nothing is quoted: then each line is a row."""
    rows = 0
    with _lines(layout.path) as lines:
        for line in lines:
            if '"' in line:
                break
            rows += 1
        else:
            return rows - layout.header, True
    with _lines(layout.path) as lines:
        return sum(1 for _ in layout.records(lines)) - layout.header, False


def _blocks(
    layout: _Layout, lines: Iterator[str], chosen: Chosen, plain: bool, width: int
) -> Iterator[np.ndarray]:
    """Yield the numbers of some rows at a time."""
    step = max(1, BLOCK // layout.width)
    quick = plain and not chosen.is_list
    records: Iterator[Any] = lines if quick else layout.records(lines)
    if layout.header:
        next(records)
    row = 0
    while block := list(itertools.islice(records, step)):
        numbers = _quickly(layout, block, chosen) if quick else None
        if numbers is None:
            rows = layout.records(block) if quick else block
            numbers = np.empty((len(block), width))
            for i, record in enumerate(rows):
                where = f"row {row + i}"
                values = _parse(layout, record, chosen, where)
                if len(values) != width:
                    raise FileError(
                        f"{layout.path}, {where}: a list of {len(values)} numbers, not {width}"
                    )
                numbers[i] = values
        yield numbers
        row += len(block)


def _quickly(layout: _Layout, lines: list[str], chosen: Chosen) -> np.ndarray | None:
    """Parse lines without quotes by NumPy; None where only the slow parser can name the error."""
    blank = layout.delimiter == " "
    widths = (len(line.split()) if blank else line.count(layout.delimiter) + 1 for line in lines)
    if any(width != layout.width for width in widths):
        return None
    try:
        return np.loadtxt(
            lines,
            delimiter=None if blank else layout.delimiter,
            usecols=chosen.positions,
            comments=None,
            ndmin=2,
            encoding="utf-8",
        )
    except ValueError:
        return None


def _parse(layout: _Layout, record: Record, chosen: Chosen, where: str) -> list[float]:
    try:
        if len(record) != layout.width:
            raise ValueError(record)
        if chosen.is_list:
            return list(map(float, _items(record[chosen.positions[0]])))
        return [float(record[i]) for i in chosen.positions]
    except (ValueError, IndexError):
        raise FileError(_why(layout, record, chosen, where)) from None


def _why(layout: _Layout, record: Record, chosen: Chosen, where: str) -> str:
    start = f"{layout.path}, {where}"
    if len(record) != layout.width:
        return f"{start}: {len(record)} fields instead of {layout.width}"
    for i in chosen.positions:
        items = _items(record[i]) if chosen.is_list else [record[i]]
        for item in items:
            if not _is_number(item):
                named = f"{start}, column {layout.names[i]!r}"
                return f"{named}: no value" if not item.strip() else f"{named}: {item[:40]!r}"
    return start


def _items(field: str) -> list[str]:
    """Return what a list in a field holds, as Python or NumPy writes it."""
    return field.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _kind(fields: list[str]) -> Kind:
    """Return the kind of a column: numbers if at least half of its fields are."""
    given = [field for field in fields if field.strip()]
    if given and 2 * sum(map(_is_number, given)) >= len(given):
        return "number"
    if given and all(field.strip().startswith("[") for field in given):
        return "list"
    return "other"


def _has_header(path: Path, sample: list[Record]) -> bool:
    """Whether the first record names the columns."""
    first, rest = sample[0], sample[1:]
    if not any(map(_is_number, first)):
        return not any(field.startswith("[") or field.lower() in BOOLEANS for field in first)
    columns = list(zip(*rest, strict=False)) or [()] * len(first)
    named = any(
        not _is_number(name) and column and all(map(_is_number, column))
        for name, column in zip(first, columns, strict=False)
    )
    # pandas names the columns of an array by numbers: a row of data may look the same.
    numbered = [name for name in first if name not in INDEXES]
    if rest and len(numbered) > 1 and numbered == [str(i) for i in range(len(numbered))]:
        if named or any(set(".eEnN") & set(field) for field in rest[0]):
            return True
        raise FileError(
            f"{path} begins with {', '.join(first[:3])}, ...: say whether that is a row or names "
            "of columns, with --no-header or --header (header=)"
        )
    return named


def _whole_records(records: Iterator[Record]) -> list[Record]:
    """Return records up to one that is damaged, or whose quoted field goes on after the sample."""
    whole = []
    with contextlib.suppress(csv.Error):
        for record in records:
            whole.append(record)
    return whole


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that cuts all lines into equally many fields, the most; or a blank."""
    found = {}
    for delimiter in DELIMITERS:
        records = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        widths = {len(record) for record in _whole_records(records)}
        if widths:
            found[delimiter] = (len(widths) == 1, max(widths))
    same = [delimiter for delimiter, (equal, width) in found.items() if equal and width > 1]
    if same:
        return max(same, key=lambda delimiter: found[delimiter][1])
    if all(len(line.split()) > 1 and "[" not in line for line in lines[1:] or lines):
        widths = {len(line.split()) for line in lines}
        if len(widths) == 1:
            return " "
    ragged = [delimiter for delimiter, (_, width) in found.items() if width > 1]
    return ragged[0] if ragged else ","


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Yield the lines that are neither blank nor comments; a comment may name the columns."""
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        binary: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline=None) as text:
            yield _without_comments(text)


def _without_comments(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and line[-1] != "\n":
            raise ValueError(f"a line is longer than {LONGEST_LINE} characters")
        if line.strip() and not line.startswith("#"):
            yield line
