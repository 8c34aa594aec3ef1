"""A fault on purpose, to see that the gate finds it and what its map looks like."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor

SPOILED = slice(16, 32)  # rows whose features a kernel reads as if their swizzle were another


@contextmanager
def planted(function: str) -> Iterator[None]:
    """Within the block the kernel of that name, of the pool statistics, reads rows wrongly."""
    if not function:
        yield
        return
    from dynal_fast.ops.pool_stats import triton

    launch = triton.launch

    def spoiling(kernel: Any, grid: Any, ids: Tensor, source: Any, *rest: Any, **options: Any):
        if kernel.fn.__name__ == function:
            source = source._replace(rows=swizzled(source.rows))
        launch(kernel, grid, ids, source, *rest, **options)

    with mock.patch.object(triton, "launch", spoiling):
        yield


def swizzled(rows: Tensor) -> Tensor:
    """Rows whose neighbouring groups of 8 columns have changed places, in one tile of 16 rows."""
    rows = rows.clone()
    pairs = rows[SPOILED, : rows.shape[1] // 16 * 16]
    groups = pairs.clone().reshape(len(pairs), -1, 2, 8)
    pairs.copy_(groups.flip(2).reshape(pairs.shape))
    return rows
