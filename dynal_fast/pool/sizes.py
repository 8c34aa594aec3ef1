"""How many samples the inputs of a model hold, as far as their shapes tell."""

from typing import Any

from torch import Tensor

from dynal_fast.pool.containers import tensors_in


def possible_sizes(inputs: Any, integers_are_targets: bool = False) -> list[int]:
    """Return how many samples ``inputs`` may hold, the likeliest first; none if unknown.

    A vector of integers among the inputs may say which sample each row belongs to, as in batches of
    graphs; the number of rows then says nothing. With ``integers_are_targets`` such a vector has
    one integer for each sample.

    >>> import torch
    >>> possible_sizes(torch.zeros(8, 3, 32, 32))
    [8]
    >>> possible_sizes(torch.zeros(50, 8, 16))  # a sequence model may take (time, batch, features)
    [50, 8]
    >>> possible_sizes({"nodes": torch.zeros(70, 4), "edges": torch.zeros(2, 99)})
    []
    """
    if isinstance(inputs, Tensor):
        return _sizes_of(inputs)
    if are_texts(inputs):
        return [len(inputs)]
    tensors = tensors_in(inputs)
    sizes = {tensor.shape[:1] for tensor in tensors if not tensor.is_nested}
    if len(sizes) != 1 or () in sizes:
        return []
    if not integers_are_targets and any(map(_is_integer_vector, tensors)):
        return []
    listed = [len(inputs)] if isinstance(inputs, (tuple, list)) else []
    return _sizes_of(tensors[0]) + listed


def _sizes_of(tensor: Tensor) -> list[int]:
    if tensor.ndim == 0:
        return []
    if tensor.is_nested:
        return [tensor.size(0)]
    integers = not (tensor.is_floating_point() or tensor.is_complex())
    time_first = tensor.ndim == 3 or (tensor.ndim == 2 and integers)
    return list(tensor.shape[: 1 + time_first])


def _is_integer_vector(tensor: Tensor) -> bool:
    return tensor.ndim == 1 and not (tensor.is_floating_point() or tensor.is_complex())


def are_texts(value: Any) -> bool:
    """Return whether ``value`` is a list or tuple of texts, which is a batch, not its parts."""
    return (
        isinstance(value, (tuple, list))
        and len(value) > 0
        and all(isinstance(part, str) for part in value)
    )
