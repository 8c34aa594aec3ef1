"""Samples without ids: known by their position in the pool, if its order is certain."""

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

ORDER = "a loader that keeps the samples' order"


def batch_sizes(pool: Iterable[Any]) -> Callable[[int], int] | None:
    """Return a function from a batch's index to its size, or None if the loader does not fix it.

    Raises
    ------
    ValueError
        The batches may come in another order than the samples.

    >>> sizes = batch_sizes(DataLoader(range(5), batch_size=2))
    >>> [sizes(index) for index in range(3)]
    [2, 2, 1]
    >>> batch_sizes(DataLoader(range(5), batch_size=2, shuffle=True))
    Traceback (most recent call last):
    ValueError: ids="position" needs a loader that keeps the samples' order, and this one has \
a RandomSampler; let the data set give each sample's id beside its input, and name it with ids=
    """
    if isinstance(pool, (list, tuple)):
        return None
    if not isinstance(pool, DataLoader):
        raise _refusal("a DataLoader or a list of batches", f"got {type(pool).__name__}")
    if pool.num_workers and not getattr(pool, "in_order", True):
        raise _refusal(ORDER, "this one has in_order=False")
    if isinstance(pool.dataset, IterableDataset):
        if pool.num_workers > 1:
            raise _refusal(ORDER, f"an IterableDataset with {pool.num_workers} workers does not")
        return None
    batches: Any = pool.batch_sampler
    if batches is None:  # the data set gives whole batches
        _check_in_order(pool.sampler, pool.dataset)
        return None
    if type(batches).__iter__ is not BatchSampler.__iter__:
        raise _refusal(ORDER, f"this one has a {type(batches).__name__}")
    _check_in_order(batches.sampler, pool.dataset)
    samples, size = len(batches.sampler), batches.batch_size
    return lambda index: min(size, samples - index * size)


def _check_in_order(sampler: Any, dataset: Any) -> None:
    if type(sampler).__iter__ is SequentialSampler.__iter__:
        return
    if not isinstance(sampler, (range, list, tuple)) or not _counts_up(sampler, len(dataset)):
        raise _refusal(ORDER, f"this one has a {type(sampler).__name__}")


def _counts_up(sampler: range | list[Any] | tuple[Any, ...], n: int) -> bool:
    return len(sampler) <= n and all(
        isinstance(given, int) and given == i for i, given in enumerate(sampler)
    )


def _refusal(needed: str, got: str) -> ValueError:
    return ValueError(
        f'ids="position" needs {needed}, and {got}; let the data set give each sample\'s id beside '
        "its input, and name it with ids="
    )
