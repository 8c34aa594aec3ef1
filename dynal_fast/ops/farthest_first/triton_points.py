"""Embeddings on the device, measured: what the filter and the exact kernels know of each row."""

import struct
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.triton_filter import measure
from dynal_fast.ops.launch import launch


class TritonPoints(NamedTuple):
    """Embeddings on the device, with what the kernels need to know of each row."""

    rows: Rows  # (n, d)
    array: Tensor  # (n, d): the same
    norms: Tensor  # (n,) float32: squared norms; cosine: inverse norms
    tails: Tensor  # (n,) float32: the norm of what the matrix units may cut off of a row
    grains: Tensor  # (n,) float32: a power of two that divides every element
    largest: float  # the largest magnitude of an element
    exponent: int = 0  # decision values are in units of 4^-exponent (reference.py)
    filter_exponent: int = 0  # the filter multiplies rows by two to the power of this


def measured(rows: Rows, name: str, cosine: bool) -> TritonPoints:
    """Return the points with what is known of them; the host waits for the device once.

    Raises
    ------
    ValueError
        A row is not finite, or cannot be used with the metric; the message has ``name``.
    """
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


def rescaled(points: TritonPoints, exponent: int, cosine: bool) -> TritonPoints:
    """Return the points for decision values in units of 4^-exponent."""
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
