"""What goes into a traversal and what comes out, and the checks of it."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from dynal_fast.ops import dtypes
from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.farthest_first.arrays import Array, as_array, check_exact_integers
from dynal_fast.ops.farthest_first.products import OuterProducts

DTYPES = {dtypes.name(dtype): dtype for dtype in dtypes.DTYPES}
INTEGERS = tuple(name for name, dtype in DTYPES.items() if not dtype.is_floating_point)
ON_CPU_ONLY = ("uint16", "uint32", "uint64")  # torch has few kernels for them
METRICS = ("euclidean", "cosine")


@dataclass(frozen=True)
class Rows:
    """A matrix of samples as the backends take it: address, strides, dtype."""

    array: Array  # (rows, columns), as the caller passed it
    dtype: torch.dtype
    device: torch.device
    address: int
    row_bytes: int  # from one row to the next, of any sign
    column_bytes: int  # from one column to the next
    swapped: bool = False  # in the byte order of other machines
    right: "Rows | None" = None  # of outer products: the second factors

    @property
    def size(self) -> int:
        return int(self.array.shape[0])

    @property
    def columns(self) -> int:
        return int(self.array.shape[1])

    @property
    def held(self) -> int:
        """Numbers that are held of a sample: of outer products those of both factors."""
        return self.columns + (0 if self.right is None else self.right.columns)

    @property
    def dimensions(self) -> int:
        """Dimensions of the space: those of the outer products."""
        return self.columns * (1 if self.right is None else self.right.columns)

    @property
    def stride(self) -> int:
        """Elements from one row to the next; for rows that passed `check_contiguous`."""
        return self.row_bytes // self.dtype.itemsize


class Answer(NamedTuple):
    """Picks in order, with decision values as ``reference.py`` defines them."""

    indices: torch.Tensor  # (k,) int64
    values: torch.Tensor  # (k,) float32
    left: float  # the largest decision value among the candidates that remain, 0 if none
    exponent: int  # squared distances are in units of 4^-exponent


class Traversal(NamedTuple):
    """Samples in the order in which they were picked.

    ``indices`` (k,) int64: pool indices. ``distances`` (k,) float32: the distance of each pick to
    the nearest labeled or earlier picked sample when it was picked, ``inf`` for a first pick with
    nothing labeled; they never increase after a forced start. ``radius``: the largest distance
    from a remaining pool sample to the nearest labeled or picked one (0 when none remains).
    """

    indices: torch.Tensor
    distances: torch.Tensor
    radius: float


class AssignmentProblem(NamedTuple):
    """An assignment; all is checked but the values of the embeddings."""

    pool: Rows  # (n, d)
    labeled: Rows | None  # (m, d): centers outside the pool, which come first
    indices: torch.Tensor  # int64: centers of the pool, in order
    metric: str


class AssignmentAnswer(NamedTuple):
    """The position of the nearest center of each row, -1 where there is none."""

    nearest: torch.Tensor  # (n,) int64
    values: torch.Tensor  # (n,) float32: decision values, inf where there is none
    exponent: int  # squared distances are in units of 4^-exponent


def as_distances(values: torch.Tensor, exponent: int) -> torch.Tensor:
    """Distances (k,) float32 of squared ones in units of 4^-exponent."""
    return (values.double().sqrt() * 2.0**-exponent).float()


# A backend calls reached(picks or samples so far) now and then; it may raise KeyboardInterrupt.
Reached = Callable[[int], None]


MOST_ROWS = 2**31 - 1  # of one matrix: kernels take 32 bits for row numbers


def in_matrices(pool: Any, most: int = MOST_ROWS) -> list[Any]:
    """Views of a pool, one behind the other, that have at most ``most`` rows each."""
    if getattr(pool, "ndim", 0) != 2 or getattr(pool, "is_nested", False) or len(pool) <= most:
        return [pool]
    return [pool[begin : begin + most] for begin in range(0, len(pool), most)]


def as_rows(value: Any, name: str) -> Rows:
    """Check embeddings, a matrix or two factors, and describe them; backends check values."""
    if isinstance(value, OuterProducts):
        return _as_products(value, name)
    array = as_array(value, name)
    if isinstance(array, torch.Tensor):
        check_addressable(name, array)
        array = array.detach()
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape (samples, dimensions) with at least one dimension, "
            f"got {tuple(array.shape)}{_two_axes(array, name)}"
        )
    rows, columns = array.shape
    if rows > MOST_ROWS:
        raise ValueError(f"{name} must have fewer than 2^31 samples here, got {rows}")
    if isinstance(array, np.ndarray):
        array = array.view(np.uint8) if array.dtype == np.bool_ else array
        dtype = DTYPES.get(array.dtype.newbyteorder("=").name)
        device, address = torch.device("cpu"), array.__array_interface__["data"][0]
        strides, swapped = array.strides, not array.dtype.isnative
    else:
        array = array.view(torch.uint8) if array.dtype == torch.bool else array
        dtype, swapped = DTYPES.get(dtypes.name(array.dtype)), False
        device, address = array.device, array.data_ptr()
        strides = tuple(stride * array.itemsize for stride in array.stride())
    if dtype is None:
        raise ValueError(
            f"{name} must be float16, bfloat16, float32, float64 or integers, got {array.dtype}; "
            "convert it, for example with .astype('float32') or .float()"
        )
    if dtypes.name(dtype) in ON_CPU_ONLY and device.type != "cpu":
        raise ValueError(
            f"{name} must hold signed integers or bytes on {device.type}, got {dtype}; convert it "
            "with .to(torch.int64)"
        )
    if dtype in (torch.int64, torch.uint64) and device.type != "meta":
        check_exact_integers(array, name)
    row, column = strides
    column = column if columns > 1 else dtype.itemsize
    row = row if rows > 1 else columns * dtype.itemsize
    return Rows(array, dtype, device, address, row, column, swapped)


def _as_products(value: OuterProducts, name: str) -> Rows:
    left, right = as_rows(value.left, f"{name}.left"), as_rows(value.right, f"{name}.right")
    if left.size != right.size or left.device != right.device:
        raise ValueError(
            f"{name} must have two factors of the same samples on one device, got left "
            f"{tuple(left.array.shape)} on {left.device} and right {tuple(right.array.shape)} on "
            f"{right.device}"
        )
    return replace(left, right=right)


def _two_axes(array: Array, name: str) -> str:
    if array.ndim == 1:
        return f"; {name}[:, None] has one dimension, {name}[None] is one sample"
    return f"; {name}.reshape(len({name}), -1) has two axes" if array.ndim > 2 else ""


def check_contiguous(rows: Rows, name: str) -> None:
    """Raise ``ValueError`` unless rows are contiguous and follow each other, as GPUs need them."""
    array, item = rows.array, rows.dtype.itemsize
    fix = "np.ascontiguousarray(...)" if isinstance(array, np.ndarray) else ".contiguous()"
    passed = f", got a view of shape {tuple(array.shape)}; pass a copy made with {fix}"
    if rows.size > 0 and rows.columns > 1 and (rows.column_bytes != item or rows.swapped):
        raise ValueError(f"{name} must have contiguous rows (unit stride) on this backend{passed}")
    if rows.size > 1 and (rows.row_bytes < 0 or rows.row_bytes % item):
        raise ValueError(
            f"{name} must have rows that follow each other in memory on this backend{passed}"
        )


def as_classes(labels: object, n: int) -> torch.Tensor:
    """Check the classes of ``n`` samples; return them on the CPU."""
    expected = f"labels must be {n} integers, one per row of embeddings"
    try:
        array = as_array(labels, "labels")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{expected}, got {type(labels).__name__}: {repr(labels)[:80]}") from None
    classes = array.detach() if isinstance(array, torch.Tensor) else np.array(array, order="C")
    layout = getattr(classes, "layout", torch.strided)
    integral = str(classes.dtype).removeprefix("torch.") in INTEGERS
    if isinstance(classes, np.ndarray) and classes.dtype.kind in "iu":
        classes, integral = classes.astype(np.int64), True
    if tuple(classes.shape) not in ((n,), (n, 1)) or not integral or layout != torch.strided:
        raise ValueError(
            f"{expected}, got shape {tuple(classes.shape)} of {classes.dtype} ({layout})"
        )
    return torch.as_tensor(classes).to("cpu", torch.int64).reshape(n)


def as_count(k: object, name: str, available: int, what: str) -> int:
    """Check a number of samples to take."""
    try:
        if isinstance(k, bool):
            raise TypeError
        count = operator.index(k)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {k!r}") from None
    if not 0 <= count <= available:
        raise ValueError(
            f"{name} must be between 0 and {available}, the number of {what}, got {count}"
        )
    return count


def check_labeled_rows(labeled: Rows, pool: Rows) -> None:
    if (labeled.right is None) != (pool.right is None):
        wanted, got = ("a matrix", "OuterProducts")[:: 1 if pool.right is None else -1]
        raise ValueError(f"labeled must be {wanted}, as pool is, got {got}")
    for own, other in ((labeled, pool), (labeled.right, pool.right)):
        if own is not None and other is not None and own.columns != other.columns:
            raise ValueError(
                f"labeled must have the pool's {other.columns} dimensions, got {own.columns}"
            )
    if labeled.device != pool.device:
        raise ValueError(
            f"labeled must be on the pool's device {pool.device}, got {labeled.device}"
        )


def check_metric(metric: str, pool: Rows) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
    if metric != "euclidean" and pool.right is not None:
        raise ValueError(f'metric must be "euclidean" for OuterProducts, got {metric!r}')


# Distances, up to 2|x|, must fit in float32, and so must the norms of centered rows.
MAX_SQUARED_NORM = 2.0**252
# Below this, products of two elements are not accurate in float64.
MIN_COSINE_SQUARED_NORM = 1e-280
# If no element is larger, distances of float64 rows underflow float32.
SMALLEST = 2.0**-126


def bad_squared_norms(norms: np.ndarray, metric: str) -> np.ndarray:
    """Which rows cannot be compared, by their float64 squared norms: (rows,) bool."""
    bad = ~(norms <= MAX_SQUARED_NORM)
    return bad | (norms < MIN_COSINE_SQUARED_NORM) if metric == "cosine" else bad


def bad_row(name: str, row: int, squared_norm: float) -> ValueError:
    """The error for a row that cannot be compared."""
    if squared_norm == 0:
        reason = "is zero or below 1e-162, so that it has no direction: cosine is undefined"
    elif squared_norm < MIN_COSINE_SQUARED_NORM:
        reason = f"has norm {squared_norm**0.5:.3g}, too small for cosine distance: rescale"
    elif np.isfinite(squared_norm):
        reason = f"has norm {squared_norm**0.5:.3g}, too large for float32 distances: rescale"
    else:
        reason = "holds a NaN, an infinity or values beyond 1e154"
    return ValueError(f"{name} row {row} {reason}")


def check_smallest(largest: float, *rows: Rows) -> None:
    """Raise ``ValueError`` for float64 rows whose distances would underflow float32."""
    parts = [factor for part in rows for factor in (part, part.right)]
    wide = any(part is not None and part.dtype == torch.float64 for part in parts)
    if wide and 0 < largest < SMALLEST:
        power = min(-math.frexp(largest)[1], 1000)
        raise ValueError(
            f"pool and labeled hold nothing larger than {largest:.3g}, so that distances underflow "
            f"float32: multiply both by a power of two, such as 2.0**{power}"
        )
