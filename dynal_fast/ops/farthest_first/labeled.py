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
    """Check ``labeled``; return its rows, and its (m,) int64 pool indices in order, or None.

    An array with one axis holds indices or a mask. So does one of integers (m, 1), unless the pool
    itself has one dimension. A pair has both: one of its arrays has one axis, the other has two.
    """
    if labeled is None:
        return None, None
    if isinstance(labeled, OuterProducts):
        rows = contract.as_rows(labeled, "labeled")
        contract.check_labeled_rows(rows, pool)
        return rows, None
    if _is_pair(labeled):
        parts = [as_labeled(part, pool) for part in labeled]
        embeddings = [rows for rows, _ in parts if rows is not None]
        indices = [index for _, index in parts if index is not None]
        if len(embeddings) != 1 or len(indices) != 1:
            shapes = " and ".join(str(_shape(part)) for part in labeled)
            raise ValueError(
                "labeled must hold embeddings (m, d) and pool indices or a mask where it is a pair "
                f"of arrays, got shapes {shapes}"
            )
        return embeddings[0], indices[0]
    array = as_array(labeled, "labeled")
    if array.ndim == 2 and array.shape[1] == 1 and pool.columns != 1 and _counts(array):
        array = array[:, 0]
    if array.ndim == 1:
        return None, as_pool_indices(array, pool.size, "labeled")
    if array.ndim == 0:
        raise ValueError(
            "labeled must be embeddings (m, d), pool indices (m,) or a mask (n,), or a pair of "
            "both, got a number: pass a list of indices"
        )
    rows = contract.as_rows(array, "labeled")
    contract.check_labeled_rows(rows, pool)
    return rows, None


def _is_pair(labeled: Any) -> bool:
    """Whether this is embeddings and indices: two arrays, not two rows nor two indices."""
    if type(labeled) is not tuple or len(labeled) != 2:
        return False
    return any(
        isinstance(part, OuterProducts) or getattr(part, "ndim", 0) == 2 or _lists_rows(part)
        for part in labeled
    )


def _shape(part: Any) -> tuple[int, ...]:
    return tuple((part if isinstance(part, OuterProducts) else as_array(part, "labeled")).shape)


def _lists_rows(part: Any) -> bool:
    return isinstance(part, (list, tuple)) and len(part) > 0 and np.ndim(part[0]) == 1


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
