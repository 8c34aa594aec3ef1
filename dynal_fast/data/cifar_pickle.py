"""Reads CIFAR's pickles without running what a pickle can run.

The official batches are pickles of dictionaries that hold byte strings, integers, lists and one
NumPy array. A pickle may name any importable function and call it; this reader resolves five names
and none of them to the real thing: NumPy's own reconstruction is replaced by one that accepts
nothing but plain uint8 arrays whose size fits their shape.
"""

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


def loads(content: bytes) -> Any:
    """Return the object in a pickle of dicts, lists, tuples, numbers, strings and uint8 arrays.

    Strings written by Python 2 arrive as bytes.

    Raises
    ------
    Pickle.UnpicklingError: it is truncated, or asks for anything else.

    >>> loads(pickle.dumps({"labels": [3, 1]}))
    {'labels': [3, 1]}
    >>> loads(pickle.dumps(print))
    Traceback (most recent call last):
        ...
    _pickle.UnpicklingError: a data set's pickle may not name builtins.print
    """
    try:
        return _resolve(_CifarUnpickler(io.BytesIO(content), encoding="bytes").load())
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle fails in any of a dozen ways
        raise pickle.UnpicklingError(f"damaged pickle: {error!r}") from error


class _ArrayType:
    """Stands for ``numpy.ndarray``, which the pickle hands to ``_reconstruct``."""


class _DType:
    """Stands for ``numpy.dtype('u1')``."""

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment say nothing about single bytes."""


class _Array:
    """Stands for an array until its state arrives, then holds it as ``array``."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("only uint8 arrays are read from a data set's pickle")
        if len(data) != math.prod(shape):
            raise pickle.UnpicklingError(f"{len(data)} bytes do not fill an array of {shape}")
        values = np.frombuffer(data, np.uint8)
        self.array = values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def _reconstruct(array_type: object, shape: tuple, code: object) -> _Array:
    if array_type is not _ArrayType:
        raise pickle.UnpicklingError("only plain arrays are read from a data set's pickle")
    return _Array()


def _dtype(code: str | bytes, *_: object) -> _DType:
    if code not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"only uint8 arrays are read, not dtype {code!r}")
    return _DType()


def _encode(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes into old protocols as text and its Latin-1 encoding."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes must be written as latin1, not {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], type | Callable] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


class _CifarUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"a data set's pickle may not name {module}.{name}")
        return _ALLOWED[module, name]


def _resolve(item: Any) -> Any:
    if isinstance(item, _Array):
        return item.array
    if isinstance(item, dict):
        return {key: _resolve(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_resolve(value) for value in item]
    return item
