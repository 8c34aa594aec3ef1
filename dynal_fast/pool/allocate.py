"""Memory for the state of the pool statistics."""

import contextlib
import math
import mmap

import torch
from torch import Tensor

HUGE_FROM = 4 << 20  # bytes, two huge pages


def full(shape: tuple[int, ...], value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``torch.full(...)``, on Linux in huge pages if it is large and on the CPU.

    An update gathers rows from the whole state, and with pages of 4 KiB it would stall on TLB
    misses. Zeros are not written, since new pages are zero; the threads of the first update then
    share the page faults.

    >>> full((2, 2), 0.5, torch.float32, torch.device("cpu"))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < HUGE_FROM or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.full(shape, value, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    tensor = torch.frombuffer(memory, dtype=dtype).view(shape)
    return tensor.fill_(value) if value else tensor
