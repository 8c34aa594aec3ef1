"""The exact traversal, once for all devices: bounds and heads.

Minimum distances only shrink, so a stale minimum is an upper bound (``bound``), and a row whose
bound is below the current radius needs no work. The rows with the highest bounds form a head. Their
minima are made exact, and the traversal runs inside the head for as long as its best row beats
every bound outside: each of those picks is the global one. Picks are then pending for all other
rows, and are applied to a row only when it reaches a head. So are the labeled samples
(``routing.py``).

Bounds may have any precision: an upper bound never lies below a decision value, a lower bound never
above it. Only decision values decide.
"""

import math
from typing import Generic

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.contract import Answer, Problem, Reached
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, P, on_one_scale
from dynal_fast.ops.farthest_first.routing import Centers

HEAD = 1024  # rows in a head by default
FRONT = 16 * HEAD  # at least so many rows are searched for heads
NOTHING = -(2**63)  # below every key


def keys(values: Tensor, rows: Tensor) -> Tensor:
    """Int64 keys in the order of picks: larger values first, the lower index first among equals.

    ``values`` float32 must be -inf or not negative, so that their bits sort as they do. The key of
    -inf, for rows that are never picked, is negative.
    """
    return (values.view(torch.int32).to(torch.int64) << 32) + (2**31 - 1 - rows.to(torch.int64))


