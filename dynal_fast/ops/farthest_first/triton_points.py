"""Embeddings on the device, measured: what the filter and the exact kernels know of each row."""

import struct
import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.products import left_exponent
from dynal_fast.ops.farthest_first.triton_filter import measure
from dynal_fast.ops.launch import launch

UNSCALED = range(31)  # exponents of the filter that outer products do without


class TritonPoints(NamedTuple):
    """Embeddings on the device, with what the kernels need to know of each row.

    Of outer products: the first factors, but for what is said to be of both.
    """

    rows: Rows  # (n, d); of both
    array: Tensor  # (n, d): the same
    norms: Tensor  # (n,) float32: squared norms; cosine: inverse norms; of both, scaled
    tails: Tensor  # (n,) float32: the norm of what the matrix units may cut off of a row; of both:
    # the sum of what they may cut off of each factor, relative to its norm
    grains: Tensor  # (n,) float32: a power of two that divides every element
    largest: float  # the largest magnitude of an element; of both
    exponent: int = 0  # decision values are in units of 4^-exponent (reference.py)
    filter_exponent: int = 0  # the filter multiplies rows by two to the power of this
    right: "TritonPoints | None" = None  # of outer products: the second factors

    @property
    def raised(self) -> float:
        """The filter multiplies distances by its square; of outer products, their dot products."""
        seen = self.filter_exponent + (0 if self.right is None else self.right.filter_exponent)
        return 2.0 ** (self.exponent - seen)


def measured(rows: Rows, name: str, cosine: bool) -> TritonPoints:
    """Return the points with what is known of them; the host waits for the device once or twice.

    Raises
    ------
    ValueError
        A row is not finite, or cannot be used with the metric; the message has ``name``.
    """
    if rows.right is not None:
        return measured_products(rows, rows.right, name)
    contract.check_contiguous(rows, name)
    array = rows.array
    if isinstance(array, np.ndarray):
        with warnings.catch_warnings():  # about read-only arrays: nothing is written
            warnings.simplefilter("ignore")
            array = torch.from_numpy(array)
    known, found = measure_rows(array, rows.stride, cosine)
    row, largest = found.tolist()
    if row < len(array):
        raise contract.bad_row(name, row, float((array[row].double() ** 2).sum()))
    norms, tails, grains = known
    return TritonPoints(rows, array, norms, tails, grains, float_of(largest))


def measured_products(rows: Rows, second: Rows, name: str) -> TritonPoints:
    """Measure outer products by their factors; most need no scaling by the filter."""
    left = measured(replace(rows, right=None), f"{name}.left", False)
    right = measured(second, f"{name}.right", False)
    for factor in (left, right):
        contract.check_smallest(factor.largest, factor.rows)
    left, right = at_filter_scale(left), at_filter_scale(right)
    exponent = left.filter_exponent + right.filter_exponent
    squares = left.norms.double() * right.norms.double()
    bad = ~(squares * 4.0**-exponent <= contract.MAX_SQUARED_NORM)
    if bad.any():
        at = int(bad.int().argmax())
        raise contract.bad_row(name, at, float(squares[at] * 4.0**-exponent))
    tails = (relative(left) + relative(right)) * (1 + 2.0**-20)
    if all(factor.filter_exponent in UNSCALED for factor in (left, right)):
        left, right = (factor._replace(filter_exponent=0) for factor in (left, right))
    return left._replace(
        rows=rows,
        norms=squares.float(),
        tails=tails,
        largest=left.largest * right.largest,
        exponent=exponent,
        right=right,
    )


def at_filter_scale(factor: TritonPoints) -> TritonPoints:
    """Measure a factor so scaled that its norms stay below 2^30."""
    exponent = max(-126, min(left_exponent(factor.largest, factor.rows.columns), 126))
    known, _ = measure_rows(factor.array, factor.rows.stride, False, exponent)
    norms, tails, _ = known
    return factor._replace(norms=norms, tails=tails, filter_exponent=exponent)


def relative(factor: TritonPoints) -> Tensor:
    """What the units may cut off of a row, of its norm: (n,); 4 where that is next to nothing."""
    zero, short = factor.grains == torch.inf, factor.norms < 2.0**-120
    share = torch.where(short, 4.0, factor.tails / factor.norms.clamp(min=2.0**-120).sqrt())
    return torch.where(zero, 0.0, share)


def rescaled(points: TritonPoints, exponent: int, cosine: bool) -> TritonPoints:
    """Return the points for decision values in units of 4^-exponent."""
    if points.right is not None:
        norms = points.norms.double() * 4.0 ** (exponent - points.exponent)
        return points._replace(norms=norms.float(), exponent=exponent)
    # The filter needs scaled rows only where squared norms come near the ends of float32.
    filtered = 0 if 0 <= exponent <= 90 else exponent
    if points.filter_exponent != filtered:
        known, _ = measure_rows(points.array, points.rows.stride, cosine, filtered)
        norms, tails, _ = known
        points = points._replace(norms=norms, tails=tails, filter_exponent=filtered)
    return points._replace(exponent=0 if cosine else exponent)


def measure_rows(
    array: Tensor, stride: int, cosine: bool, exponent: int = 0
) -> tuple[Tensor, Tensor]:
    """Measure ``array`` (n, d) times 2^exponent: norms, tails and grains (3, n), and ``found``.

    ``found`` (2,) int64: the first bad row, or n; the bits of the largest magnitude, a float64.
    """
    n, d = array.shape
    known = torch.empty((3, n), dtype=torch.float32, device=array.device)
    found = torch.tensor([n, 0], device=array.device)
    if n:
        scale = 2.0**exponent
        grid = (-(-n // 8),)
        sizes = cosine, 8, 128
        launch(measure, grid, array, stride, n, d, *known, found, scale, *sizes, registers=255)
    return known, found


def float_of(bits: int) -> float:
    """The float64 that has these bits."""
    return float(struct.unpack("d", struct.pack("q", bits))[0])
