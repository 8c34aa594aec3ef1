"""Pools larger than their data set: bootstrap samples and mirrored copies that cost no memory.

The long-tail paper doubles CIFAR's pool by horizontal flips (4.2) and inflates CIFAR-100's by a
factor of three by sampling with replacement (4.4): 25,000 images become 50,000 entries, then
150,000.
"""

import math
import numbers
from dataclasses import dataclass

import torch
from torch import Tensor

from dynal_fast.data.augment import flip_where

MAX_ENTRIES = 2**30  # whose ids and flags take 10 GB


@dataclass(frozen=True, eq=False)
class PoolView:
    """Pool entries as references to original images: 9 bytes an entry, no pixels.

    Entry ``i`` is original image ``original_ids[i]``, mirrored where ``flipped[i]``. Selection and
    statistics work on entries, whose ids are their positions; labels and costs go by the original.

    Attributes
    ----------
    original_ids
        ``(n,)`` int64.
    flipped
        ``(n,)`` bool.

    >>> generator = torch.Generator().manual_seed(0)
    >>> pool = inflate(add_horizontal_flips(original_pool(25_000)), 3, generator)
    >>> len(pool)
    150000
    """

    original_ids: Tensor
    flipped: Tensor

    def __post_init__(self) -> None:
        if self.original_ids.ndim != 1 or self.original_ids.dtype != torch.int64:
            raise ValueError(
                "original_ids must be int64 (n,), got "
                f"{self.original_ids.dtype} {tuple(self.original_ids.shape)}"
            )
        if self.flipped.shape != self.original_ids.shape or self.flipped.dtype != torch.bool:
            raise ValueError(
                f"flipped must be bool ({len(self)},), got "
                f"{self.flipped.dtype} {tuple(self.flipped.shape)}"
            )

    def __len__(self) -> int:
        return len(self.original_ids)

    def __getitem__(self, entries: Tensor | slice) -> "PoolView":
        """Return a view of some entries, by ids, mask or slice."""
        return PoolView(self.original_ids[entries], self.flipped[entries])

    def to(self, device: torch.device | str) -> "PoolView":
        """Return the view with its ids and flags on a device."""
        return PoolView(self.original_ids.to(device), self.flipped.to(device))

    def images(self, originals: Tensor, entries: Tensor) -> Tensor:
        """Return the images of a batch of entries.

        Parameters
        ----------
        originals
            ``(originals, channels, height, width)``.
        entries
            ``(batch,)`` int64 entry ids, on any device.

        Returns
        -------
        ``(batch, channels, height, width)`` on the originals' device.
        """
        entries = entries.to(self.original_ids.device)
        rows = self.original_ids[entries].to(originals.device, non_blocking=True)
        flipped = self.flipped[entries].to(originals.device, non_blocking=True)
        return flip_where(originals[rows], flipped)

    def labels(self, labels: Tensor) -> Tensor:
        """Return each entry's label ``(n,)`` from the originals' labels ``(originals,)``."""
        return labels[self.original_ids]

    def oracle_cost(self, entries: Tensor, labeled: Tensor | None = None) -> int:
        """Return how many labels an oracle has to give for the entries.

        Copies of one original, mirrored or not, share its label, which is paid once; and not at all
        if one of them is among the ``labeled`` entries already. The paper's learning curves count
        entries instead: ``len(entries)``.

        Parameters
        ----------
        entries
            ``(k,)`` int64 entry ids.
        labeled
            ``(m,)`` int64 entry ids.

        >>> pool = add_horizontal_flips(original_pool(3))
        >>> pool.oracle_cost(torch.tensor([0, 3, 1])), pool.original_ids[[0, 3, 1]].tolist()
        (2, [0, 0, 1])
        """
        bought = self.original_ids[entries].unique()
        if labeled is not None:
            bought = bought[~torch.isin(bought, self.original_ids[labeled])]
        return len(bought)


def original_pool(originals: int | Tensor) -> PoolView:
    """Return the pool of originals, once each: the first n, or those of an id tensor."""
    ids = torch.arange(originals) if isinstance(originals, int) else originals.to(torch.int64)
    return PoolView(ids, torch.zeros(len(ids), dtype=torch.bool))


def join(first: PoolView, second: PoolView) -> PoolView:
    """Return the entries of one pool followed by those of another over the same originals."""
    return PoolView(
        torch.cat([first.original_ids, second.original_ids]),
        torch.cat([first.flipped, second.flipped]),
    )


def add_horizontal_flips(pool: PoolView) -> PoolView:
    """Return the pool followed by its mirror image: twice the entries (long-tail paper, 4.2).

    >>> add_horizontal_flips(original_pool(2)).flipped.tolist()
    [False, False, True, True]
    """
    return join(pool, PoolView(pool.original_ids, ~pool.flipped))


def inflated_view(
    initial: Tensor, rest: Tensor, flips: bool, factor: float, generator: torch.Generator
) -> PoolView:
    """Return the entries of an experiment of the long-tail paper.

    The initially labeled originals come first, once and as they are; then the pool that is made of
    the rest, doubled by mirror images if ``flips`` and inflated by ``factor`` unless it is 1.

    Parameters
    ----------
    initial, rest
        ``(k,)`` and ``(m,)`` int64 ids of originals.

    >>> generator = torch.Generator().manual_seed(0)
    >>> len(inflated_view(torch.arange(10), torch.arange(10, 40), True, 3, generator))
    190
    """
    pool = original_pool(rest)
    if flips:
        pool = add_horizontal_flips(pool)
    if factor != 1:
        pool = inflate(pool, factor, generator)
    return join(original_pool(initial), pool)


def inflate(pool: PoolView, factor: float, generator: torch.Generator) -> PoolView:
    """Return a bootstrap sample of the pool, ``factor`` times as large (long-tail paper, 4.4).

    Every entry is drawn from the pool uniformly, with replacement; with a factor of 3 an entry
    appears three times on average, and one in twenty (e^-3) never.

    Parameters
    ----------
    pool
        The entries to draw from.
    factor
        Size of the result by the size of the pool, rounded to whole entries: at least one of them
        and at most ``MAX_ENTRIES``.
    generator
        A CPU generator.

    Raises
    ------
    TypeError
        The factor is no number.
    ValueError
        The factor is not positive and finite or leads to too few or too many entries, or the pool
        is empty.
    """
    if isinstance(factor, bool) or not isinstance(factor, numbers.Real):
        raise TypeError(f"factor must be a number, got {factor!r}")
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be positive and finite, got {factor}")
    if not len(pool):
        raise ValueError("pool must not be empty: there is nothing to draw")
    entries = factor * len(pool)
    if not 0.5 < entries <= MAX_ENTRIES:
        raise ValueError(
            f"factor must lead to 1 to {MAX_ENTRIES:,} entries, got {factor} times {len(pool):,}"
        )
    return pool[torch.randint(len(pool), (round(entries),), generator=generator)]
