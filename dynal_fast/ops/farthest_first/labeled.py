"""Which samples are labeled: rows from outside the pool, or samples of the pool itself."""

from typing import Any

import numpy as np
import torch

from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.arrays import Array, as_array
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.products import OuterProducts


def as_labeled(labeled: Any, pool: Rows) -> tuple[Rows | None, torch.Tensor | None]:
    """Check ``labeled``; return its rows, or (m,) int64 pool indices in order, or neither.

    An array with one axis holds indices or a mask. So does one of integers (m, 1), unless the pool
    itself has one dimension.
    """
    if labeled is None:
        return None, None
    if isinstance(labeled, OuterProducts):
        rows = contract.as_rows(labeled, "labeled")
        contract.check_labeled_rows(rows, pool)
        return rows, None
    array = as_array(labeled, "labeled")
    if array.ndim == 2 and array.shape[1] == 1 and pool.columns != 1 and _counts(array):
        array = array[:, 0]
    if array.ndim == 1:
        return None, as_pool_indices(array, pool.size, "labeled")
    if array.ndim == 0:
        raise ValueError(
            "labeled must be embeddings (m, d), pool indices (m,) or a mask (n,), got a number: "
            "pass a list of indices"
        )
    rows = contract.as_rows(array, "labeled")
    contract.check_labeled_rows(rows, pool)
    return rows, None


def _counts(array: Array) -> bool:
    """Whether an array holds integers or a mask."""
    if isinstance(array, np.ndarray):
        return array.dtype.kind in "iub"
    return not (array.is_floating_point() or array.is_complex())


def as_pool_indices(array: Any, n: int, name: str) -> torch.Tensor:
    """Check indices (m,) into n samples, or a mask (n,); return int64 indices on the CPU."""
    array = as_array(array, name)
    if isinstance(array, torch.Tensor):
        check_addressable(name, array)
        if array.is_floating_point():
            array = array.double()
        array = array.detach().cpu().numpy()
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be pool indices (m,) or a mask ({n},), got shape {array.shape}"
        )
    if array.dtype.kind == "b":
        if len(array) != n:
            raise ValueError(
                f"{name} must have one entry for each of the {n} pool samples where it is a mask "
                f"of booleans, got {len(array)}"
            )
        return torch.from_numpy(np.flatnonzero(array))
    if array.size == 0:
        return torch.empty(0, dtype=torch.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} with one axis must hold integer pool indices, got {array.dtype}; embeddings "
            "of labeled samples have two axes (samples, dimensions)"
        )
    if len(array) == n > 2 and ((array == 0) | (array == 1)).all():
        raise ValueError(
            f"{name} holds a 0 or 1 for each of the {n} pool samples: a mask has to be boolean, "
            "convert it with .astype(bool) or .bool()"
        )
    outside = array[(array < 0) | (array >= n)]
    if outside.size:
        raise ValueError(f"{name} holds pool index {outside[0]}, outside [0, {n})")
    return torch.from_numpy(array.astype(np.int64))
