"""The arguments of an update as the kernels take them: contiguous, ids int64 or int32.

Only batches are copied, never the state. Arguments that would need a guess are refused, with the
line that mends them.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.pool_stats.contract import ID_DTYPES, LOGIT_DTYPES, check_tensor

_FLOATS = {"float16", "float32", "float64"}


def as_ids(sample_ids: Any, device: torch.device) -> Tensor:
    """Return sample ids as an int64 or int32 ``(batch,)`` tensor on ``device``.

    Takes tensors and arrays of any integer dtype, lists, ranges, pandas Series (by position).

    Raises
    ------
    ValueError
        They are not one-dimensional, not integers, or do not fit into int64.
    TypeError
        They are none of the above.

    >>> as_ids([3, 1], torch.device("cpu")), as_ids(np.array([7], np.uint8), torch.device("cpu"))
    (tensor([3, 1]), tensor([7]))
    """
    if not isinstance(sample_ids, Tensor):
        sample_ids = torch.from_numpy(_integers(sample_ids))
    ids = _resolved(sample_ids)
    check_addressable("sample_ids", ids)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.ndim != 1:
        cure = "; pass sample_ids.long()" if ids.is_floating_point() and ids.ndim == 1 else ""
        cure = "; pass mask.nonzero().squeeze(1)" if ids.dtype == torch.bool else cure
        cure = "; pass sample_ids.flatten()" if ids.ndim != 1 else cure
        raise ValueError(
            f"sample_ids must be (batch,) integers, got {tuple(ids.shape)} {ids.dtype}{cure}"
        )
    if ids.dtype not in ID_DTYPES:
        if ids.dtype == torch.uint64 and bool((ids.view(torch.int64) < 0).any()):
            raise ValueError("sample_ids must be below 2^63, got larger ones in torch.uint64")
        ids = ids.to(torch.int64)
    return (ids if ids.is_meta else ids.to(device)).contiguous()


def as_targets(targets: Any, rows: int, device: torch.device) -> Tensor:
    """Return targets as an int64 ``(batch,)`` tensor on ``device``.

    Takes what `as_ids` takes.

    Raises
    ------
    ValueError
        They are not one class per row.
    TypeError
        They are no tensor, array or list.

    >>> as_targets([3, -100], 2, torch.device("cpu"))
    tensor([   3, -100])
    """
    if (
        type(targets) is Tensor
        and targets.dtype is torch.int64
        and targets.layout is torch.strided
        and targets.shape == (rows,)
        and targets.device == device
        and targets.is_contiguous()
    ):
        return targets  # as nearly all are
    shape = tuple(getattr(targets, "shape", ()))
    if len(shape) == 2:
        raise ValueError(
            f"targets must be (batch,) class numbers, got {shape}: of one-hot targets pass "
            "targets.argmax(1); multi-hot ones are of a multi-label problem, whose outputs "
            "PoolStats(..., activation='sigmoid') takes, and which has no training dynamics"
        )
    try:
        targets = as_ids(targets, device)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("sample_ids", "targets")) from None
    if len(targets) != rows:
        raise ValueError(f"targets must be (batch,) = ({rows},), got {tuple(targets.shape)}")
    return targets.to(torch.int64)


def as_floats(name: str, array: Any) -> Tensor:
    """Return logits, features or weights as a contiguous tensor, copied only if need be.

    Raises
    ------
    ValueError
        They are not floating point.
    TypeError
        They are not a tensor or a NumPy array.

    >>> as_floats("logits", np.zeros((2, 3), np.float32)).shape
    torch.Size([2, 3])
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask, got a masked array; pass {name}.filled(...)")
    if isinstance(array, np.ndarray):
        if array.dtype.name not in _FLOATS:
            raise ValueError(
                f"{name} must be floating point, got {array.dtype}; pass {name}.astype(np.float32)"
            )
        if not (array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative):
            array = array.astype(array.dtype.newbyteorder("="), order="C")  # a copy of the batch
        return torch.from_numpy(array)
    if not isinstance(array, Tensor):
        kind = f"{type(array).__module__}.{type(array).__name__}".removeprefix("builtins.")
        raise TypeError(
            f"{name} must be a torch.Tensor or a NumPy array, got {kind}; pass "
            f"torch.as_tensor({name})"
        )
    check_tensor(name, array)
    tensor = _resolved(array)
    check_addressable(name, tensor)
    if tensor.dtype not in LOGIT_DTYPES:
        raise ValueError(
            f"{name} must be float32 or float16 or bfloat16 or float64, got {tensor.dtype}; pass "
            f"{name}.float()"
        )
    return tensor.contiguous()


def as_store(name: str, array: Any) -> Tensor:
    """Return the features of all samples as a tensor, never copied; a read-only map will do.

    Raises
    ------
    ValueError, TypeError
        As `as_floats` does, or they would have to be copied.

    >>> as_store("features", np.zeros((2, 3), np.float16)).dtype
    torch.float16
    """
    if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        if array.dtype.name in _FLOATS and array.dtype.isnative and array.flags.c_contiguous:
            with warnings.catch_warnings():  # of a read-only array; it is only read
                warnings.simplefilter("ignore", UserWarning)
                return torch.from_numpy(array)
        if array.dtype.name in _FLOATS:
            raise ValueError(
                f"{name} must be contiguous and in the machine's byte order with by_id=True, "
                "since it is read in place"
            )
    if isinstance(array, Tensor) and array.layout is torch.strided and not array.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous with by_id=True, since it is read in place, got shape "
            f"{tuple(array.shape)} with strides {array.stride()}"
        )
    return as_floats(name, array)


def _resolved(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy if it is a negated view, whose memory has the other sign."""
    if torch.compiler.is_compiling() or tensor.layout is not torch.strided:
        return tensor
    return tensor.resolve_neg()


def _integers(sample_ids: Any) -> np.ndarray:
    """Return ids that are not a tensor as an int64 ``(batch,)`` array."""
    if isinstance(sample_ids, np.ma.MaskedArray):
        raise TypeError("sample_ids must have no mask, got a masked array; pass .filled(...)")
    if isinstance(sample_ids, str | bytes | dict | set | frozenset):
        raise TypeError(f"sample_ids must be integers in order, got {type(sample_ids).__name__}")
    try:
        array = np.asarray(sample_ids)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"sample_ids must be (batch,) integers, got {error}") from None
    if array.shape == (0,):
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        given = type(sample_ids).__name__
        if array.ndim == 0 and array.dtype.kind not in "iu":
            raise TypeError(f"sample_ids must be a tensor, an array or a list, got {given}")
        raise ValueError(
            f"sample_ids must be (batch,) integers, got {given} of shape {array.shape}, "
            f"{array.dtype}"
        )
    if array.dtype.kind == "u" and int(array.max()) >= 2**63:
        raise ValueError(f"sample_ids must be below 2^63, got {int(array.max())}")
    return array.astype(np.int64, order="C")
