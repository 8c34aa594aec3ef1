"""How far two models disagree about each image, for dense outputs (segmentation): one number each.

``p`` and ``q`` are the softmax over classes of two models' logits at one pixel; an image gets the
mean over its pixels of ``||p - q||_2^2``. This is the squared output discrepancy of eq. 1 (and, for
the models of two cycles, eq. 5) of "Semi-Supervised Active Learning with Temporal Output
Discrepancy" with the whole map as the output, divided by the number of pixels so that images of
different size compare. An image with a non-finite logit gets NaN.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dynal_fast._triton import require_triton
from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.dense_discrepancy import cpu, reference

__all__ = ["BACKENDS", "dense_discrepancy"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _triton() -> Callable[[Tensor, Tensor], Tensor]:
    require_triton()
    from dynal_fast.ops.dense_discrepancy import triton

    return triton.dense_discrepancy


# name -> loader of the implementation
BACKENDS: dict[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]] = {
    "reference": lambda: reference.dense_discrepancy,
    "cpu": lambda: cpu.dense_discrepancy,
    "triton": _triton,
}
DEVICE_BACKEND = {"cpu": "cpu", "cuda": "triton"}


def dense_discrepancy(logits: Tensor, other: Tensor, *, backend: str | None = None) -> Tensor:
    """Return the mean over pixels of the squared distance between two models' softmax outputs.

    Parameters
    ----------
    logits, other
        (batch, classes, height, width) float32, float16 or bfloat16, contiguous: what the two
        models say about the same images.
    backend
        ``"reference"`` (NumPy, float64), ``"cpu"`` or ``"triton"``; by default the device's.

    Returns
    -------
    Tensor
        (batch,) float32 on the device of ``logits``, in [0, 2]; NaN for an image with a non-finite
        logit.

    Raises
    ------
    ValueError
        The two differ in shape, dtype or device, or are not what is said above or not where the
        backend needs them.
    TypeError
        One is no tensor.
    ImportError
        The tensors are on a CUDA device, and Triton is missing or too old.

    Examples
    --------
    >>> logits = torch.zeros(1, 2, 1, 2)
    >>> other = torch.tensor([[[[0.0, 100.0]], [[0.0, 0.0]]]])  # surely class 0 at the second pixel
    >>> dense_discrepancy(logits, other)  # (0 + 0.5) / 2
    tensor([0.2500])
    """
    _check(logits, other)
    if backend is None:
        return torch.ops.dynal_fast.dense_discrepancy(logits, other)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {sorted(BACKENDS)}, got {backend!r}")
    if backend == "cpu" and not logits.is_cpu:
        raise ValueError(f'backend "cpu" needs tensors on the CPU, got {logits.device}')
    return BACKENDS[backend]()(logits, other)


def _check(logits: Tensor, other: Tensor) -> None:
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


def _register() -> None:
    operator = "dynal_fast::dense_discrepancy"
    torch.library.define(operator, "(Tensor logits, Tensor other) -> Tensor")
    torch.library.register_fake(
        operator, lambda logits, other: logits.new_empty(len(logits), dtype=torch.float32)
    )
    for device, backend in DEVICE_BACKEND.items():
        torch.library.impl(
            operator, device, lambda logits, other, load=BACKENDS[backend]: load()(logits, other)
        )


_register()
