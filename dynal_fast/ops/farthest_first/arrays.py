"""Embeddings, indices and masks as people pass them, as a tensor or a NumPy array.

A matrix in memory is not copied. Lists are; so are tables whose columns lie apart, up to the size
of a tile.
"""

import math
import sys
from typing import Any

import numpy as np
import torch

from dynal_fast.ops.farthest_first.reference import TILE_BYTES

Array = torch.Tensor | np.ndarray


def as_array(value: Any, name: str) -> Array:
    """Return ``value`` as a tensor or a plain NumPy array; TypeError says what to pass."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask, got a masked array; fill it with .filled(...)")
    if isinstance(value, np.ndarray):
        return _checked_kind(np.asarray(value), name)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, getattr(pandas, "DataFrame", ())):
        return _of_frame(value, name)
    if pandas is not None and isinstance(value, (pandas.Series, pandas.Index)):
        return _of_column(value, name)
    if isinstance(value, (list, range)) or type(value) is tuple:
        return _of_sequence(value, name)
    raise TypeError(
        f"{name} must be a torch.Tensor, a NumPy array, a pandas DataFrame or Series, or a list, "
        f"got {type(value).__name__}{_advice(value, name)}"
    )


def _advice(value: Any, name: str) -> str:
    if hasattr(value, "toarray"):
        return f"; pass {name}.toarray(), which is dense"
    if hasattr(value, "__dlpack__"):
        return f"; pass torch.from_dlpack({name}), which shares its memory"
    if hasattr(value, "__array__"):
        return f"; pass np.asarray({name})"
    if isinstance(value, (set, frozenset)):
        return f"; pass sorted({name})"
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes, dict, tuple)):
        return f"; pass list({name})"
    return ""


def _checked_kind(array: np.ndarray, name: str) -> np.ndarray:
    """Raise ``TypeError`` unless the array holds numbers."""
    if array.dtype.kind not in "fiub" and array.dtype.kind != "c":
        advice = f"; np.stack({name}) makes a matrix of rows" if _holds_rows(array) else ""
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}{advice}")
    return array


def _holds_rows(array: np.ndarray) -> bool:
    return array.dtype == object and array.ndim == 1 and len(array) > 0 and np.ndim(array[0]) == 1


def _of_sequence(value: Any, name: str) -> Array:
    try:
        if len(value) and isinstance(value[0], torch.Tensor):
            return torch.stack(tuple(value)).detach()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise type(error)(f"{name} must be a list of numbers or of rows alike: {error}") from None
    return _checked_kind(array, name)


def _of_frame(frame: Any, name: str) -> np.ndarray:
    types = [_numpy_type(dtype) for dtype in frame.dtypes]
    for label, dtype, kind in zip(frame.columns, frame.dtypes, types, strict=True):
        if kind is None:
            raise TypeError(
                f"{name} must hold numbers only, got column {label!r} of {dtype}; "
                f"leave it out, as {name}.select_dtypes('number') does"
            )
    first = frame.iloc[:1]
    # A frame that is one block gives views; otherwise to_numpy() copies its columns together.
    if frame.size == 0 or np.shares_memory(first.to_numpy(), frame.iloc[:, 0].to_numpy()):
        return frame.to_numpy()
    matrix_type = np.result_type(*(kind for kind in types if kind is not None))
    if frame.size * matrix_type.itemsize > TILE_BYTES:
        raise TypeError(
            f"{name} must lie in memory as one matrix, got a DataFrame of columns that lie apart; "
            f"pass {name}.to_numpy({matrix_type.name!r}), a copy"
        )
    matrix = np.empty(frame.shape, matrix_type)
    for at in range(frame.shape[1]):
        column = _of_column(frame.iloc[:, at], f"{name} column {frame.columns[at]!r}")
        if matrix_type.kind == "f" and column.dtype.kind in "iu" and column.dtype.itemsize == 8:
            check_exact_integers(column, f"{name} column {frame.columns[at]!r}")
        matrix[:, at] = column
    return matrix


def _of_column(column: Any, name: str) -> np.ndarray:
    kind = _numpy_type(column.dtype)
    if kind is None:
        return _checked_kind(np.asarray(column.to_numpy()), name)
    if column.isna().any() and not isinstance(column.dtype, np.dtype):
        raise ValueError(f"{name} must have no missing values, got NA; fill or drop it")
    return np.asarray(column.to_numpy(dtype=kind))


def _numpy_type(dtype: Any) -> np.dtype | None:
    """The NumPy type of a pandas column of numbers, nullable or not; None of any other."""
    numbers = getattr(dtype, "numpy_dtype", dtype)
    return numbers if isinstance(numbers, np.dtype) and numbers.kind in "fiub" else None


EXACT_INTEGERS = 2**53  # float64 holds every integer up to this


def check_exact_integers(array: Array, name: str) -> None:
    """Raise ``ValueError`` for 64-bit integers that float64 does not hold exactly."""
    if isinstance(array, torch.Tensor) and array.is_cpu:
        array = array.numpy()
    rows = max(1, TILE_BYTES // 8 // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        tile = array[start : start + rows]
        for value in (int(tile.min()), int(tile.max())):
            if abs(value) > EXACT_INTEGERS:
                raise ValueError(
                    f"{name} must hold integers up to 2^53, which float64 holds exactly, "
                    f"got {value}"
                )
