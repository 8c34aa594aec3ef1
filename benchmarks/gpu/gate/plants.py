"""Plant a fault in a kernel: the gate must find it, and its map shows the shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor

SPOILED = slice(16, 32)  # rows whose features the kernel reads with a wrong swizzle


@contextmanager
def planted(function: str) -> Iterator[None]:
    """Within the block, the pool statistics' kernel of that name reads rows wrongly."""
    if not function:
        yield
        return
    from dynal_fast.ops.pool_stats import triton

    launch = triton.launch

    def spoiling(
        kernel: Any, grid: Any, ids: Tensor, targets: Any, source: Any, *rest: Any, **options: Any
    ) -> None:
        if kernel.fn.__name__ == function:
            source = source._replace(rows=swizzled(source.rows))
        launch(kernel, grid, ids, targets, source, *rest, **options)

    with mock.patch.object(triton, "launch", spoiling):
        yield


def swizzled(rows: Tensor) -> Tensor:
    """Return the rows with neighbouring groups of 8 columns exchanged in one tile of 16 rows."""
    rows = rows.clone()
    pairs = rows[SPOILED, : rows.shape[1] // 16 * 16]
    groups = pairs.clone().reshape(len(pairs), -1, 2, 8)
    pairs.copy_(groups.flip(2).reshape(pairs.shape))
    return rows
