"""Samples that are cut into a shard for each rank: which are whose, and how others get them."""

from collections.abc import Callable

import torch
from torch import Tensor

from dynal_fast.collective.contract import Collective
from dynal_fast.collective.packing import as_bytes, from_bytes


def shard_of(ranks: Collective, size: int) -> tuple[list[int], int]:
    """Return the sizes of the shards of all ranks, and the number of the first sample of this one.

    >>> from dynal_fast.collective.contract import Alone
    >>> shard_of(Alone(), 3)
    ([3], 0)
    """
    sizes = [own for (own,) in ranks.counts([size])]
    return sizes, sum(sizes[: ranks.rank])


def rows_at(ranks: Collective, own: Tensor, numbers: Tensor, sizes: list[int]) -> Tensor:
    """Return the rows with these ``numbers`` in the shards of all ranks, in their order.

    ``own`` (n, ...) is the shard of this rank; ``numbers`` (m,) int64, on the CPU, and ``sizes`` of
    all shards are the same on every rank, and so is what is returned.

    >>> from dynal_fast.collective.contract import Alone
    >>> rows_at(Alone(), torch.tensor([5.0, 6.0, 7.0]), torch.tensor([2, 0]), [3])
    tensor([7., 5.])
    """
    found = bytes_at(ranks, lambda mine: as_bytes(own[mine.to(own.device)]), numbers, sizes)
    return from_bytes(found, own)


def bytes_at(
    ranks: Collective, taken: Callable[[Tensor], Tensor], numbers: Tensor, sizes: list[int]
) -> Tensor:
    """Return rows as uint8 (m, row bytes), as `rows_at` does.

    ``taken(positions)`` are those of this rank's shard, likewise.
    """
    ends = torch.tensor(sizes).cumsum(0)
    owners = torch.bucketize(numbers, ends, right=True)
    mine = numbers[owners == ranks.rank] - (ends[ranks.rank] - sizes[ranks.rank])
    counts = owners.bincount(minlength=ranks.size).tolist()
    sent = ranks.rows(taken(mine), counts)
    found = torch.empty_like(sent)
    found[owners.argsort(stable=True).to(sent.device)] = sent
    return found


def first_of(ranks: Collective, own: Tensor, most: int) -> Tensor:
    """Return the first ``most`` of the values of all ranks, in the order of the ranks.

    ``own`` (n,) are those of this rank.

    >>> from dynal_fast.collective.contract import Alone
    >>> first_of(Alone(), torch.tensor([4, 2, 9]), 2)
    tensor([4, 2])
    """
    room, counts = most, []
    for (count,) in ranks.counts([len(own)]):
        counts.append(min(count, room))
        room -= counts[-1]
    return from_bytes(ranks.rows(as_bytes(own[: counts[ranks.rank]]), counts), own)
