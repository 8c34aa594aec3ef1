"""The pool's own ``DataLoader``, giving each sample's position in the data set beside it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from dynal_fast.integrations.process_group import Processes

CURE = "; let the data set give each sample's id beside it, and name it with ids="
# What a new DataLoader takes over from the given one; the last is known from torch 2.6 on.
KEPT = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
    "in_order",
)


class NumberedLoader:
    """A ``DataLoader`` over the same data set that yields ``(positions, batch)``.

    The data set, ``collate_fn``, batch size and workers are those of the given loader. A sample's
    position is its index in the data set. The order is that of the data set, also where the given
    loader shuffles, and nothing is dropped at the end, since a pass has to see the whole pool.

    Parameters
    ----------
    loader
        The user's ``DataLoader``.
    processes
        Each takes its share: whole batches, in turn, so that every batch is that of one process.

    Raises
    ------
    ValueError
        The positions of the samples cannot be known.
    """

    def __init__(self, loader: DataLoader[Any], num_samples: int, processes: Processes) -> None:
        _check_numbered(loader, num_samples, processes)
        options = {name: getattr(loader, name) for name in KEPT if hasattr(loader, name)}
        if not loader.num_workers:
            options.pop("multiprocessing_context", None)
        collate = NumberedCollate(loader.collate_fn)
        if isinstance(loader.dataset, IterableDataset):
            self._stream = NumberedStream(loader.dataset)
            self._loader: DataLoader[Any] = DataLoader(
                self._stream, loader.batch_size, collate_fn=collate, **options
            )
            return
        self._batches = SharedBatches(loader, processes)
        self._loader = DataLoader(
            NumberedDataset(loader.dataset),
            batch_sampler=self._batches,
            collate_fn=collate,
            **options,
        )

    def prepare(self, wanted: Tensor, own: Tensor | None = None) -> None:
        """Say which positions the passes yield from now on: bool ``(samples,)`` on the CPU.

        ``own`` are those among them that this process had best take, where that matters.
        """
        if isinstance(self._loader.dataset, IterableDataset):
            self._stream.wanted = wanted.tolist()
        else:
            self._batches.prepare(wanted.tolist(), None if own is None else own.tolist())

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        return iter(self._loader)

    def __len__(self) -> int:
        if isinstance(self._loader.dataset, IterableDataset):
            return len(self._loader)
        return len(self._batches)


@dataclass
class NumberedCollate:
    """A ``collate_fn`` for pairs of a position and a sample."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, pairs: Sequence[tuple[int, Any]]) -> tuple[Tensor, Any]:
        positions, samples = zip(*pairs, strict=True)
        return torch.tensor(positions), self.collate(list(samples))


class NumberedDataset(Dataset[Any]):
    """A data set with each sample's index beside it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[int, Any]]:
        at_once = getattr(self.dataset, "__getitems__", None)
        samples = at_once(indices) if at_once else [self.dataset[index] for index in indices]
        return list(zip(indices, samples, strict=True))


class NumberedStream(IterableDataset[Any]):
    """A stream with each sample's place in it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.wanted: list[bool] = []

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for position, sample in enumerate(self.dataset):
            if (
                position >= len(self.wanted) or self.wanted[position]
            ):  # the tracker reports those beyond
                yield position, sample

    def __len__(self) -> int:
        return len(self.dataset)


class SharedBatches:
    """A batch sampler: the positions that one pass wants, every n-th batch for each of n processes.

    The sampler of the given loader says which samples there are. One that only shuffles is not
    asked: the order means nothing to the statistics.
    """

    def __init__(self, loader: DataLoader[Any], processes: Processes) -> None:
        self._of_loader: Any = loader.batch_sampler
        self._samples = len(loader.dataset)  # type: ignore[arg-type]
        self._processes = processes
        self._batches: list[list[int]] = []

    def prepare(self, wanted: list[bool], own: list[bool] | None = None) -> None:
        """Make the batches of the next passes; every process must call this."""
        if own is not None and self._is_plain() and _takes_all(self._of_loader.sampler):
            self._batches = self._chosen(own)
            return
        batches = self._chosen(wanted)
        if not self._is_plain() or not _takes_all(self._of_loader.sampler):
            batches = self._processes.of_the_first(batches)  # a sampler may draw other ones here
        self._batches = batches[self._processes.rank :: self._processes.size]

    def _is_plain(self) -> bool:
        return type(self._of_loader).__iter__ is BatchSampler.__iter__

    def _positions(self) -> Sequence[int]:
        sampler = self._of_loader.sampler
        if _takes_all(sampler):
            return range(self._samples)
        return sampler.indices if isinstance(sampler, SubsetRandomSampler) else sampler

    def _chosen(self, wanted: list[bool]) -> list[list[int]]:
        def is_wanted(position: Any) -> bool:
            if isinstance(position, Tensor):
                position = position.item()
            if not hasattr(position, "__index__"):
                raise ValueError(
                    "the sampler of the pool's loader must give positions, integers, got "
                    f"{position!r}{CURE}"
                )
            return not 0 <= position < len(wanted) or wanted[position]

        if not self._is_plain():
            kept = ([int(i) for i in batch if is_wanted(i)] for batch in self._of_loader)
            return [batch for batch in kept if batch]
        positions = (int(i) for i in self._positions() if is_wanted(i))
        size = self._of_loader.batch_size
        return list(iter(lambda: list(itertools.islice(positions, size)), []))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def _takes_all(sampler: Any) -> bool:
    """Return whether a sampler gives every position once, over all processes."""
    whole = (SequentialSampler, RandomSampler, DistributedSampler)
    return type(sampler).__iter__ in [kind.__iter__ for kind in whole]


def _check_numbered(loader: DataLoader[Any], num_samples: int, processes: Processes) -> None:
    """Raise unless the positions of the loader's samples can be known."""
    if type(loader).__iter__ is not DataLoader.__iter__:
        name = type(loader).__name__
        raise ValueError(
            f"the pool's loader must be a torch DataLoader, and {name} has an __iter__ of its own, "
            f"so that its samples cannot be numbered{CURE}"
        )
    if loader.batch_size is None and loader.batch_sampler is None:
        raise ValueError(
            "the pool's loader has batch_size=None, so that its data set makes the batches, whose "
            f"samples cannot be numbered{CURE}"
        )
    if isinstance(loader.dataset, IterableDataset):
        if processes.size > 1 or loader.num_workers > 1:
            several = (
                f"{processes.size} processes"
                if processes.size > 1
                else f"{loader.num_workers} workers"
            )
            raise ValueError(
                f"the samples of an IterableDataset cannot be numbered by {several}, each of which "
                f"reads it in its own way: take one, or a data set with an index{CURE}"
            )
        return
    batches: Any = loader.batch_sampler
    sampler = getattr(batches, "sampler", None)
    if isinstance(sampler, WeightedRandomSampler) or (
        isinstance(sampler, RandomSampler)
        and (sampler.replacement or sampler.num_samples != len(loader.dataset))  # type: ignore[arg-type]
    ):
        raise ValueError(
            f"the pool's loader must give each sample once, and its {type(sampler).__name__} draws "
            "some; take shuffle=False"
        )
    samples = len(loader.dataset)  # type: ignore[arg-type]
    if samples != num_samples and _takes_all(sampler):
        raise ValueError(
            f"the pool's data set has {samples:,} samples and stats {num_samples:,}: a sample's "
            "position in the data set is its id in stats, so PoolStats must be as large"
        )
