"""The element types that the compiled kernels take: their numbers and their names."""

import torch

# In the order of Dtype in csrc/common/dtype.h: those that float32 holds exactly come first.
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.float32,
    torch.float64,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
)
_CODES = {dtype: code for code, dtype in enumerate(DTYPES)}


def code(dtype: torch.dtype) -> int:
    """Return the number of ``dtype`` in ``DTYPES``.

    Examples
    --------
    >>> code(torch.float32)
    6
    """
    return _CODES[dtype]


def name(dtype: torch.dtype) -> str:
    """Return the name of ``dtype`` without its module, for messages.

    Examples
    --------
    >>> name(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")
