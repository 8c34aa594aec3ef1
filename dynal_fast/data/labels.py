"""Check class labels from files: integers in their range, or an error; nothing is rounded."""

from typing import Any

import numpy as np

from dynal_fast.data.source import DatasetCorruptError


def class_labels(values: Any, low: int, num_classes: int, where: str) -> np.ndarray:
    """Return labels as int64 ``(n,)``.

    Parameters
    ----------
    values
        A list of numbers, or an array ``(n,)`` of any integer dtype, or of whole floats, as MATLAB
        stores them.
    low
        The first class.
    num_classes
        Labels lie in ``[low, low + num_classes)``.
    where
        Names the labels in errors.

    Raises
    ------
    DatasetCorruptError
        A value is no number, no whole number, or no class; or there is another shape.

    >>> class_labels(np.array([1.0, 10.0]), 1, 10, "y")
    array([ 1, 10])
    >>> class_labels([0, 1.9], 0, 10, "y")
    Traceback (most recent call last):
        ...
    dynal_fast.data.source.DatasetCorruptError: y should be whole numbers, got 1.9
    """
    array = values if isinstance(values, np.ndarray) else _array_of(values, where)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise DatasetCorruptError(
            f"{where} should be whole numbers (n,), got {array.dtype} {array.shape}"
        )
    if array.dtype.kind == "f":
        broken = array[~(np.isfinite(array) & (array == np.floor(array)))]
        if len(broken):
            raise DatasetCorruptError(f"{where} should be whole numbers, got {broken[0]}")
    high = low + num_classes - 1
    if len(array) and not low <= array.min() <= array.max() <= high:
        span = f"{low}..{high}" if low else f"[0, {num_classes})"
        raise DatasetCorruptError(
            f"{where} should lie in {span}, got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def _array_of(values: list, where: str) -> np.ndarray:
    for value in values:
        if type(value) not in (int, float):
            kind = type(value).__name__
            raise DatasetCorruptError(f"{where} should be whole numbers, got a {kind}")
    try:
        return np.array(values, np.float64 if float in map(type, values) else np.int64)
    except OverflowError as error:
        raise DatasetCorruptError(
            f"{where} should be whole numbers, got one of 2^63 or more"
        ) from error
