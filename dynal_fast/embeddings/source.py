"""What every reader returns, and the errors of files that cannot be read."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class FileError(ValueError):
    """A file that cannot be read; the message names it and says why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What to take of a file that holds more than one array.

    ``key`` names an array, ``columns`` are names, patterns or positions of columns of a table;
    ``header`` says whether a text table begins with names, None lets the reader decide.
    """

    key: str | None = None
    columns: Sequence[str] | None = None
    header: bool | None = None

    def check_no_key(self, path: Path) -> None:
        """Refuse a key for a file whose arrays have no names."""
        if self.key is not None:
            raise FileError(f"{path} has no keys: leave --key (key=) out")

    def check_no_columns(self, path: Path) -> None:
        """Refuse ``columns`` for a file of arrays: only a table has columns."""
        if self.columns is not None:
            raise FileError(f"{path} is no table: leave --columns (columns=) out")
        self.check_no_header(path)

    def check_no_header(self, path: Path) -> None:
        """Refuse ``header`` for anything but a text table."""
        if self.header is not None:
            raise FileError(f"{path} is no text: leave --header and --no-header (header=) out")


@dataclass(frozen=True)
class Source:
    """The numbers of one file, not read yet.

    ``read`` returns them, memory-mapped where the format allows it. ``fill`` reads them into an
    array of ``shape`` and ``dtype`` instead; without it, what ``read`` returns is copied.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: Any  # a NumPy dtype; torch.bfloat16, which NumPy lacks
    read: Callable[[], Any]
    fill: Callable[[np.ndarray], None] | None = None
    left_out: tuple[str, ...] = ()  # columns of a table that are not read


@contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser raises into a `FileError` that names ``path``."""
    try:
        yield
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(f"{path} does not fit into memory") from error
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise FileError(f"{path} cannot be read: {reason}") from error
    except Exception as error:  # parsers raise many types on damaged bytes
        raise FileError(f"{path} cannot be read as {what}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]


def checked_dtype(dtype: np.dtype, path: Path) -> np.dtype:
    """Return ``dtype`` in native byte order; FileError where it holds no real numbers."""
    cure = {
        "O": "Python objects; save one array of numbers, such as np.stack(list(array))",
        "V": "a structured array; save plain numbers, such as "
        "np.lib.recfunctions.structured_to_unstructured(array)",
        "c": "complex numbers; save their real and imaginary parts as features",
        "S": "texts; save numbers",
        "U": "texts; save numbers",
        "M": "dates; save numbers",
        "m": "time differences; save numbers",
    }.get(dtype.kind)
    if cure is None and dtype.itemsize > 8:
        cure = f"{dtype}; save them with .astype('float64')"
    if cure is not None:
        raise FileError(f"{path} holds {cure}")
    return dtype.newbyteorder("=")


def allocate(shape: tuple[int, ...], dtype: Any, what: object) -> Any:
    """Return an array for the numbers of ``what``; FileError where they exceed the machine."""
    import torch

    bytes_needed = int(np.prod([int(size) for size in shape], dtype=object)) * dtype.itemsize
    if bytes_needed > physical_memory():
        raise FileError(
            f"{what} has {bytes_needed / 1e9:,.1f} GB of numbers, more than the memory; one .npy "
            "file, as np.lib.format.open_memmap writes it, is memory-mapped instead"
        )
    if isinstance(dtype, torch.dtype):
        return torch.empty(shape, dtype=dtype)
    return np.empty(shape, dtype)


def physical_memory() -> float:
    """Return the bytes of memory of this machine; infinity where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def choose_array(path: Path, names: Sequence[str], key: str | None, describe: Any) -> str:
    """Return the name of the array to read: ``key``, or the only one there is."""
    if key is not None and key in names:
        return key
    if key is None and len(names) == 1:
        return names[0]
    shown = ", ".join(f"{name!r} {describe(name)}".rstrip() for name in names[:8])
    shown += f" and {len(names) - 8} more" if len(names) > 8 else ""
    if not names:
        raise FileError(f"{path} holds no array")
    if key is None:
        raise FileError(f"{path} holds several arrays: {shown}; choose one with --key (key=)")
    raise FileError(f"{path} has no array {key!r}; it holds {shown}")
