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
from dynal_fast.ops.backends import Backends, register
from dynal_fast.ops.dense_discrepancy import cpu, reference
from dynal_fast.ops.dense_discrepancy.contract import check_maps

__all__ = ["BACKENDS", "dense_discrepancy"]


Implementation = Callable[[Tensor, Tensor], Tensor]


def _triton() -> Implementation:
    require_triton()
    from dynal_fast.ops.dense_discrepancy import triton

    return triton.dense_discrepancy


BACKENDS: Backends[Implementation] = Backends(
    {
        "reference": lambda: reference.dense_discrepancy,
        "cpu": lambda: cpu.dense_discrepancy,
        "triton": _triton,
    },
    defaults={"cpu": "cpu", "cuda": "triton"},
    devices={"cpu": ("cpu",)},
)


def dense_discrepancy(logits: Tensor, other: Tensor, *, backend: str | None = None) -> Tensor:
    """Return the mean over pixels of the squared distance between two models' softmax outputs.

    Parameters
    ----------
    logits, other
        (batch, classes, height, width) float32, float16 or bfloat16, contiguous: what the two
        models say about the same images. A pixel has one class; labels that do not exclude each
        other, trained with sigmoids, are another problem, which the logits do not tell.
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
    check_maps(logits, other)
    if backend is None:
        return torch.ops.dynal_fast.dense_discrepancy(logits, other)
    BACKENDS.check(backend, logits.device)
    return BACKENDS.load(backend)(logits, other)


def _operator(backend: str) -> Implementation:
    return lambda logits, other: BACKENDS.load(backend)(logits, other)


register(
    "dense_discrepancy",
    "(Tensor logits, Tensor other) -> Tensor",
    lambda logits, other: logits.new_empty(len(logits), dtype=torch.float32),
    {device: _operator(backend) for device, backend in BACKENDS.defaults.items()},
)
