"""MATLAB files of version 5, as SciPy writes them and as nobody should."""

import io
import struct
import zlib

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError
from dynal_fast.data.mat import read_mat
from tests.test_data_hostile import MEGABYTE, memory_below


def element(kind, data, order="<"):
    return struct.pack(f"{order}2I", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name, data, shape, order="<", kind=2, flags=9):
    """Write an array of uint8, or of what is said, as one element."""
    parts = (
        element(6, struct.pack(f"{order}2I", flags, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name.encode(), order),
        element(kind, data, order),
    )
    return element(14, b"".join(parts), order)


def packed(*content, order="<"):
    data = zlib.compress(b"".join(content))
    return struct.pack(f"{order}2I", 15, len(data)) + data


def write(path, *elements, order="<"):
    mark = b"IM" if order == "<" else b"MI"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark
    path.write_bytes(header + b"".join(elements))
    return path


def read(path, *names, limit=MEGABYTE):
    return read_mat("Toy", path, names or ("X",), limit)


@pytest.mark.parametrize("do_compression", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_what_scipy_writes_is_read_as_scipy_reads_it(tmp_path, dtype, do_compression):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "toy.mat"
    random = np.random.default_rng(0)
    arrays = {
        "X": random.integers(0, 100, (3, 4, 2, 5)).astype(dtype),
        "y": np.array([[1], [10]], dtype),
        "a_name_of_more_than_four": np.zeros((0, 3), dtype),
        "texts": np.array(["skipped"]),
        "cells": {"skipped": [1, "two"]},
    }
    scipy_io.savemat(path, arrays, do_compression=do_compression)
    names = list(arrays)[:3]
    expected = scipy_io.loadmat(path, variable_names=names)
    for name, array in zip(names, read(path, *names), strict=True):
        assert array.dtype == expected[name].dtype
        assert np.array_equal(array, expected[name])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pack", [packed, lambda content, order: content])
def test_either_byte_order_is_read(tmp_path, order, pack):
    values = np.array([1, -2, 300, 4, 5, 6], f"{order}i2")
    content = matrix("X", values.tobytes(), (2, 3), order, kind=3, flags=10)
    (array,) = read(write(tmp_path / "toy.mat", pack(content, order=order), order=order))
    assert array.tolist() == [[1, 300, 5], [-2, 4, 6]]


HUGE = matrix("z", bytes(24 * MEGABYTE), (24 * MEGABYTE, 1))
HALF = matrix("z", bytes(MEGABYTE // 2), (MEGABYTE // 2, 1))


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([packed(HUGE)], "unpacks to more than 1,048,576 bytes"),
        ([packed(HALF)] * 3, "unpacks to more than 1,048,576 bytes"),
        ([packed(packed(HUGE))], "expected a matrix, got an element of kind 15"),
        ([HALF] * 3, "holds more than 1,048,576 bytes"),
        ([packed(HALF)[:-9]], "ends within an element"),
        ([struct.pack("<2I", 15, 9) + packed(HALF)[8:17]], "compressed element ends too soon"),
        ([struct.pack("<2I", 15, 9) + b"not zlib."], "Error -3"),
        ([struct.pack("<2I", 14, 2**32 - 1)], "ends within an element"),
        ([b"\0\0\0"], "ends within an element"),
        ([element(9, bytes(8))], "expected a matrix, got an element of kind 9"),
        ([element(14, b"")], "ends within an element"),
        ([element(14, element(5, bytes(8)))], "expected an element of kind 6, got 5"),
        ([matrix("Y", b"1", (1, 1))], "has no array X"),
        ([], "has no array X"),
        ([matrix("X", b"12", (1, 1))], r"2 numbers do not fill X of shape \[1, 1\]"),
        ([matrix("X", b"12", (-1, -2))], r"do not fill X of shape \[-1, -2\]"),
        ([matrix("X", b"", (2**31 - 1,) * 20)], "do not fill X"),
        ([matrix("X", b"", (0,) * 100)], "do not fill X"),
        ([matrix("X", b"123", (3, 1), kind=4)], "must be a multiple of element size"),
        ([matrix("X", b"12345678", (1, 1), kind=18)], "holds elements of kind 18, no numbers"),
        ([matrix("X", b"1", (1, 1), flags=9 | 0x800)], "no array of real numbers"),
        ([matrix("X", b"1", (1, 1), flags=9 | 0x200)], "no array of real numbers"),
        *(
            ([matrix("X", b"1", (1, 1), flags=kind)], "no array of real")
            for kind in (1, 2, 4, 5, 17)
        ),
    ],
)
def test_what_is_damaged_hostile_or_no_plain_array_is_refused(tmp_path, elements, message):
    path = write(tmp_path / "toy.mat", *elements)
    with (
        memory_below(8 * MEGABYTE),
        pytest.raises(DatasetCorruptError, match=f"toy.mat .*{message}"),
    ):
        read(path)


def test_other_versions_are_refused(tmp_path):
    path = tmp_path / "toy.mat"
    stream = io.BytesIO()
    pytest.importorskip("scipy.io").savemat(stream, {"X": np.ones((2, 2))}, format="4")
    for content in (stream.getvalue(), b"\x89HDF\r\n\x1a\n" + bytes(200), b""):
        path.write_bytes(content)
        with pytest.raises(DatasetCorruptError, match="does not start as a file of version 5"):
            read(path)
