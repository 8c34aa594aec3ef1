"""``dense_discrepancy`` in Triton: which kernel runs. Figures are in ``README.md``."""

import torch
import triton
from torch import Tensor

from dynal_fast.ops.dense_discrepancy.triton_kernels import long_columns, whole_columns
from dynal_fast.ops.launch import launch

WHOLE_COLUMN = 256
TILE_OF_LONG_COLUMN = 32
ELEMENTS = 4096
BLOCKS_PER_PROGRAM = 4


def dense_discrepancy(logits: Tensor, other: Tensor) -> Tensor:
    """Return (batch,) float32 for CUDA tensors, or CPU ones under Triton's interpreter."""
    batch, num_classes, height, width = logits.shape
    pixels = height * width
    if num_classes <= WHOLE_COLUMN:
        kernel, tile = whole_columns, triton.next_power_of_2(num_classes)
        block = min(128, ELEMENTS // tile)
    else:
        kernel, tile, block = long_columns, TILE_OF_LONG_COLUMN, 32
    programs = triton.cdiv(pixels, block * BLOCKS_PER_PROGRAM)
    partial = torch.empty(batch, programs, dtype=torch.float32, device=logits.device)
    if batch:
        launch(
            kernel,
            (programs, batch),
            logits,
            other,
            partial,
            pixels,
            num_classes,
            NUM_CLASSES=num_classes,
            TILE=tile,
            PIXELS=block,
            BLOCKS=BLOCKS_PER_PROGRAM,
            num_warps=max(1, min(8, tile * block // 256)),
        )
    return partial.sum(1) / pixels  # summed in a fixed order: the same on every run
