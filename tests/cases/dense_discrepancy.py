"""Inputs of the dense discrepancy, for every implementation."""

import torch

SHAPES = [(1, 2, 1, 1), (3, 19, 7, 9), (2, 150, 3, 5), (1, 256, 4, 4), (2, 300, 5, 13)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def maps(shape, dtype, seed=0, apart=1.0):
    """Two random maps, ``apart`` from each other."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    other = logits + apart * torch.randn(shape, generator=generator)
    return logits.to(dtype), other.to(dtype)


def spoiled():
    """Six images, of which all but the first and the last have one non-finite logit."""
    logits, other = maps((6, 5, 4, 6), torch.float32)
    logits[1, 2, 1, 1] = float("nan")
    logits[2, 0, 3, 5] = float("inf")
    logits[3, 4, 0, 0] = -float("inf")
    other[4, 1, 2, 2] = -float("inf")
    return logits, other
