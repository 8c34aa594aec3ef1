"""A batch as people have it becomes one as the kernels take it: ids of any kind, any strides.

What is copied is a batch, never the state. What would need a guess is refused with the line that
mends it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.pool_stats.contract import ID_DTYPES, LOGIT_DTYPES, check_tensor

_FLOATS = {"float16", "float32", "float64"}


def as_ids(sample_ids: Any, device: torch.device) -> Tensor:
    """Return sample ids, given as integers of any kind, as (batch,) int64 or int32 on ``device``.

    Tensors and arrays of any integer dtype, lists, ranges, pandas Series (by position).

    Raises
    ------
    ValueError
        They have another number of axes, are no integers or leave int64.
    TypeError
        They are nothing of the above.

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


def as_floats(name: str, array: Any) -> Tensor:
    """Return logits, features or weights as a contiguous tensor: a copy where they are none.

    Raises
    ------
    ValueError
        They hold no floating-point numbers.
    TypeError
        They are neither a tensor nor a NumPy array.

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


def _resolved(tensor: Tensor) -> Tensor:
    """Return a copy with the values of a negated view, which lie elsewhere than in memory."""
    if torch.compiler.is_compiling() or tensor.layout is not torch.strided:
        return tensor
    return tensor.resolve_neg()  # itself, where the bit is not set


def _integers(sample_ids: Any) -> np.ndarray:
    """Return ids that are no tensor as (batch,) int64."""
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
