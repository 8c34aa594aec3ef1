"""Read arrays of numbers from MATLAB files of version 5, within limits.

SciPy's reader unpacks a file of any size, and some damaged files crash it. This one reads plain
arrays only: no cells, structures, texts, complex or sparse numbers.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dynal_fast.data.archive import read_bounded
from dynal_fast.data.source import DatasetCorruptError

HEADER = 128  # bytes, of which the last two tell the byte order
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15  # kinds of an element
STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
NUMBERS = range(6, 16)  # classes of arrays: double, single, and integers of 8 to 64 bits
COMPLEX, LOGICAL = 0x800, 0x200  # flags of an array


def read_mat(title: str, path: Path, names: Sequence[str], limit: int) -> list[np.ndarray]:
    """Return the named arrays of a file in the dtype in which they are stored, read-only.

    Parameters
    ----------
    title
        Of the data set, for errors.
    path
        The file.
    names
        Of the arrays.
    limit
        Of the file, packed and unpacked, in bytes.

    Raises
    ------
    DatasetCorruptError
        The file is damaged, of another version or too long, or has no such arrays.
    """
    content = read_bounded(title, path, limit)
    where = f"{title}: {path}"
    try:
        order = {b"IM": "<", b"MI": ">"}.get(content[HEADER - 2 : HEADER])
        if order is None:
            raise ValueError("it does not start as a file of version 5")
        arrays: dict[str, np.ndarray] = {}
        for matrix in _matrices(content, order, limit):
            name, array = _array(matrix, order, names)
            if array is not None:
                arrays[name] = array
        if missing := [name for name in names if name not in arrays]:
            raise ValueError(f"it has no array {missing[0]}")
    except (ValueError, zlib.error) as error:
        raise DatasetCorruptError(f"{where} is not a readable .mat: {error}") from error
    return [arrays[name] for name in names]


def _matrices(content: bytes, order: str, limit: int) -> Iterator[bytes]:
    """Yield what each matrix of a file holds, unpacked."""
    position, left = HEADER, limit
    while position < len(content):
        kind, element, position = _element(content, position, order, padded=False)
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(element, left + 1)
            left -= len(unpacked)
            if left < 0:
                raise ValueError(f"it unpacks to more than {limit:,} bytes")
            if not unpacker.eof:
                raise ValueError("a compressed element ends too soon")
            kind, element, _ = _element(unpacked, 0, order)
        if kind != MATRIX:
            raise ValueError(f"expected a matrix, got an element of kind {kind}")
        yield element


def _array(matrix: bytes, order: str, names: Sequence[str]) -> tuple[str, np.ndarray | None]:
    """Return the name of a matrix and, where it is wanted, its array."""
    position = 0
    parts = []
    for expected in (UINT32, INT32, INT8):  # flags, dimensions, name
        kind, part, position = _element(matrix, position, order)
        if kind != expected:
            raise ValueError(f"expected an element of kind {expected}, got {kind}")
        parts.append(part)
    flags = int(np.frombuffer(parts[0], f"{order}u4", 1)[0])
    name = parts[2].decode("latin1")
    if name not in names:
        return name, None
    shape = np.frombuffer(parts[1], f"{order}i4").tolist()
    if flags & 0xFF not in NUMBERS or flags & (COMPLEX | LOGICAL):
        raise ValueError(f"{name} is no array of real numbers")
    kind, data, _ = _element(matrix, position, order)
    if kind not in STORED:
        raise ValueError(f"{name} holds elements of kind {kind}, no numbers")
    values = np.frombuffer(data, np.dtype(f"{order}{STORED[kind]}"))
    if min(shape, default=0) < 0 or math.prod(shape) != len(values) or len(shape) > 32:
        raise ValueError(f"{len(values)} numbers do not fill {name} of shape {str(shape)[:100]}")
    return name, values.reshape(shape, order="F")


def _element(
    content: bytes, position: int, order: str, padded: bool = True
) -> tuple[int, bytes, int]:
    """Return kind and content of the element at a position, and where the next one starts.

    An element is its kind and its length, as 32-bit integers, and its content, which is padded to
    eight bytes within a matrix; up to four bytes may follow in place of the second integer.
    """
    if len(content) < position + 8:
        raise ValueError("it ends within an element")
    kind, size = np.frombuffer(content, f"{order}u4", 2, position).tolist()
    start = position + 8
    if kind >> 16:
        kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        if size > 4:
            raise ValueError(f"a short element has {size} bytes")
        return kind, content[start : start + size], position + 8
    if len(content) < start + size:
        raise ValueError("it ends within an element")
    following = start + size + (-size % 8 if padded else 0)
    return kind, content[start : start + size], following
