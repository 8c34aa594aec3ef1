"""Batches as loaders give them, taken apart into sample ids and a model's inputs."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, IterableDataset

from dynal_fast.pool.images import PoolImages
from dynal_fast.pool.positions import batch_sizes
from dynal_fast.pool.top import integer

POSITION = "position"
ITSELF = (lambda self: self).__code__.co_code
ELSEWHERE = (
    "; where the ids are elsewhere, ids= says so: a key, a position in the batch such as ids=1, or "
    '"position" for a loader that does not shuffle'
)


def checked_where(ids: Any, pool: Iterable[Any]) -> str | int | None:
    """Return the argument ``ids`` of `observe_pool`, or raise what is wrong with it."""
    if isinstance(ids, bool):
        raise TypeError(f'ids must be a key, a position in the batch or "position", got {ids!r}')
    if ids is not None and isinstance(pool, PoolImages):
        raise ValueError(f"ids must be left out for PoolImages, which has its own; got {ids!r}")
    if ids == POSITION:
        batch_sizes(pool)
    return ids if ids is None or isinstance(ids, str) else integer("ids", ids)


def id_batches(
    pool: Iterable[Any], where: str | int | None, check_sizes: bool
) -> Iterator[tuple[Tensor, Any]]:
    """Yield ``(sample_ids, inputs)`` of each batch, ids (batch,) int64 or int32.

    With ``check_sizes``, there must be as many ids as samples wherever inputs tell their number.

    >>> pool = [{"x": torch.zeros(2, 4), "id": [3, 1]}]
    >>> [(ids.tolist(), list(inputs)) for ids, inputs in id_batches(pool, "id", True)]
    [([3, 1], ['x'])]
    """
    if where == POSITION:
        yield from _numbered(pool, check_sizes)
        return
    for batch in pool:
        given, inputs = _taken_apart(batch, where)
        ids = _checked_ids(given, "" if where is not None else ELSEWHERE)
        sizes = possible_sizes(inputs) if check_sizes else []
        if sizes and len(ids) not in sizes:
            raise ValueError(
                f"a batch of the pool has {len(ids)} ids for {sizes[0]} samples; a model that "
                "gives other numbers of rows needs forward="
            )
        yield ids, inputs


def possible_sizes(inputs: Any, integers_are_targets: bool = False) -> list[int]:
    """Return how many samples ``inputs`` may hold, the likeliest first; none where they don't tell.

    A vector of integers among them may say which sample each row belongs to, as in batches of
    graphs, so that the rows do not tell; with ``integers_are_targets`` it is one for each sample.

    >>> possible_sizes(torch.zeros(8, 3, 32, 32))
    [8]
    >>> possible_sizes(torch.zeros(50, 8, 16))  # a sequence model may take (time, batch, features)
    [50, 8]
    >>> possible_sizes({"nodes": torch.zeros(70, 4), "edges": torch.zeros(2, 99)})
    []
    """
    if isinstance(inputs, Tensor):
        return _sizes_of(inputs)
    if _are_texts(inputs):
        return [len(inputs)]
    tensors = _tensors_in(inputs)
    sizes = {tensor.shape[:1] for tensor in tensors if not tensor.is_nested}
    if len(sizes) != 1 or () in sizes:
        return []
    if not integers_are_targets and any(map(_is_integer_vector, tensors)):
        return []
    listed = [len(inputs)] if isinstance(inputs, (tuple, list)) else []
    return _sizes_of(tensors[0]) + listed


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return ``value`` with ``function`` of each tensor in it; containers keep their types.

    What is neither a tensor nor a container of any, such as a text or ``None``, stays as it is.

    >>> map_tensors(torch.neg, {"x": (torch.tensor(1), None), "name": "cat.png"})
    {'x': (tensor(-1), None), 'name': 'cat.png'}
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, PackedSequence):  # its batch_sizes have to stay on the CPU
        parts = {name: map_tensors(function, part) for name, part in value._asdict().items()}
        return value._replace(**{**parts, "batch_sizes": value.batch_sizes})
    if isinstance(value, Mapping):
        mapped = {name: map_tensors(function, part) for name, part in value.items()}
        return mapped if type(value) is dict else _mapping_like(value, mapped)
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


def is_one_shot(pool: Iterable[Any]) -> bool:
    """Return whether a second pass over ``pool`` would go on where the first ended.

    >>> batches = [torch.zeros(2, 4)]
    >>> is_one_shot(batches), is_one_shot(iter(batches)), is_one_shot(batch for batch in batches)
    (False, True, True)
    """
    source: Any = pool
    if isinstance(pool, DataLoader):
        # Workers get a copy of the data set each time.
        if pool.num_workers or not isinstance(pool.dataset, IterableDataset):
            return False
        source = pool.dataset
    iterator = iter(source)
    if iterator is not iter(source):
        return False
    # An iterator may rewind itself in __iter__, but not one that does no more than return itself.
    code = getattr(type(iterator).__iter__, "__code__", None)
    return code is None or code.co_code == ITSELF


def _taken_apart(batch: Any, where: str | int | None) -> tuple[Any, Any]:
    """Return the ids of a batch as they are given, and its inputs."""
    if isinstance(batch, Mapping):
        keys = ", ".join(map(repr, batch))
        if not isinstance(where, str):
            raise TypeError(
                f"a batch of the pool is a {type(batch).__name__} with the keys {keys}: ids= must "
                f"name the one that holds the sample ids, got ids={where!r}"
            )
        if where not in batch:
            raise ValueError(f"ids={where!r} is no key of the pool's batches, which have {keys}")
        others = {name: part for name, part in batch.items() if name != where}
        return batch[where], others if type(batch) is dict else _mapping_like(batch, others)
    if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
        return _parts(batch, where)
    if isinstance(where, str) and hasattr(batch, where):
        return getattr(batch, where), batch
    raise TypeError(
        f"a batch of the pool must be (sample_ids, inputs), got {type(batch).__name__}{ELSEWHERE}"
    )


def _parts(batch: Any, where: str | int | None) -> tuple[Any, Any]:
    if isinstance(where, str):
        names = getattr(batch, "_fields", ())
        if where not in names:
            raise ValueError(
                f"ids={where!r} is no part of the pool's batches: got a {_parts_of(batch)}"
                + (f" named {', '.join(names)}" if names else ", whose parts have positions only")
            )
        where = names.index(where)
    elif where is None:
        if len(batch) != 2:
            raise TypeError(
                "a batch of the pool must be (sample_ids, inputs), got "
                f"{_parts_of(batch)}{ELSEWHERE}"
            )
        where = 0
    if not -len(batch) <= where < len(batch) or len(batch) < 2:
        raise ValueError(
            f"ids={where} must be a position in the batch, beside the inputs; got a "
            f"{_parts_of(batch)}"
        )
    first_other = 1 if where % len(batch) == 0 else 0
    return batch[where], batch[first_other]


def _parts_of(batch: Any) -> str:
    return f"{type(batch).__name__} of ({', '.join(type(part).__name__ for part in batch)})"


def _checked_ids(given: Any, hint: str) -> Tensor:
    expected = "the ids of a batch must be (batch,) integers, the samples' rows in the tracker"
    try:
        if isinstance(given, Tensor):
            ids = given
        else:  # by position, also a Series whose index is something else
            ids = torch.tensor(np.asarray(given) if hasattr(given, "__array__") else given)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{expected}, got {_described(given)}{hint}") from None
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids.squeeze(1)
    if ids.shape == (0,):
        ids = ids.long()
    if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{expected}, got {tuple(ids.shape)} {ids.dtype}{hint}")
    return ids if ids.dtype in (torch.int64, torch.int32) else ids.long()


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)) and value:
        return f"{type(value).__name__} of {type(value[0]).__name__}"
    return type(value).__name__


def _numbered(pool: Iterable[Any], check_sizes: bool) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches with their samples' positions in the pool."""
    expected = batch_sizes(pool)
    start = 0
    for index, batch in enumerate(pool):
        inputs = _inputs(batch)
        sizes = possible_sizes(inputs, integers_are_targets=expected is None)
        if expected is not None:
            size = expected(index)
            if check_sizes and sizes and size not in sizes:
                raise ValueError(
                    f'ids="position": batch {index} holds {sizes[0]} samples, and the loader put '
                    f"{size} into it; a collate_fn that leaves samples out shifts the positions"
                )
        elif sizes:
            size = sizes[0]
        else:
            raise TypeError(
                f'ids="position" cannot tell how many samples a {type(inputs).__name__} holds; '
                "put the ids into the batch and name them with ids="
            )
        yield torch.arange(start, start + size), inputs
        start += size


def _inputs(batch: Any) -> Any:
    """Return the inputs of a batch without ids: its first part, or all of it."""
    if POSITION in batch if isinstance(batch, Mapping) else hasattr(batch, POSITION):
        raise ValueError(
            f'ids="{POSITION}" is ambiguous, since the batches have a part of that name: rename it'
        )
    if isinstance(batch, (tuple, list)) and batch and not isinstance(batch, PackedSequence):
        return batch if _are_texts(batch) else batch[0]
    return batch


def _tensors_in(value: Any) -> list[Tensor]:
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(keep, value)
    return tensors


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


def _are_texts(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) > 0
        and all(isinstance(part, str) for part in value)
    )


def _sequence_like(value: Any, parts: list[Any]) -> Any:
    """Return a tuple or list of the type of ``value``, or a plain one where that takes others."""
    try:
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    except TypeError:
        return tuple(parts) if isinstance(value, tuple) else parts


def _mapping_like(value: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """Return a mapping of the type of ``value``, with all else that it carries, of ``entries``."""
    # Any other type's copy may share its entries with ``value``, which is to stay as it is.
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
