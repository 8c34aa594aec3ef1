"""The checks of ``farthest_first``: each raises here, saying what was expected and what came."""

import operator
from dataclasses import dataclass

import numpy as np
import torch

from dynal_fast.ops.addressable import check_addressable

Array = torch.Tensor | np.ndarray

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
METRICS = ("euclidean", "cosine")


@dataclass(frozen=True)
class Rows:
    """Samples as the backends take them: each row contiguous, rows ``stride`` elements apart."""

    array: Array  # (rows, columns), as the caller passed it: never converted, never copied
    dtype: torch.dtype
    device: torch.device
    stride: int
    address: int

    @property
    def size(self) -> int:
        return int(self.array.shape[0])

    @property
    def columns(self) -> int:
        return int(self.array.shape[1])


def as_rows(array: Array, name: str) -> Rows:
    """Check an embedding matrix and describe it without touching its values."""
    if not isinstance(array, (torch.Tensor, np.ndarray)):
        raise TypeError(
            f"{name} must be a torch.Tensor or a NumPy array, got {type(array).__name__}"
        )
    _check_unmasked(array, name)
    if isinstance(array, torch.Tensor) and array.layout != torch.strided:
        raise ValueError(
            f"{name} must be a dense tensor, got layout {array.layout}; convert it with .to_dense()"
        )
    if isinstance(array, torch.Tensor):
        check_addressable(name, array)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape (samples, dimensions) with at least one dimension, "
            f"got {tuple(array.shape)}"
        )
    if isinstance(array, np.ndarray):
        dtype = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}.get(
            array.dtype.name if array.dtype.isnative else "not native"
        )
        device, address = torch.device("cpu"), array.__array_interface__["data"][0]
        strides = tuple(s / max(array.itemsize, 1) for s in array.strides)
    else:
        array = array.detach()
        dtype = array.dtype if array.dtype in FLOATS else None
        device, address, strides = array.device, array.data_ptr(), array.stride()
    if dtype is None:
        raise ValueError(
            f"{name} must be float16, bfloat16, float32 or float64 in native byte order, "
            f"got {array.dtype}; convert it, for example with .astype('float32') or .float()"
        )
    rows, columns = array.shape
    if rows > 1 and (strides[0] < columns or strides[0] != int(strides[0])):
        raise ValueError(
            f"{name} must have rows that follow each other in memory{_contiguous(array)}"
        )
    if rows > 0 and columns > 1 and strides[1] != 1:
        raise ValueError(f"{name} must have contiguous rows (unit stride){_contiguous(array)}")
    if rows >= 2**31:
        raise ValueError(f"{name} must have fewer than 2^31 samples, got {rows}")
    return Rows(array, dtype, device, int(strides[0]) if rows > 1 else columns, address)


def _contiguous(array: Array) -> str:
    fix = "np.ascontiguousarray(...)" if isinstance(array, np.ndarray) else ".contiguous()"
    return f", got a view of shape {tuple(array.shape)}; pass a copy made with {fix}"


def _check_unmasked(array: object, name: str) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask, got a masked array; fill it with .filled(...)")


def as_labeled_indices(labeled: Array, n: int) -> torch.Tensor:
    """Check pool indices of labeled samples; return them sorted and distinct, int64."""
    _check_unmasked(labeled, "labeled")
    tensor = torch.as_tensor(np.array(labeled) if isinstance(labeled, np.ndarray) else labeled)
    tensor = tensor.detach().cpu()
    if tensor.numel() == 0:
        return tensor.to(torch.int64)
    if tensor.dtype in (*FLOATS, torch.bool) or tensor.is_complex():
        raise ValueError(
            f"labeled with one axis must hold integer pool indices, got {tensor.dtype}; embeddings "
            "of labeled samples have two axes (samples, dimensions)"
        )
    tensor = tensor.to(torch.int64)
    outside = tensor[(tensor < 0) | (tensor >= n)]
    if outside.numel():
        raise ValueError(f"labeled holds pool index {int(outside[0])}, outside [0, {n})")
    return torch.unique(tensor)


def as_classes(labels: object, n: int) -> torch.Tensor:
    """Check the class of each of ``n`` samples; return them on the CPU."""
    expected = f"labels must be {n} integers, one per row of embeddings"
    try:
        classes = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{expected}, got {type(labels).__name__}: {repr(labels)[:80]}") from None
    if (
        classes.shape != (n,)
        or classes.dtype in (*FLOATS, torch.bool)
        or classes.is_complex()
        or classes.layout != torch.strided
    ):
        raise ValueError(
            f"{expected}, got shape {tuple(classes.shape)} of {classes.dtype} ({classes.layout})"
        )
    return classes.cpu()


def as_count(k: object, name: str, available: int, what: str) -> int:
    """Check a number of samples to take."""
    try:
        count = operator.index(k)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {k!r}") from None
    if isinstance(k, bool) or not 0 <= count <= available:
        raise ValueError(
            f"{name} must be between 0 and {available}, the number of {what}, got {count}"
        )
    return count


def check_labeled_rows(labeled: Rows, pool: Rows) -> None:
    if labeled.columns != pool.columns:
        raise ValueError(
            f"labeled must have the pool's {pool.columns} dimensions, got {labeled.columns}"
        )
    if labeled.device != pool.device:
        raise ValueError(
            f"labeled must be on the pool's device {pool.device}, got {labeled.device}"
        )
    if labeled.dtype != pool.dtype:
        raise ValueError(f"labeled must have the pool's dtype {pool.dtype}, got {labeled.dtype}")


def check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")


# (2|x|)^2 bounds every squared distance between rows no longer than |x|: float32 must hold it.
MAX_SQUARED_NORM = float(np.finfo(np.float32).max) / 4
# Below this, products of two components are no longer accurate in float64.
MIN_COSINE_SQUARED_NORM = 1e-280


def bad_squared_norms(norms: np.ndarray, metric: str) -> np.ndarray:
    """Which rows, by their float64 squared norms, cannot be compared: (rows,) bool."""
    bad = ~(norms <= MAX_SQUARED_NORM)
    return bad | (norms < MIN_COSINE_SQUARED_NORM) if metric == "cosine" else bad


def bad_row(name: str, row: int, squared_norm: float) -> ValueError:
    """The error for a row that cannot be compared."""
    if squared_norm < MIN_COSINE_SQUARED_NORM:
        reason = "is zero, so that it has no direction: cosine distance is undefined"
    elif np.isfinite(squared_norm):
        reason = (
            f"has norm {squared_norm**0.5:.3g}, too large for float32 squared distances: rescale"
        )
    else:
        reason = "holds a NaN, an infinity or values beyond 1e154"
    return ValueError(f"{name} row {row} {reason}")
