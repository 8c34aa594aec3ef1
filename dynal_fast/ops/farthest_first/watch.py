"""Whether a pool is still what it was: cheap signs, no proof."""

from typing import Any

import numpy as np
import torch

from dynal_fast.ops.farthest_first.arrays import Array
from dynal_fast.ops.farthest_first.contract import Rows

WATCHED = 64  # rows that are compared with what they were


class Watch:
    """A few rows of a pool, and torch's count of its changes in place."""

    def __init__(self, pool: Any, rows: Rows) -> None:
        self._array = rows.array
        self.rows = self._sample()
        # A view shares its count with its base, of which other parts may change.
        self._counted: torch.Tensor | None = None
        if isinstance(pool, torch.Tensor) and not (pool.is_inference() or pool._is_view()):
            self._counted, self._changes = pool, pool._version

    def check(self) -> None:
        """Raise ``ValueError`` if the pool has changed."""
        counted = self._counted
        if (counted is None or counted._version == self._changes) and same(
            self.rows, self._sample()
        ):
            return
        raise ValueError(
            "pool must stay as it is, got one that was changed in place: make a new FarthestFirst "
            "of the new embeddings, with labeled= what .covered says"
        )

    def _sample(self) -> Array:
        step = max(1, -(-len(self._array) // WATCHED))
        rows = copied(self._array[::step])
        return rows.cpu() if isinstance(rows, torch.Tensor) else rows


def copied(array: Array) -> Array:
    """A copy with memory of its own."""
    if isinstance(array, torch.Tensor):
        return array.clone(memory_format=torch.contiguous_format)
    return np.array(array)


def as_saved(array: Array) -> torch.Tensor:
    """A copy as a tensor on the CPU, which `torch.load` takes without trusting the file."""
    if isinstance(array, torch.Tensor):
        return array.cpu().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def same(one: Any, other: Any) -> bool:
    """Whether two arrays have the same type, shape and values."""
    if type(one) is not type(other) or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool((one == other).all())


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits; torch compares few integer types."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
