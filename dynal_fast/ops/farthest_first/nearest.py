"""The nearest center of each row, over the primitives: bounds leave few clusters to each row."""

import math
from typing import Generic

import torch

from dynal_fast.ops.farthest_first.contract import Cover, Covered, Reached
from dynal_fast.ops.farthest_first.kernels import Kernels, P, on_one_scale
from dynal_fast.ops.farthest_first.routing import CHUNK, Centers

NOBODY = 2**63 - 1  # above every key
SHARE = 8  # so many times fewer rows at once than heads have: each may meet every cluster


class Nearest(Generic[P]):
    """The centers of one assignment: labeled rows first, then rows of the pool."""

    def __init__(self, cover: Cover, kernels: Kernels[P]) -> None:
        self.cover, self.kernels = cover, kernels
        pool, labeled = kernels.points(cover.pool, "pool"), None
        if cover.labeled is not None:
            labeled = kernels.points(cover.labeled, "labeled")
        self.pool, labeled, self.exponent = on_one_scale(kernels, cover.metric, pool, labeled)
        self.sets: list[tuple[Centers[P], torch.Tensor]] = []
        size = 0
        if labeled is not None:
            size = labeled.rows.size
            self.add(labeled, torch.arange(size), 0)
        self.add(self.pool, cover.indices, size)

    def add(self, points: P, members: torch.Tensor, rank: int) -> None:
        """Add rows of ``points`` as centers ranked from ``rank`` on; of equal ones the first."""
        if len(members) == 0:
            return
        device = self.cover.pool.device
        order = torch.arange(rank, rank + len(members), dtype=torch.int32)
        ranks = torch.full((points.rows.size,), 2**31 - 1, dtype=torch.int32)
        ranks.scatter_reduce_(0, members, order, "amin")
        rows = members.unique().to(device, torch.int32)
        self.sets.append((Centers(self.kernels, self.pool, points, rows), ranks.to(device)))

    def run(self, reached: Reached) -> Covered:
        """Assign every row, telling ``reached`` how far."""
        n, device = self.cover.pool.size, self.cover.pool.device
        bound = torch.full((n,), math.inf, device=device)
        keys = torch.full((n,), NOBODY, dtype=torch.int64, device=device)
        step = min([CHUNK, *(max(1, centers.tile // SHARE) for centers, _ in self.sets)])
        for rows in torch.arange(n, dtype=torch.int32, device=device).split(step):
            for centers, ranks in self.sets:
                centers.assign(rows, ranks, bound, keys)
                bound[rows] = torch.minimum(bound[rows], values_of(keys[rows]))
            reached(int(rows[-1]) + 1 if len(rows) else 0)
        nearest = torch.where(keys == NOBODY, -1, keys & 0xFFFFFFFF)
        return Covered(nearest, values_of(keys), self.exponent)


def values_of(keys: torch.Tensor) -> torch.Tensor:
    """The decision values of keys, inf where there is none."""
    values = (keys >> 32).to(torch.int32).view(torch.float32)
    return torch.where(keys == NOBODY, math.inf, values)
