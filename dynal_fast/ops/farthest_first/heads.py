"""The exact algorithm, once for all devices: bounds and heads.

Minimum distances only shrink, so a stale minimum is an upper bound (``bound``), and a row whose
bound lies under the current radius needs no work at all. The rows with the highest bounds form a
head. Their minima are made exact, and the traversal runs inside the head for as long as its best
row comes before every bound outside: each of those picks is provably the global one. The picks
are then pending for all other rows and are applied to a row only when it reaches a head. The
labeled samples are pending in the same way (``routing.py``).

Filters may work at any precision: an upper bound never lies below a decision value, a lower bound
never above it, and everything that decides is a decision value itself.
"""

import math
from typing import Generic

import torch

from dynal_fast.ops.farthest_first.contract import Answer, Problem, Reached
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, P, on_one_scale
from dynal_fast.ops.farthest_first.routing import Centers

HEAD = 1024  # rows in a head, unless the device does better with more
FRONT = 16 * HEAD  # rows among which heads are sought, at least
NOTHING = -(2**63)  # below every key


def keys(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Int64 keys that order rows as picks go: by value, the lower index first among equals.

    ``values`` float32 are -inf or not negative, so that their bits order as they do; the key of a
    row with -inf, which is never picked, is negative.
    """
    return (values.view(torch.int32).to(torch.int64) << 32) + (2**31 - 1 - rows.to(torch.int64))


class HeadTraversal(Generic[P]):
    """The state of one traversal: what is known of each pool row, and the picks so far."""

    def __init__(
        self, problem: Problem, kernels: Kernels[P], pool: P, head: int | None = None
    ) -> None:
        device, n = problem.pool.device, problem.pool.size
        self.problem, self.kernels = problem, kernels
        self.head = HEAD if head is None else head
        labeled = None
        if problem.labeled is not None:
            labeled = kernels.points(problem.labeled, "labeled")
        scaled = on_one_scale(kernels, problem.metric, pool, labeled)
        self.pool, labeled, self.exponent = scaled
        self.candidates = torch.arange(n, dtype=torch.int32, device=device)
        if problem.candidates is not None:
            self.candidates = problem.candidates.to(device, torch.int32)
        # (n,) each: an upper bound of the smallest decision value, -inf where never to be picked;
        # the smallest decision value to the centers applied so far; the number of picks applied.
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
        # One pick more than asked for: its value is what is left.
        self.limit = min(problem.k + 1, len(self.candidates))
        self.picks = torch.empty(self.limit, dtype=torch.int32, device=device)
        self.values = torch.empty(self.limit, device=device)
        self.count = 0
        self.front, self.outside = self.candidates[:0], NOTHING

    def run(self, reached: Reached) -> Answer:
        """Pick until done, telling ``reached`` how far."""
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
        self.labeled.compare(pick, self.bound, self.exact, self.applied)
        self.picks[0], self.values[0] = pick[0], self.exact[row]
        self.bound[row] = -math.inf
        self.count = 1
        if self.labeled.size == 0:
            others = self.candidates[self.candidates != row]
            self.kernels.bound(self.pool, self.pool, Groups.one(others, pick), self.bound)

    def advance(self) -> None:
        """Make the next head exact and take the picks that are certain, which may be none.

        The host waits for the device when it asks for sizes: once in `next_head`, here, in
        `refresh` and in `traverse`, and a few times more while rows meet the labeled set.
        """
        head, outside, duplicates = self.next_head()
        if duplicates:
            self.take_duplicates()
            return
        self.labeled.seed(head, self.bound, self.exact, self.applied)
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

    def next_head(self) -> tuple[torch.Tensor, int, bool]:
        """The rows that come first by their bounds, in that order, and the first key outside.

        And whether the first of them, and so every row, is at distance 0.
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
        """Seek the next heads among the candidates with the highest bounds."""
        size = max(FRONT, 4 * self.head, len(self.candidates) // 8)
        order = keys(self.bound[self.candidates], self.candidates)
        if size >= len(order):
            self.front, self.outside = self.candidates, NOTHING
            return
        top = torch.topk(order, size + 1, sorted=False)
        self.outside = int(top.values.min())
        self.front = self.candidates[top.indices[top.values > self.outside]]

    def apply_picks(self, stale: torch.Tensor, first: torch.Tensor) -> None:
        """Make ``stale`` rows exact with respect to all picks; they have met ``first`` of them."""
        if len(stale) == 0:
            return
        oldest = int(first[0])
        groups = Groups.one(stale, self.picks[oldest : self.count])
        self.kernels.refresh(self.pool, self.pool, groups, first - oldest, self.bound, self.exact)
        self.bound[stale] = self.exact[stale]
        self.applied[stale] = self.count

    def take_duplicates(self) -> None:
        """All that remains is at distance 0: the lowest indices first."""
        rest = self.candidates[self.bound[self.candidates] == 0][: self.limit - self.count]
        self.picks[self.count :] = rest
        self.values[self.count :] = 0
        self.bound[rest] = -math.inf
        self.count = self.limit
