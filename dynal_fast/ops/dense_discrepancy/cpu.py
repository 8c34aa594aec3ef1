"""``dense_discrepancy`` on the CPU: a call of the compiled kernel for each image.

Ctrl-C is seen between images.
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
            logits=logits.data_ptr() + i * image,
            other=other.data_ptr() + i * image,
            dtype=dtypes.code(logits.dtype),
            classes=classes,
            pixels=height * width,
            threads=kernel_threads(),
        )
        for i in range(batch)
    ]
    return torch.tensor(values, dtype=torch.float32, device=logits.device)
