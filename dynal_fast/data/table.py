"""Tables of text as people save them: any delimiter and line ends, with or without a BOM."""

import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynal_fast.data.source import DatasetCorruptError

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """The header and the rows of a table, all text; ``lines`` says where each row begins."""

    path: Path
    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, *alternatives: str) -> int | None:
        """Return the position of the first column that has one of these names, None without.

        >>> Table(Path("a.csv"), ["File", "label"], [], []).column("path", "file")
        0
        """
        lowered = [name.lower() for name in self.names]
        return next((lowered.index(name) for name in alternatives if name in lowered), None)

    def where(self, row: int) -> str:
        """Return how an error names a row."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(path: Path) -> Table:
    """Read a table with a header, in UTF-8; fields may hold the delimiter, quotes and line ends.

    Empty lines are skipped, and a row that ends early is filled up with empty fields.

    Raises
    ------
    DatasetCorruptError
        It is not UTF-8, has no header or a name twice, or a row is longer than the header.
    OSError
        It cannot be read.
    """
    text = decoded(path)
    header = next(csv.reader(io.StringIO(text), delimiter=_delimiter(text)), [])
    names = [name.strip() for name in header]
    if not any(names):
        raise DatasetCorruptError(f"{path} holds no table: its first line must name the columns")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DatasetCorruptError(f"{path} has two columns called {twice[0]!r}")
    rows: list[list[str]] = []
    lines: list[int] = []
    # newline="" keeps the line ends inside quoted fields as they are.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    with _long_fields():
        try:
            next(reader)
            line = reader.line_num + 1
            for fields in reader:
                if any(field.strip() for field in fields):
                    if len(fields) > len(names):
                        raise DatasetCorruptError(
                            f"{path}, line {line}: {len(fields)} fields, the header has "
                            f"{len(names)}: a field that holds {_delimiter(text)!r} needs quotes"
                        )
                    rows.append(fields + [""] * (len(names) - len(fields)))
                    lines.append(line)
                line = reader.line_num + 1
        except csv.Error as error:
            raise DatasetCorruptError(f"{path}, line {reader.line_num}: {error}") from error
    return Table(path, names, rows, lines)


def table_bytes(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Return a table in UTF-8; with a BOM where it is not ASCII, or spreadsheets misread it.

    >>> table_bytes(["file", "label"], [["a, b.png", "cat"]])
    b'file,label\\n"a, b.png",cat\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    written = text.getvalue()
    return written.encode("utf-8" if written.isascii() else "utf-8-sig")


def decoded(path: Path) -> str:
    """Return the text of a file in UTF-8, without a BOM.

    Raises
    ------
    DatasetCorruptError
        It is not UTF-8.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetCorruptError(
            f"{path} is not UTF-8 (byte {error.start}): save it as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise DatasetCorruptError(f"{path} holds bytes that no text has: save it as CSV in UTF-8")
    return text


def _delimiter(text: str) -> str:
    """Return the delimiter that cuts the header into the most columns."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    widths = {each: len(next(csv.reader([first], delimiter=each), [])) for each in DELIMITERS}
    return max(DELIMITERS, key=lambda each: widths[each])


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Let a field have more than the 131,072 characters that Python's reader takes by default."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
