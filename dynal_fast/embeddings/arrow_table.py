"""Parquet, and Arrow as files (Feather) and streams: read in batches, with pyarrow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.embeddings.columns import Chosen, Kind, choose_columns
from dynal_fast.embeddings.source import (
    FileError,
    Source,
    Wanted,
    allocate,
    checked_dtype,
    parsing,
)

BATCH = 2**20  # numbers that are decoded at a time, where the file leaves the choice
Batches = Callable[[list[str], int], Iterator[Any]]  # of the columns named, so many rows at a time


def open_parquet(path: Path, wanted: Wanted) -> Source:
    """Open a Parquet file."""
    _pyarrow(path, "a Parquet file")
    import pyarrow.parquet as parquet

    with parsing(path, "Parquet"), parquet.ParquetFile(path, memory_map=True) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows

    def batches(names: list[str], rows: int) -> Iterator[Any]:
        with parquet.ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(batch_size=rows, columns=names)

    return _table(path, "Parquet", schema, batches, wanted, rows)


def open_arrow_file(path: Path, wanted: Wanted) -> Source:
    """Open an Arrow IPC file, which is what Feather is."""
    arrow = _pyarrow(path, "an Arrow file")

    @contextmanager
    def opened() -> Iterator[Any]:
        with arrow.memory_map(str(path)) as file, arrow.ipc.open_file(file) as reader:
            yield reader

    def batches(names: list[str], rows: int) -> Iterator[Any]:
        with opened() as reader:
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)

    with parsing(path, "an Arrow file"), opened() as reader:
        schema = reader.schema
    return _table(path, "an Arrow file", schema, batches, wanted)


def open_arrow_stream(path: Path, wanted: Wanted) -> Source:
    """Open an Arrow IPC stream, as Hugging Face datasets write them."""
    arrow = _pyarrow(path, "an Arrow stream")

    def batches(names: list[str], rows: int) -> Iterator[Any]:
        with arrow.memory_map(str(path)) as file, arrow.ipc.open_stream(file) as reader:
            yield from reader

    with (
        parsing(path, "an Arrow stream"),
        arrow.memory_map(str(path)) as file,
        arrow.ipc.open_stream(file) as reader,
    ):
        schema = reader.schema
    return _table(path, "an Arrow stream", schema, batches, wanted)


def _pyarrow(path: Path, what: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise ImportError(
            f"{path} is {what}, which needs pyarrow: pip install 'dynal_fast[files]'"
        ) from error
    return pyarrow


def _table(
    path: Path,
    what: str,
    schema: Any,
    batches: Batches,
    wanted: Wanted,
    rows: int | None = None,
) -> Source:
    wanted.check_no_key(path)
    wanted.check_no_header(path)
    with parsing(path, what):
        names = list(schema.names)
        try:
            chosen = choose_columns(names, [_kind(field.type) for field in schema], wanted.columns)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from None
        columns = [names[i] for i in chosen.positions]
        if rows is None:
            rows = sum(batch.num_rows for batch in batches(columns, 1))
        dtype = checked_dtype(_dtype(schema, chosen), path)
        width = (
            _list_width(path, schema, chosen, batches(columns, 1))
            if chosen.is_list
            else len(columns)
        )
    shape = (rows, width)

    def fill(out: np.ndarray) -> None:
        with parsing(path, what):
            row = 0
            for batch in batches(columns, max(1, BATCH // max(width, 1))):
                stop = row + batch.num_rows
                if stop > len(out):
                    raise EOFError("it has more rows than it says")
                for i, name in enumerate(columns):
                    column = batch.column(batch.schema.get_field_index(name))
                    if chosen.is_list:
                        out[row:stop] = _lists(path, column, name, row, width)
                    else:
                        out[row:stop, i] = _numbers(path, column, name, row)
                row = stop
            if row != len(out):
                raise EOFError("it has fewer rows than it says")

    def read() -> np.ndarray:
        array = allocate(shape, dtype, path)
        fill(array)
        return array

    return Source(path, shape, dtype, read, fill, chosen.left_out)


def _kind(kind: Any) -> Kind:
    from pyarrow import types

    kind = _stored(kind)
    if _is_list(kind):
        return "list" if _kind(kind.value_type) == "number" else "other"
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return "number" if number else "other"


def _stored(kind: Any) -> Any:
    from pyarrow import types

    while hasattr(kind, "storage_type"):  # an extension, such as a tensor of a fixed shape
        kind = kind.storage_type
    return kind.value_type if types.is_dictionary(kind) else kind


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _dtype(schema: Any, chosen: Chosen) -> np.dtype:
    from pyarrow import types

    found = []
    for i in chosen.positions:
        kind = _stored(schema.field(i).type)
        kind = _stored(kind.value_type) if chosen.is_list else kind
        found.append(
            np.dtype(np.float64) if types.is_decimal(kind) else np.dtype(kind.to_pandas_dtype())
        )
    return np.result_type(*found)


def _list_width(path: Path, schema: Any, chosen: Chosen, batches: Iterator[Any]) -> int:
    name = schema.names[chosen.positions[0]]
    kind = _stored(schema.field(chosen.positions[0]).type)
    if hasattr(kind, "list_size"):
        return kind.list_size
    for batch in batches:
        if batch.num_rows:
            column = batch.column(batch.schema.get_field_index(name))
            column.slice(0, 1).validate(full=True)
            return len(column[0]) if column[0].is_valid else 0
    raise FileError(f"{path} holds no rows")


def _lists(path: Path, column: Any, name: str, row: int, width: int) -> np.ndarray:
    """Return a column of lists as (rows, width)."""
    import pyarrow.compute as compute

    column.validate(full=True)
    while hasattr(column, "storage"):
        column = column.storage
    _check_no_nulls(path, column, name, row)
    lengths = np.asarray(compute.list_value_length(column))
    if (lengths != width).any():
        at = int(np.argmax(lengths != width))
        raise FileError(
            f"{path}, row {row + at}, column {name!r}: a list of {lengths[at]} numbers, not {width}"
        )
    values = column.flatten()
    if values.null_count:
        at = int(np.argmax(np.asarray(values.is_null()))) // max(width, 1)
        raise FileError(f"{path}, row {row + at}, column {name!r}: a list with a missing value")
    return _array(values).reshape(len(column), width)


def _numbers(path: Path, column: Any, name: str, row: int) -> np.ndarray:
    column.validate(full=True)
    while hasattr(column, "storage"):
        column = column.storage
    _check_no_nulls(path, column, name, row)
    return _array(column)


def _array(values: Any) -> np.ndarray:
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_decimal(values.type):
        values = values.cast(pyarrow.float64())
    return values.to_numpy(zero_copy_only=False)


def _check_no_nulls(path: Path, column: Any, name: str, row: int) -> None:
    if column.null_count:
        at = int(np.argmax(np.asarray(column.is_null())))
        raise FileError(f"{path}, row {row + at}, column {name!r}: no value")
