"""What goes into the dense discrepancy, checked."""

import torch
from torch import Tensor

from dynal_fast.ops.addressable import check_addressable

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_maps(logits: Tensor, other: Tensor) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless the kernels take the two maps as they are."""
    for name, tensor in (("logits", logits), ("other", other)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        check_addressable(name, tensor)
        if tensor.ndim != 4 or tensor.shape[1] < 2 or 0 in tensor.shape[2:]:
            raise ValueError(
                f"{name} must be (batch, classes >= 2, height, width), got {tuple(tensor.shape)}"
            )
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name} must be float32, float16 or bfloat16, got {tensor.dtype}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous; pass {name}.contiguous()")
    for attribute in ("shape", "dtype", "device"):
        mine, theirs = getattr(logits, attribute), getattr(other, attribute)
        if mine != theirs:
            raise ValueError(f"other must have the {attribute} of logits: {mine}, got {theirs}")
