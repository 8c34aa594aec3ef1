"""``dense_discrepancy`` in torch's own operations, one image at a time to bound the memory."""

import torch
from torch import Tensor


def dense_discrepancy(logits: Tensor, other: Tensor) -> Tensor:
    """Return (batch,) float32; a non-finite logit makes its image NaN."""
    values = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    for i, (x, y) in enumerate(zip(logits.detach().float(), other.detach().float(), strict=True)):
        difference = torch.softmax(x, 0) - torch.softmax(y, 0)
        # minus infinity passes through a softmax unseen; times 0 it does not
        non_finite = (x * 0).sum() + (y * 0).sum()
        values[i] = difference.square().sum(0).mean() + non_finite
    return values
