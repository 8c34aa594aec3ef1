"""`Shard`: the range of samples that a rank owns, and what it asks of the other ranks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed
from dynal_fast.collective.packing import as_bytes, from_bytes
from dynal_fast.pool.training import LabelsAndProbabilities

T = TypeVar("T")
MIX = 6364136223846793005  # Knuth's multiplier


class Shard:
    """The samples ``begin`` to ``end`` of a pool, which this rank owns; one rank owns all.

    Attributes
    ----------
    bounds
        Rank r owns the samples ``bounds[r]`` to ``bounds[r + 1]``, as many as any other, or one
        more; the last is ``num_samples``.

    Examples
    --------
    >>> from dynal_fast.collective import Alone
    >>> shard = Shard(5, Alone())
    >>> shard.begin, shard.end, shard.bounds
    (0, 5, [0, 5])
    """

    def __init__(self, num_samples: int, ranks: Collective) -> None:
        self.num_samples, self.ranks = num_samples, ranks
        self.bounds = [num_samples * rank // ranks.size for rank in range(ranks.size + 1)]
        self.begin, self.end = self.bounds[ranks.rank : ranks.rank + 2]

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def is_whole(self) -> bool:
        """Whether there is one rank."""
        return self.ranks.size == 1

    @property
    def sizes(self) -> list[int]:
        """How many samples each rank owns."""
        return [end - begin for begin, end in zip(self.bounds, self.bounds[1:], strict=False)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shard):
            return NotImplemented
        return (self.bounds, self.begin) == (other.bounds, other.begin)

    def __str__(self) -> str:
        return f"rank {self.ranks.rank} of {self.ranks.size}"

    def session(self) -> AbstractContextManager[None]:
        """A block in which ranks talk; whatever one raises ends it on all."""
        return self.ranks.session()

    def together(self, made: Callable[[], T]) -> T:
        """Return what ``made`` returns, once it has raised on no rank; all must call this."""
        with self.session():
            return agreed(self.ranks, made)

    def whole(self, own: Tensor) -> Tensor:
        """Return (N, ...) from each rank's rows (n, ...), by sample; all must call this."""
        if self.is_whole:
            return own
        with self.session():
            found = self.ranks.rows(as_bytes(own), self.sizes)
        return from_bytes(found, own)

    def of_the_first(self, values: Tensor) -> Tensor:
        """Return what rank 0 has; all must call this with as many of one dtype."""
        if self.is_whole:
            return values
        counts = [len(values) if rank == 0 else 0 for rank in range(self.ranks.size)]
        with self.session():
            own = values if self.ranks.rank == 0 else values[:0]
            return from_bytes(self.ranks.rows(as_bytes(own), counts), values)

    def owners(self, ids: Tensor) -> Tensor:
        """Return the rank of each sample, int64."""
        return torch.bucketize(ids, torch.tensor(self.bounds[1:], device=ids.device), right=True)

    def own(self, ids: Tensor) -> Tensor:
        """Return which of the samples ``ids`` this rank owns, counted from its first.

        Each rank gives all of them or some, sorted and distinct; all must call this.
        """
        if self.is_whole:
            return ids
        with self.session():
            ids = ids_of_ranks(self.ranks, ids)
        return ids[(ids >= self.begin) & (ids < self.end)] - self.begin

    def taker(self, ids: Tensor, other: "Shard") -> Callable[[Tensor], Tensor]:
        """Return a function that gives the rows that ``other`` owns of the samples ``ids``.

        All ranks must call it, with the same ``ids``, for the same tensors in one order.
        """
        owners = self.owners(ids)
        if self.is_whole:
            return lambda tensor: tensor[ids]
        order = owners[other.begin : other.end].argsort(stable=True)
        parts = owners[other.begin : other.end].bincount(minlength=self.ranks.size).tolist()
        sent = [
            ids[begin:end][owners[begin:end] == self.ranks.rank] - self.begin
            for begin, end in zip(other.bounds, other.bounds[1:], strict=False)
        ]

        def take(tensor: Tensor) -> Tensor:
            rows = as_bytes(tensor)
            found = torch.cat(list(self.ranks.exchange([rows[own] for own in sent], parts)))
            taken = torch.empty_like(found)
            taken[order.to(found.device)] = found
            return from_bytes(taken, tensor)

        return take

    def labels_and_probabilities(self, own: LabelsAndProbabilities) -> LabelsAndProbabilities:
        """Return those of all ranks, by sample; all must call this."""
        if self.is_whole:
            return own
        ids, labels, probabilities = map(torch.from_numpy, own)
        found = []
        with self.session():
            counts = [count for (count,) in self.ranks.counts([len(ids)])]
            for rows in (ids + self.begin, labels, probabilities):
                found.append(from_bytes(self.ranks.rows(as_bytes(rows), counts), rows).numpy())
        return LabelsAndProbabilities(*found)


def ids_of_ranks(ranks: Collective, ids: Tensor) -> Tensor:
    """Return the ids that any rank gives; each gives all or some, sorted and distinct."""
    said = ranks.counts([len(ids), code_of(ids)])
    if all(other == said[0] for other in said):
        return ids
    return from_bytes(ranks.rows(as_bytes(ids), [count for count, _ in said]), ids).unique()


def code_of(ids: Tensor) -> int:
    """Return a number that tells lists of ids, in their order, from each other.

    >>> code_of(torch.tensor([1, 2])) == code_of(torch.tensor([2, 1]))
    False
    """
    places = torch.arange(len(ids), device=ids.device)
    return int((((ids + 1) * MIX) ^ places).sum())
