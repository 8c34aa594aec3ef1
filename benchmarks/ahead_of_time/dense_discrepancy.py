"""The kernel variants of the dense discrepancy that must compile."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ahead_of_time.variant import Variant
from dynal_fast.ops.dense_discrepancy import triton


def variants() -> Iterator[Variant]:
    """Yield whole columns of few and many classes, and columns in tiles."""
    for num_classes, dtype in ((2, torch.float32), (19, torch.bfloat16), (150, torch.float32),
                               (400, torch.float32)):  # fmt: skip
        maps = torch.zeros(2, num_classes, 16, 32, dtype=dtype)
        name = f"dense_discrepancy C={num_classes} {str(dtype).removeprefix('torch.')}"
        yield Variant(name, partial(triton.dense_discrepancy, maps, maps))
