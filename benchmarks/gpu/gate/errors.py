"""Compare a kernel's results with the right ones, and show where they differ.

The shape of the errors tells their kind. A wrong swizzle repeats with the row or the column modulo
8, a missing wait spoils whole blocks of a tile, a wrong mask spoils the last block of an axis.
"""

import math
from typing import Any

import torch
from torch import Tensor

ROWS, COLUMNS = 24, 48  # blocks of a map, at most
PERIOD = 8  # rows and columns after which every swizzle repeats
FIRST = 4  # wrong elements that are named


def near(name: str, got: Tensor, want: Tensor, rtol: float, atol: float) -> dict[str, Any]:
    """Compare with ``want``, up to ``atol + rtol |want|``."""
    want = want.double().cpu()
    slack = torch.where(want.isfinite(), atol + rtol * want.abs(), 0.0)
    return between(name, got, want - slack, want + slack, want)


def between(
    name: str, got: Tensor, low: Tensor, high: Tensor, want: Tensor | None = None
) -> dict[str, Any]:
    """Compare (rows,) or (rows, columns) with bounds; NaN is right where ``low`` is NaN."""
    got, low, high = (tensor.double().cpu() for tensor in (got, low, high))
    want = (low + high) / 2 if want is None else want
    wrong = ~((got >= low) & (got <= high) | got.isnan() & low.isnan())
    found: dict[str, Any] = {
        "tensor": name,
        "wrong": int(wrong.sum()),
        "of": wrong.numel(),
        "error": relative_error(got, want),
    }
    if found["wrong"]:
        found |= shape_of_errors(wrong, got, want)
    return found


def relative_error(got: Tensor, want: Tensor) -> float:
    """The norm of the difference over the norm of the right result, where that is finite."""
    finite = want.isfinite()
    difference, scale = float((got - want)[finite].norm()), float(want[finite].norm())
    error = difference / scale if scale > 0 else difference
    return error if math.isfinite(error) else math.inf


def shape_of_errors(wrong: Tensor, got: Tensor, want: Tensor) -> dict[str, Any]:
    """A map of blocks, the shares wrong by row and column modulo 8, and the first wrong ones."""
    if wrong.ndim == 1:
        wrong, got, want = (tensor[:, None] for tensor in (wrong, got, want))
    rows, columns = wrong.shape
    height, width = _block(rows, ROWS), _block(columns, COLUMNS)
    picture = []
    for top in range(0, rows, height):
        shares = [
            float(block.double().mean()) for block in wrong[top : top + height].split(width, dim=1)
        ]
        picture.append("".join(map(_letter, shares)))
    share = wrong.double()
    by_row = [float(share[i::PERIOD].mean()) for i in range(min(PERIOD, rows))]
    by_column = [float(share[:, i::PERIOD].mean()) for i in range(min(PERIOD, columns))]
    first = [
        f"[{i}, {j}] {got[i, j]:.6g}, should be {want[i, j]:.6g}"
        for i, j in wrong.nonzero()[:FIRST].tolist()
    ]
    return {
        "block": [height, width],
        "map": picture,
        "rows_mod_8": "".join(map(_letter, by_row)),
        "columns_mod_8": "".join(map(_letter, by_column)),
        "first": first,
    }


def _block(size: int, most: int) -> int:
    block = 8
    while -(-size // block) > most:
        block *= 2
    return block


def _letter(share: float) -> str:
    return "." if share == 0 else "#" if share == 1 else str(max(1, min(9, int(10 * share))))
