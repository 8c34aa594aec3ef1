"""The methods of this package, called as a user calls them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dynal_fast import EveryEpoch, PoolStats, Traversal
from dynal_fast import farthest_first as traverse
from dynal_fast.bench.cases import TRACK, StatisticsCase, TraversalCase
from dynal_fast.bench.competitors.base import (
    OURS,
    Method,
    Size,
    Streamed,
    per_epoch,
    per_pick,
)
from dynal_fast.bench.competitors.statistics import stream


def farthest_first(
    case: TraversalCase, data: tuple[Tensor, Tensor | None]
) -> Callable[[Size], Traversal]:
    """``dynal_fast.farthest_first``."""
    pool, labeled = data

    def run(size: Size) -> Traversal:
        cut = None if labeled is None else labeled[: size.labeled]
        return traverse(pool, size.amount, cut, progress=False)

    return run


class Fused:
    """``PoolStats`` tracking ``TRACK``; ``backend`` as there."""

    def __init__(
        self, case: StatisticsCase, device: torch.device | str, backend: str | None = None
    ) -> None:
        every = {name: EveryEpoch() for name in TRACK}
        self.stats = PoolStats(
            case.n, case.classes, TRACK, schedules=every, device=device, backend=backend
        )

    def observe(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """One pass over the pool."""
        with self.stats.observe(1, 1):
            for ids, logits in batches:
                self.stats.update(ids, logits)

    def scores(self) -> dict[str, Tensor]:
        """Scores (n,) by name."""
        return {name: self.stats.score(name) for name in TRACK}


def pool_stats(case: StatisticsCase, data: Tensor) -> Callable[[Size], Streamed]:
    """``dynal_fast.PoolStats``."""
    return stream(case, data, Fused)


METHODS = [
    Method(OURS, "farthest-first", farthest_first, per_pick, on_gpu=True),
    Method(OURS, "pool statistics", pool_stats, per_epoch, on_gpu=True),
]
