"""Batches of any loader, taken apart into sample ids and the model's inputs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, IterableDataset

from dynal_fast.pool.candidates import integer
from dynal_fast.pool.containers import mapping_like
from dynal_fast.pool.images import PoolImages
from dynal_fast.pool.positions import batch_sizes
from dynal_fast.pool.sizes import are_texts, possible_sizes

POSITION = "position"
RETURN_SELF = (lambda self: self).__code__.co_code
ELSEWHERE = (
    "; where the ids are elsewhere, ids= says so: a key, a position in the batch such as ids=1, or "
    '"position" for a loader that does not shuffle'
)


def checked_where(ids: Any, pool: Iterable[Any]) -> str | int | None:
    """Return the argument ``ids`` of `observe_pool`, checked."""
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

    With ``check_sizes`` the number of ids must be that of the samples, if the inputs tell it.

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


def is_one_shot(pool: Iterable[Any]) -> bool:
    """Return whether ``pool`` gives its batches once: a second pass would find it used up.

    >>> batches = [torch.zeros(2, 4)]
    >>> is_one_shot(batches), is_one_shot(iter(batches)), is_one_shot(batch for batch in batches)
    (False, True, True)
    """
    source: Any = pool
    if isinstance(pool, DataLoader):
        # Each pass of workers gets a new copy of the data set.
        if pool.num_workers or not isinstance(pool.dataset, IterableDataset):
            return False
        source = pool.dataset
    iterator = iter(source)
    return iterator is iter(source) and not _may_rewind(type(iterator))


def _may_rewind(iterator: type) -> bool:
    """Return whether the ``__iter__`` of an iterator class does more than ``return self``.

    Iterators written in C never do.
    """
    code = getattr(iterator.__iter__, "__code__", None)  # type: ignore[attr-defined]
    return code is not None and code.co_code != RETURN_SELF


def _taken_apart(batch: Any, where: str | int | None) -> tuple[Any, Any]:
    """Return the ids of a batch, not yet checked, and its inputs."""
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
        return batch[where], others if type(batch) is dict else mapping_like(batch, others)
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
        else:  # np.asarray, as torch.tensor would look a pandas Series up by its index
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
        return batch if are_texts(batch) else batch[0]
    return batch
