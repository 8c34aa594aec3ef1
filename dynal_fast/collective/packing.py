"""Rows of tensors as rows of bytes, which every backend can send, and back."""

import math

import torch
from torch import Tensor


def as_bytes(rows: Tensor) -> Tensor:
    """Return rows (n, ...) as uint8 (n, bytes).

    >>> as_bytes(torch.zeros(3, 2)).shape
    torch.Size([3, 8])
    """
    width = rows.element_size() * math.prod(rows.shape[1:])
    if not rows.numel():  # whose strides may be any
        return torch.empty(len(rows), width, dtype=torch.uint8, device=rows.device)
    if rows.stride(-1) != 1:  # also of a single element, which counts as contiguous
        rows = rows.clone(memory_format=torch.contiguous_format)
    return rows.contiguous().view(torch.uint8).reshape(len(rows), width)


def numbers_of(sent: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the numbers (m,) that bytes are, in memory of their own.

    Bytes may begin anywhere; numbers must begin at a multiple of their size.

    >>> numbers_of(as_bytes(torch.tensor([[1], [2]])), torch.int64)
    tensor([1, 2])
    """
    return sent.clone(memory_format=torch.contiguous_format).view(-1).view(dtype)


def from_bytes(received: Tensor, like: Tensor) -> Tensor:
    """Return rows of bytes as rows like those of ``like``, on its device."""
    return numbers_of(received.to(like.device), like.dtype).view(len(received), *like.shape[1:])
