"""The nearest center of each row, once for all devices: bounds leave few clusters to each row."""

import math
from typing import Generic

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.contract import AssignmentAnswer, AssignmentProblem, Reached
from dynal_fast.ops.farthest_first.kernels import Kernels, P, on_one_scale
from dynal_fast.ops.farthest_first.routing import CHUNK, Centers

NOBODY = 2**63 - 1  # above every key
SHARE = 8  # so many times fewer rows at once than in `Centers`: each may need every cluster


class Nearest(Generic[P]):
    """One assignment: labeled rows are the first centers, then rows of the pool."""

    def __init__(self, problem: AssignmentProblem, kernels: Kernels[P]) -> None:
        self.problem, self.kernels = problem, kernels
        points = [kernels.points(problem.pool, "pool")]
        if problem.labeled is not None:
            points.append(kernels.points(problem.labeled, "labeled"))
        (self.pool, *outside), self.exponent = on_one_scale(kernels, points)
        self.sets: list[tuple[Centers[P], Tensor]] = []
        size = 0
        for labeled in outside:
            size = labeled.rows.size
            self.add(labeled, torch.arange(size), 0)
        self.add(self.pool, problem.indices, size)

    def add(self, points: P, members: Tensor, rank: int) -> None:
        """Add centers, ranked from ``rank`` on; a row that is there twice keeps its first rank."""
        if len(members) == 0:
            return
        device = self.problem.pool.device
        order = torch.arange(rank, rank + len(members), dtype=torch.int32)
        ranks = torch.full((points.rows.size,), 2**31 - 1, dtype=torch.int32)
        ranks.scatter_reduce_(0, members, order, "amin")
        rows = members.unique().to(device, torch.int32)
        self.sets.append((Centers(self.kernels, self.pool, points, rows), ranks.to(device)))

    def run(self, reached: Reached) -> AssignmentAnswer:
        """Assign every row, reporting the number of rows to ``reached``."""
        n, device = self.problem.pool.size, self.problem.pool.device
        bound = torch.full((n,), math.inf, device=device)
        keys = torch.full((n,), NOBODY, dtype=torch.int64, device=device)
        step = min([CHUNK, *(max(1, centers.tile // SHARE) for centers, _ in self.sets)])
        for rows in torch.arange(n, dtype=torch.int32, device=device).split(step):
            for centers, ranks in self.sets:
                centers.assign(rows, ranks, bound, keys)
                bound[rows] = torch.minimum(bound[rows], values_of(keys[rows]))
            reached(int(rows[-1]) + 1 if len(rows) else 0)
        nearest = torch.where(keys == NOBODY, -1, keys & 0xFFFFFFFF)
        return AssignmentAnswer(nearest, values_of(keys), self.exponent)


def values_of(keys: Tensor) -> Tensor:
    """The decision values of keys; inf for `NOBODY`."""
    values = (keys >> 32).to(torch.int32).view(torch.float32)
    return torch.where(keys == NOBODY, math.inf, values)
