"""What ``--labeled`` may be: row numbers, a mask, picks of an earlier run, or embeddings."""

from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.embeddings.formats import reader_of
from dynal_fast.embeddings.load import Embeddings, find_files, load_arrays
from dynal_fast.embeddings.source import FileError, Wanted
from dynal_fast.embeddings.text_table import BOOLEANS, open_text, read_texts


def load_labeled(path: str, wanted: Wanted, pool: Embeddings) -> Any:
    """Return what `farthest_first` takes as ``labeled``.

    Parameters
    ----------
    path
        A file as `load_embeddings` takes, with one axis: row numbers of the pool (integers) or a
        mask (booleans, one for each row); with as many columns as the pool: embeddings. In a text
        the numbers may be one to a line. A table of picks that this package wrote has a column
        ``position``, or ``file`` and ``row``, which are looked up among the pool's files.

    Raises
    ------
    ValueError
        The file cannot be read, it is the pool itself, or it is none of these.
    """
    files, _ = find_files(path)
    if any(file.exists() and any(file.samefile(one) for one in pool.files) for file in files):
        raise FileError(f"--labeled must not be a file of the pool, got {path}")
    if len(files) == 1 and reader_of(files[0]) is open_text:
        numbers = _numbers_of_text(files[0], wanted, pool)
        if numbers is not None:
            return numbers
    try:
        array = load_arrays(path, wanted).array
    except FileError:
        if wanted.columns is None:
            raise
        array = load_arrays(path, Wanted(wanted.key)).array  # they were the pool's columns
    if array.ndim == 2 and array.shape[1] == 1 and pool.array.shape[1] != 1:
        array = array[:, 0]
    if array.ndim == 1 and isinstance(array, np.ndarray):
        return _checked(path, array, len(pool.array))
    return array


def _numbers_of_text(path: Path, wanted: Wanted, pool: Embeddings) -> np.ndarray | None:
    """Return the row numbers or the mask that a text holds; None where it has more columns."""
    names, records = read_texts(path, Wanted(header=wanted.header))
    if "file" in names and "row" in names:
        file, row = names.index("file"), names.index("row")
        return _rows_of_files(path, [(record[file], record[row]) for record in records], pool)
    positions = [name for name in ("position", "row") if name in names]
    if not positions and (len(names) > 1 or pool.array.shape[1] == 1):
        return None
    column = names.index(positions[0]) if positions else 0
    fields = [record[column].strip() for record in records]
    if fields and {field.lower() for field in fields} <= set(BOOLEANS):
        mask = np.array([field.lower() == BOOLEANS[0] for field in fields])
        return _checked(str(path), mask, len(pool.array))
    numbers = np.array([_integer(path, i, field) for i, field in enumerate(fields)], np.int64)
    return _checked(str(path), numbers, len(pool.array))


def _integer(path: Path, row: int, field: str) -> int:
    try:
        number = float(field)
        if number == int(number) and abs(number) < 2**53:
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise FileError(f"{path}, row {row}: expected a row number of the pool, got {field[:40]!r}")


def _rows_of_files(path: Path, picks: list[tuple[str, str]], pool: Embeddings) -> np.ndarray:
    begins = dict(zip(map(str, pool.files), np.cumsum(pool.sizes) - pool.sizes, strict=True))
    sizes = dict(zip(map(str, pool.files), pool.sizes, strict=True))
    for file in pool.files:  # by name alone where that is clear
        if sum(other.name == file.name for other in pool.files) == 1:
            begins[file.name], sizes[file.name] = begins[str(file)], sizes[str(file)]
    positions = []
    for i, (file_name, field) in enumerate(picks):
        known = file_name if file_name in begins else Path(file_name).name
        row = _integer(path, i, field)
        if known not in begins:
            raise FileError(f"{path}, row {i}: the pool has no file {file_name!r}")
        if not 0 <= row < sizes[known]:
            raise FileError(f"{path}, row {i}: {file_name} has {sizes[known]} rows, got row {row}")
        positions.append(int(begins[known]) + row)
    return np.array(positions, np.int64)


def _checked(path: str, numbers: np.ndarray, rows: int) -> np.ndarray:
    """Return row numbers or a mask of the pool; FileError where it is not clear which."""
    if numbers.dtype == np.bool_:
        if len(numbers) != rows:
            raise FileError(
                f"{path} must have a boolean for each of the {rows} rows, got {len(numbers)}"
            )
        return np.flatnonzero(numbers)
    if numbers.dtype.kind not in "iu" and len(numbers):
        raise FileError(f"{path} must hold row numbers (integers), got {numbers.dtype}")
    if len(numbers) == rows > 2 and not (np.asarray(numbers) // 2).any():
        raise FileError(
            f"{path} holds a 0 or 1 for each row of the pool: save it as booleans if it is a mask"
        )
    outside = (numbers < 0) | (numbers >= rows)
    if outside.any():
        wrong = int(numbers[outside][0])
        raise FileError(f"{path} holds row {wrong}, but labeled rows are from 0 to {rows - 1}")
    return numbers