class HeadTraversal(Generic[P]):
    """One traversal: what is known of each pool row, and the picks so far."""

    def __init__(self, problem: Problem, kernels: Kernels[P], pool: P, head: int) -> None:
        device, n = problem.pool.device, problem.pool.size
        self.problem, self.kernels, self.head = problem, kernels, head
        labeled = None
        if problem.labeled is not None:
            labeled = kernels.points(problem.labeled, "labeled")
        scaled = on_one_scale(kernels, problem.metric, pool, labeled)
        self.pool, labeled, self.exponent = scaled
        self.candidates = torch.arange(n, dtype=torch.int32, device=device)
        if problem.candidates is not None:
            self.candidates = problem.candidates.to(device, torch.int32)
        # (n,) each. bound: an upper bound of the smallest decision value, -inf for rows that are
        # never picked. exact: the smallest decision value to the centers applied so far. applied:
        # the number of picks applied (before: `routing.ROUTED`, `PROBED`).
        self.bound = torch.full((n,), -math.inf, device=device)
        self.bound[self.candidates] = math.inf
        self.exact = torch.full((n,), math.inf, device=device)
        self.applied = torch.zeros(n, dtype=torch.int32, device=device)
        members = torch.empty(0, dtype=torch.int32, device=device)
        if problem.labeled is not None:
            members = torch.arange(problem.labeled.size, dtype=torch.int32, device=device)
        elif problem.labeled_indices is not None:
            members = problem.labeled_indices.to(device, torch.int32)
        points = self.pool if labeled is None else labeled
        self.labeled = Centers(kernels, self.pool, points, members)
        # One pick more than asked for: its value is the largest distance that is left.
        self.limit = min(problem.k + 1, len(self.candidates))
        self.picks = torch.empty(self.limit, dtype=torch.int32, device=device)
        self.values = torch.empty(self.limit, device=device)
        self.count = 0
        self.front, self.outside = self.candidates[:0], NOTHING

    def run(self, reached: Reached) -> Answer:
        """Pick until done, reporting the number of picks to ``reached``."""
        k = self.problem.k
        if self.limit:
            self.labeled.route(self.candidates, self.bound, self.applied)
            if self.problem.start is not None and k:
                self.force(self.problem.start)
            elif self.labeled.size == 0:
                self.force(int(self.candidates[0]))
        while self.count < self.limit:
            self.advance()
            reached(min(self.count, k))
        left = float(self.values[k]) if self.limit > k else 0.0
        picks, values = self.picks[:k].to(torch.int64), self.values[:k].clone()
        return Answer(picks, values, left, self.exponent)

    def force(self, row: int) -> None:
        """Make ``row`` the first pick, whatever its value."""
        pick = torch.tensor([row], dtype=torch.int32, device=self.bound.device)
        self.labeled.make_exact(pick, self.bound, self.exact, self.applied)
        self.picks[0], self.values[0] = pick[0], self.exact[row]
        self.bound[row] = -math.inf
        self.count = 1
        if self.labeled.size == 0:
            others = self.candidates[self.candidates != row]
            self.kernels.bound(self.pool, self.pool, Groups.one(others, pick), self.bound)

    def advance(self) -> None:
        """Make the next head exact and take the picks that are certain, which may be none.

        The host waits for the device where it needs sizes: once in `next_head`, here, in `refresh`
        and in `traverse`, and a few more times while rows are compared with the labeled set.
        """
        head, outside, duplicates = self.next_head()
        if duplicates:
            self.take_duplicates()
            return
        self.labeled.promote(head, self.bound, self.exact, self.applied)
        applied, order = torch.sort(self.applied[head])
        head = head[order]
        sizes = torch.stack([(applied < 0).sum(), (applied < self.count).sum()])
        waiting, behind = sizes.tolist()
        self.apply_picks(head[waiting:behind], applied[waiting:behind])
        if waiting:
            rows = head[:waiting]
            outside = max(outside, int(keys(self.bound[rows], rows).max()))
        head = head[waiting:]
        if len(head) == 0:
            return
        self.count += self.kernels.traverse(
            self.pool,
            head.sort().values,
            outside,
            self.exact,
            self.picks[self.count :],
            self.values[self.count :],
        )
        self.bound[head] = self.exact[head]
        self.applied[head] = self.count

    def next_head(self) -> tuple[Tensor, int, bool]:
        """Return the rows with the highest bounds, in that order, and the highest key outside.

        Also whether the first of them, and so every row, is at distance 0.
        """
        for _ in range(2):
            order = keys(self.bound[self.front], self.front)
            top = torch.topk(order, min(self.head + 1, len(order)))
            if len(order):
                count = (top.values[: self.head] > max(self.outside, -1)).sum()[None]
                after = top.values.index_select(0, count.clamp(max=len(top.values) - 1))
                inside, outside, best = torch.cat([count, after, top.values[:1]]).tolist()
                if inside:
                    outside = outside if inside < len(top.values) else NOTHING
                    rows = self.front[top.indices[:inside]]
                    return rows, max(outside, self.outside), best >> 32 == 0
            self.advance_front()
        raise AssertionError("no candidate is left, but picks are")

    def advance_front(self) -> None:
        """Take the candidates with the highest bounds, to search them for the next heads."""
        size = max(FRONT, 4 * self.head, len(self.candidates) // 8)
        order = keys(self.bound[self.candidates], self.candidates)
        if size >= len(order):
            self.front, self.outside = self.candidates, NOTHING
            return
        top = torch.topk(order, size + 1, sorted=False)
        self.outside = int(top.values.min())
        self.front = self.candidates[top.indices[top.values > self.outside]]

    def apply_picks(self, stale: Tensor, first: Tensor) -> None:
        """Make ``stale`` rows exact for all picks; the ``first`` ones were applied before."""
        if len(stale) == 0:
            return
        oldest = int(first[0])
        groups = Groups.one(stale, self.picks[oldest : self.count])
        self.kernels.refresh(self.pool, self.pool, groups, first - oldest, self.bound, self.exact)
        self.bound[stale] = self.exact[stale]
        self.applied[stale] = self.count

    def take_duplicates(self) -> None:
        """Take what remains, which is all at distance 0: lowest indices first."""
        rest = self.candidates[self.bound[self.candidates] == 0][: self.limit - self.count]
        self.picks[self.count :] = rest
        self.values[self.count :] = 0
        self.bound[rest] = -math.inf
        self.count = self.limit
