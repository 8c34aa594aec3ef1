"""Whether the values of a tensor lie at its address, as kernels assume."""

import torch
from torch import Tensor


def check_addressable(name: str, tensor: Tensor) -> None:
    """Check that the values of a tensor are what its address and strides say.

    Raises
    ------
    ValueError
        It is sparse or of another layout, quantized, nested, a view with the negative or conjugate
        bit set, or has no memory of its own (a masked or distributed tensor, one within ``vmap``,
        one whose storage was freed). The message says what to pass instead.

    >>> check_addressable("logits", torch.zeros(2, 3))
    >>> check_addressable("logits", torch._neg_view(torch.zeros(2, 3)))
    Traceback (most recent call last):
    ValueError: logits must hold its values as they are in memory, got a negated view (the \
negative bit is set); pass a copy made with .resolve_neg()
    """
    if tensor.layout is not torch.strided:
        raise ValueError(
            f"{name} must be a dense tensor, got layout {tensor.layout}; convert it with "
            ".to_dense()"
        )
    if torch.compiler.is_compiling():  # the dispatcher resolves or refuses all below
        return
    if tensor.is_neg():
        raise ValueError(
            f"{name} must hold its values as they are in memory, got a negated view (the negative "
            "bit is set); pass a copy made with .resolve_neg()"
        )
    if tensor.is_conj():
        raise ValueError(
            f"{name} must hold its values as they are in memory, got a conjugated view; pass a "
            "copy made with .resolve_conj()"
        )
    if tensor.is_quantized:
        raise ValueError(
            f"{name} must hold its values as they are in memory, got a quantized tensor; convert "
            "it with .dequantize()"
        )
    if tensor.is_nested:
        raise ValueError(
            f"{name} must be one dense tensor, got a nested one; pad it with .to_padded_tensor(...)"
        )
    if not tensor.numel() or tensor.is_meta or is_traced(tensor):
        return
    if not _address(tensor):
        raise ValueError(
            f"{name} must be a plain tensor with memory of its own, got {_kind(tensor)}, whose "
            "values are kept elsewhere; pass the tensor that holds them (of a masked tensor "
            ".get_data(), of a distributed one .to_local() or .full_tensor())"
        )


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether a compiler is tracing: these tensors have shapes, but no values.

    >>> is_traced(torch.zeros(2), None)
    False
    """
    if all(type(tensor) in (Tensor, type(None)) for tensor in tensors):
        return False
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    return any(isinstance(tensor, FakeTensor | FunctionalTensor) for tensor in tensors)


def _address(tensor: Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:  # no storage, as within torch.func's transformations
        return 0


def _kind(tensor: Tensor) -> str:
    kind = type(tensor)
    if kind is Tensor:
        return "one without storage (freed, or within vmap, grad or another transformation)"
    return f"a {kind.__module__}.{kind.__qualname__}"
