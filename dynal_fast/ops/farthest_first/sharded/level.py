"""How many rows of all ranks lie above a key: agreed with small histograms."""

from collections.abc import Callable

import torch
from torch import Tensor

from dynal_fast.collective import Collective

BINS = 64


def level_of(
    collective: Collective, above: Callable[[int], Tensor], low: int, high: int, most: int
) -> tuple[int, int]:
    """Return a key that at most ``most`` keys of all ranks exceed, and how many do.

    ``above(key)`` are this rank's keys that exceed ``key``, at most ``high``, from 0 on. The level
    is at least ``low``. Unless fewer keys than that exceed ``low``, or more are equal, at least
    half of ``most`` exceed the level.

    >>> from dynal_fast.collective import Alone
    >>> keys = torch.tensor([5, 900, 901, 902, 10**12])
    >>> level, count = level_of(Alone(), lambda low: keys[keys > low], -1, 2**62, 3)
    >>> count, keys[keys > level].tolist()
    (3, [901, 902, 1000000000000])
    """
    low = max(low, -1)
    keys, passed = above(low), 0
    while True:
        width = max(1, -(-(high - low) // BINS))
        inside = keys[(keys > low) & (keys <= high)]
        bins = torch.bincount((inside - (low + 1)) // width, minlength=BINS)
        counts = collective.total(bins.tolist())
        below = level = low
        for place in reversed(range(BINS)):
            if passed + counts[place] > most:
                below, level = low + place * width, min(low + (place + 1) * width, high)
                break
            passed += counts[place]
        if level == low or 2 * passed >= most or width == 1:
            return level, passed
        low, high = below, level
