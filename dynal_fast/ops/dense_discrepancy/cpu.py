"""``dense_discrepancy`` on the CPU: the compiled kernel, given addresses, image by image.

Ctrl-C has to wait for one image.
"""

import torch
from torch import Tensor

from dynal_fast._extension import load
from dynal_fast.ops import dtypes
from dynal_fast.threads import kernel_threads


def dense_discrepancy(logits: Tensor, other: Tensor) -> Tensor:
    """Return (batch,) float32; a non-finite logit makes its image NaN."""
    batch, classes, height, width = logits.shape
    discrepancy = load().dense_discrepancy
    image = classes * height * width * logits.element_size()
    values = [
        discrepancy(
            logits.data_ptr() + i * image,
            other.data_ptr() + i * image,
            dtypes.code(logits.dtype),
            classes,
            height * width,
            kernel_threads(),
        )
        for i in range(batch)
    ]
    return torch.tensor(values, dtype=torch.float32, device=logits.device)
