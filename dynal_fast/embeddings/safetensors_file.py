"""Tensors of a .safetensors file, memory-mapped; the format is read here, without the package."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.embeddings.source import FileError, Source, Wanted, choose_array, parsing

DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": "<u2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
LONGEST_HEADER = 10**8  # as in the format's own library


def open_safetensors(path: Path, wanted: Wanted) -> Source:
    """Open the tensor that ``wanted.key`` names, or the only one."""
    wanted.check_no_columns(path)
    size = path.stat().st_size
    with parsing(path, "safetensors"), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise EOFError("it is cut short, or its header is too long")
        header = json.loads(file.read(length))
        entries = {name: item for name, item in header.items() if name != "__metadata__"}
        shown = {name: f"{tuple(e['shape'])} {e['dtype']}" for name, e in entries.items()}
    name = choose_array(path, list(entries), wanted.key, shown.__getitem__)
    with parsing(path, "safetensors"):
        dtype, shape, offset = _place(entries[name], 8 + length, size)
    brain = entries[name]["dtype"] == "BF16"

    def read() -> Any:
        with parsing(path, "safetensors"):
            if 0 in shape:
                array: np.ndarray = np.empty(shape, dtype)
            else:
                array = np.memmap(path, dtype, "r", offset, shape)
            if offset % dtype.itemsize:  # kernels load whole numbers
                array = np.array(array)
        return (
            _as_brain_floats(array) if brain else array.astype(dtype.newbyteorder("="), copy=False)
        )

    if brain:
        import torch

        return Source(path, shape, torch.bfloat16, read)
    return Source(path, shape, dtype.newbyteorder("="), read)


def _place(entry: Any, start: int, size: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return where a tensor lies and how, from its entry in the header."""
    if entry["dtype"] not in DTYPES:
        raise FileError(f"its numbers are {entry['dtype']}; save them as F32")
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
    begin, end = entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("its header has impossible sizes")
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if end - begin != expected:
        raise ValueError(f"a tensor of {expected} bytes cannot lie in {end - begin}")
    if start + end > size:
        raise EOFError(f"it is cut short: {size} of at least {start + end} bytes")
    return dtype, tuple(shape), start + begin


def _as_brain_floats(array: np.ndarray) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the map is read-only, and only read
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
