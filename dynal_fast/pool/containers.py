"""Tensors in containers: tuples, lists, mappings, dataclasses, nested in any way."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return ``value`` with each tensor in it replaced by ``function`` of it.

    Containers keep their types. Everything else, such as texts and ``None``, is returned as it is.

    >>> import torch
    >>> map_tensors(torch.neg, {"x": (torch.tensor(1), None), "name": "cat.png"})
    {'x': (tensor(-1), None), 'name': 'cat.png'}
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, PackedSequence):  # its batch_sizes must stay on the CPU
        parts = {name: map_tensors(function, part) for name, part in value._asdict().items()}
        return value._replace(**{**parts, "batch_sizes": value.batch_sizes})
    if isinstance(value, Mapping):
        mapped = {name: map_tensors(function, part) for name, part in value.items()}
        return mapped if type(value) is dict else mapping_like(value, mapped)
    if isinstance(value, (tuple, list)):
        mapped_parts = [map_tensors(function, part) for part in value]
        return mapped_parts if type(value) is list else _sequence_like(value, mapped_parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        other = copy.copy(value)
        for field in dataclasses.fields(value):
            part = map_tensors(function, getattr(value, field.name))
            object.__setattr__(other, field.name, part)
        return other
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a container, in order."""
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(keep, value)
    return tensors


def _sequence_like(value: Any, parts: list[Any]) -> Any:
    """Return a tuple or list of the type of ``value``, or a plain one if the type refuses."""
    try:
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    except TypeError:
        return tuple(parts) if isinstance(value, tuple) else parts


def mapping_like(value: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """Return a mapping like ``value``, with its type and attributes, but with these entries."""
    # The copy of another type may share its entries with ``value``, which must not change.
    if isinstance(value, MutableMapping) and (
        isinstance(value, dict) or hasattr(type(value), "__copy__")
    ):
        other = copy.copy(value)
        for name in [name for name in other if name not in entries]:
            del other[name]
        for name, entry in entries.items():
            other[name] = entry
        return other
    try:
        return type(value)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries
