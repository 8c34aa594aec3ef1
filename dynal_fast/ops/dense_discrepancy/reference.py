"""The definition of ``dense_discrepancy`` in NumPy: float64, written like the formula."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynal_fast.ops.pool_stats.reference import softmax


def discrepancy_of_image(
    logits: NDArray[np.float64], other: NDArray[np.float64]
) -> float:  # (classes, height, width), twice
    p = softmax(logits.reshape(len(logits), -1).T)
    q = softmax(other.reshape(len(other), -1).T)
    return float(((p - q) ** 2).sum(axis=1).mean())


def dense_discrepancy(logits: Tensor, other: Tensor) -> Tensor:
    """``dense_discrepancy`` image by image."""
    values = []
    for x, y in zip(logits.detach().cpu().double(), other.detach().cpu().double(), strict=True):
        finite = torch.isfinite(x).all() and torch.isfinite(y).all()
        values.append(discrepancy_of_image(x.numpy(), y.numpy()) if finite else np.nan)
    return torch.tensor(values, dtype=torch.float32, device=logits.device)
