"""This package's methods, called as a user calls them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynal_fast import EveryEpoch, PoolStats, Traversal
from dynal_fast import farthest_first as traverse
from dynal_fast.bench.cases import StatisticsCase, TraversalCase
from dynal_fast.bench.competitors import OURS, Method, Size, per_epoch, per_pick


def farthest_first(
    case: TraversalCase, data: tuple[Tensor, Tensor | None]
) -> Callable[[Size], Traversal]:
    """``dynal_fast.farthest_first``."""
    pool, labeled = data

    def run(size: Size) -> Traversal:
        cut = None if labeled is None else labeled[: size.labeled]
        return traverse(pool, size.amount, cut, progress=False)

    return run


def pool_stats(case: StatisticsCase, data: Tensor) -> Callable[[Size], dict[str, Any]]:
    """``PoolStats`` tracking prediction stability, label dispersion and the last margin."""
    names = ("prediction_stability", "label_dispersion", "margin")
    batches = torch.arange(case.n, device=data.device).split(case.batch)

    def run(size: Size) -> dict[str, Any]:
        stats = PoolStats(
            case.n,
            case.classes,
            track=names,
            schedules={name: EveryEpoch() for name in names},
            device=data.device,
        )
        for epoch in range(1, size.amount + 1):
            logits = case.epoch_logits(data, epoch).split(case.batch)
            with stats.observe(epoch, size.amount):
                for ids, batch in zip(batches, logits, strict=True):
                    stats.update(ids, batch)
        return {name: stats.score(name) for name in names}

    return run


METHODS = [
    Method(OURS, "farthest-first", farthest_first, per_pick, on_gpu=True),
    Method(OURS, "pool statistics", pool_stats, per_epoch, on_gpu=True),
]
