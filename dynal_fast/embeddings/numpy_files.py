"""NumPy's .npy, memory-mapped, and .npz."""

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from dynal_fast.embeddings.source import (
    FileError,
    Source,
    Wanted,
    allocate,
    checked_dtype,
    choose_array,
    parsing,
)

Header = tuple[tuple[int, ...], bool, np.dtype, int]  # shape, column by column, dtype, its bytes


def open_npy(path: Path, wanted: Wanted) -> Source:
    """Open a .npy file; its rows are memory-mapped."""
    wanted.check_no_key(path)
    wanted.check_no_columns(path)
    with parsing(path, "a .npy array"), open(path, "rb") as file:
        shape, by_column, stored, offset = _header(file)
    dtype = checked_dtype(stored, path)
    _check_size(path, shape, stored, path.stat().st_size - offset)
    order: Any = "F" if by_column else "C"

    def read() -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype)
        with parsing(path, "a .npy array"):
            array: np.ndarray = np.memmap(path, stored, "r", offset, shape, order)
        return array if stored == dtype else array.astype(dtype)

    return Source(path, shape, dtype, read)


def open_npz(path: Path, wanted: Wanted) -> Source:
    """Open the array of an .npz archive that ``wanted.key`` names, or its only one."""
    wanted.check_no_columns(path)
    with parsing(path, "an .npz archive"), zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        headers = {}
        for name in members:
            with archive.open(name) as file:
                headers[name.removesuffix(".npy")] = _header(file)
        sizes = {name.removesuffix(".npy"): archive.getinfo(name).file_size for name in members}
    name = choose_array(
        path, list(headers), wanted.key, lambda name: f"{headers[name][0]} {headers[name][2]}"
    )
    shape, by_column, stored, offset = headers[name]
    dtype = checked_dtype(stored, path)
    _check_size(path, shape, stored, sizes[name] - offset)

    def read() -> np.ndarray:
        # Read as many bytes as the header says: a damaged archive may expand without end.
        array = allocate(shape[::-1] if by_column else shape, stored, path)
        with (
            parsing(path, "an .npz archive"),
            zipfile.ZipFile(path) as archive,
            archive.open(f"{name}.npy") as file,
        ):
            file.read(offset)
            left = memoryview(array.reshape(-1).view(np.uint8))
            while len(left):
                part = file.read(min(len(left), 2**24))
                if not part:
                    raise EOFError("it ends before its array does")
                left[: len(part)] = part
                left = left[len(part) :]
            if file.read(1):  # reading to the end makes the archive check its bytes
                raise ValueError("it goes on after its array")
        return (array.T if by_column else array).astype(dtype, copy=False)

    return Source(path, shape, dtype, read)


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"version {version[0]}.{version[1]} of the format holds no plain numbers")
    shape, by_column, dtype = read_header(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, by_column, dtype, file.tell()


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype, found: int) -> None:
    expected = dtype.itemsize
    for size in shape:
        expected *= size
    if found < expected:
        raise FileError(f"{path} is cut short: {found} of the {expected} bytes of its array")
    if found > expected:
        raise FileError(f"{path} has {found - expected} bytes after its array; save one array")
