"""The primitives by their definition, in float64 on the CPU: what those of every device must do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import contract, highest, reference
from dynal_fast.ops.farthest_first.contract import Array, Rows
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, Points
from dynal_fast.ops.farthest_first.products import OuterProducts, left_exponent

Measure = Callable[[Rows, str], Points]


class ReferenceKernels(Kernels[Points]):
    """Bounds are as loose as those of a float32 matrix product may be."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.rounding = reference.COSINE_STEP if metric == "cosine" else 0.0

    def points(self, rows: Rows, name: str) -> Points:
        if rows.right is not None:
            return products_of(self.points, rows, name)
        array, squares, largest = as_numpy(rows.array), np.empty(rows.size), 0.0
        for tile in reference.tiles(rows.size, rows.columns):
            with np.errstate(over="ignore"):
                squared = (array[tile].astype(np.float64) ** 2).sum(axis=1)
            bad = contract.bad_squared_norms(squared, self.metric)
            if bad.any():
                at = int(np.argmax(bad))
                raise contract.bad_row(name, tile.start + at, float(squared[at]))
            squares[tile] = squared
            largest = max(largest, float(np.abs(array[tile].astype(np.float64)).max()))
        measured = torch.from_numpy(squares)
        scales = torch.empty(0, dtype=torch.float64)
        return Points(rows, measured.float(), scales, measured, largest)

    def scaled(self, points: Points, exponent: int) -> Points:
        norms = (points.squares * 4.0**exponent).float()
        return points._replace(norms=norms, exponent=exponent)

    def distances(
        self, x: Points, rows: Tensor, y: Points, centers: Tensor
    ) -> tuple[Tensor, Tensor]:
        value = torch.stack([self.values(x, rows, y, int(center)) for center in centers], dim=1)
        scale = 1.0 if self.metric == "cosine" else x.norms[rows][:, None] + y.norms[centers]
        return (value - 1e-5 * scale).clamp(min=0), value + 1e-5 * scale

    def bound(self, x: Points, y: Points, groups: Groups, bound: Tensor) -> None:
        for rows, centers in blocks(groups):
            _, upper = self.distances(x, rows, y, centers)
            bound[rows] = torch.minimum(bound[rows], upper.amin(dim=1))

    def refresh(
        self,
        x: Points,
        y: Points,
        groups: Groups,
        first: Tensor | None,
        bound: Tensor,
        exact: Tensor,
    ) -> None:
        for rows, centers in blocks(groups):
            for position, center in enumerate(centers.tolist()):
                at = rows if first is None else rows[first <= position]
                exact[at] = torch.minimum(exact[at], self.values(x, at, y, center))

    def assign(
        self, x: Points, y: Points, groups: Groups, ranks: Tensor, bound: Tensor, keys: Tensor
    ) -> None:
        for rows, centers in blocks(groups):
            for center in centers.tolist():
                values = self.values(x, rows, y, center)
                found = (values.view(torch.int32).long() << 32) + int(ranks[center])
                keys[rows] = torch.minimum(keys[rows], found)

    def traverse(
        self, x: Points, head: Tensor, outside: int, exact: Tensor, picks: Tensor, values: Tensor
    ) -> int:
        for count in range(len(picks)):
            order = highest.keys(exact[head], head)
            if int(order.max()) <= max(outside, -1):
                return count
            pick = int(head[order.argmax()])
            picks[count], values[count] = pick, exact[pick]
            exact[head] = torch.minimum(exact[head], self.values(x, head, x, pick))
            exact[pick] = -torch.inf
        return len(picks)

    def values(self, x: Points, rows: Tensor, y: Points, center: int) -> Tensor:
        """Decision values (rows,) float32 to one row of ``y``."""
        selected, other = values_of(x.rows)[rows.numpy()], values_of(y.rows)[center]
        values = reference.decision_values(selected, other, self.metric, x.exponent)
        return torch.from_numpy(values)


def blocks(groups: Groups) -> list[tuple[Tensor, Tensor]]:
    """The (rows, centers) of each group that has both."""
    starts = [
        torch.cat([ends.new_zeros(1), ends]) for ends in (groups.row_ends, groups.center_ends)
    ]
    rows = groups.rows.split(starts[0].diff().tolist())
    centers = groups.centers.split(starts[1].diff().tolist())
    return [pair for pair in zip(rows, centers, strict=True) if all(map(len, pair))]


def products_of(measure: Measure, rows: Rows, name: str) -> Points:
    """Measure outer products by their factors, each of which ``measure`` measures and checks."""
    assert rows.right is not None
    left = measure(replace(rows, right=None), f"{name}.left")
    right = measure(rows.right, f"{name}.right")
    for factor in (left, right):
        contract.check_smallest(factor.largest, factor.rows)
    squares = left.squares * right.squares
    bad = contract.bad_squared_norms(squares.numpy(), "euclidean")
    if bad.any():
        at = int(np.argmax(bad))
        raise contract.bad_row(name, at, float(squares[at]))
    return Points(
        rows,
        squares.float(),
        left.scales,
        squares,
        left.largest * right.largest,
        left_exponent=left_exponent(left.largest, rows.columns),
    )


def values_of(rows: Rows) -> reference.Points:
    """The values of a matrix, or of the two factors of outer products, as NumPy arrays."""
    if rows.right is None:
        return as_numpy(rows.array)
    return OuterProducts(as_numpy(rows.array), as_numpy(rows.right.array))


def as_numpy(array: Array) -> np.ndarray:
    """The same values as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
