"""The race, lazily, once for all devices: only samples that may fire soon know their rates.

Rates only drop, so a firing time that was computed with the rate of an earlier time is too early,
never too late: to the bit, as ``t + (firing - t) * w / v`` is not below ``firing`` for w > v in
float64, rounded as it is. The rows that fire earliest by what is known of them form a *head*. They
catch up with the picks that they lack, in order; then those that still fire before every row
outside race among themselves, for as long as they do. Each of those picks is that of the direct
race. All other rows catch up when they reach a head.

Before a row is exact for the labeled samples, an upper bound stands for its rate (``routing.py`` of
farthest-first), which gives a time that is too early, too.
"""

import math
from typing import Generic

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.contract import Reached
from dynal_fast.ops.farthest_first.kernels import P, on_one_scale
from dynal_fast.ops.farthest_first.routing import Centers
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, Race
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels

HEAD = 2048  # rows in a head: fewer heads cost more comparisons inside each (README.md)
FRONT = 8 * HEAD  # at least so many rows are searched for heads


class LazyRace(Generic[P]):
    """One sampling: what is known of each pool row, and the picks so far."""

    def __init__(self, race: Race, kernels: RaceKernels[P], pool: P, head: int) -> None:
        problem = race.problem
        device, n = problem.pool.device, problem.pool.size
        self.problem, self.kernels, self.head = problem, kernels, head
        self.outer = None
        if problem.labeled is not None:
            self.outer = kernels.points(problem.labeled, "labeled")
        scaled = on_one_scale(kernels, problem.metric, pool, self.outer)
        self.pool, self.outer, self.exponent = scaled
        self.candidates = torch.arange(n, dtype=torch.int32, device=device)
        if problem.candidates is not None:
            self.candidates = problem.candidates.to(device, torch.int32)
        self.clock = torch.from_numpy(race.clock).to(device)
        # (n,) each. bound: an upper bound of the rate, until the rate itself is known. applied: the
        # number of picks applied (before: `routing.ROUTED`, `PROBED`).
        self.bound = torch.full((n,), math.inf, device=device)
        self.clocks = Clocks(
            torch.full((n,), math.inf, device=device),
            torch.full((n,), math.inf, dtype=torch.float64, device=device),
        )
        self.applied = torch.zeros(n, dtype=torch.int32, device=device)
        self.waiting = torch.zeros(n, dtype=torch.bool, device=device)
        self.waiting[self.candidates] = True
        k = problem.k
        self.fired = Fired(
            torch.empty(k, dtype=torch.int32, device=device),
            torch.empty(k, device=device),
            torch.zeros(k, dtype=torch.float64, device=device),
        )
        self.count = 0
        self.front, self.outside = self.candidates[:0], math.inf

    def run(self, reached: Reached) -> Drawn:
        """Pick until done, reporting the number of picks to ``reached``."""
        if self.problem.k:
            self.begin()
        while self.count < self.problem.k:
            self.advance()
            reached(self.count)
        indices = self.fired.rows.to(torch.int64)
        return Drawn(indices, self.fired.values.clone(), self.exponent)

    def begin(self) -> None:
        """Bound all rates by the labeled samples, or by the first pick where there are none."""
        start, device = self.problem.start, self.bound.device
        points, members = self.pool, self.candidates[:0]
        if self.outer is not None:
            points = self.outer
            members = torch.arange(self.outer.rows.size, dtype=torch.int32, device=device)
        elif self.problem.labeled_indices is not None:
            members = self.problem.labeled_indices.to(device, torch.int32)
        self.first = 0  # picks that count as labeled
        if len(members) == 0:
            if start is None:
                start = int(self.candidates[self.clock[self.candidates].argmin()])
                self.clock -= self.clock[start].clone()
            points, self.first = self.pool, 1
            members = torch.tensor([start], dtype=torch.int32, device=device)
        self.centers = Centers(self.kernels, self.pool, points, members)
        self.centers.route(self.candidates, self.bound, self.applied)
        self.clocks.firing[self.candidates] = self.times_of(self.candidates, self.bound)
        if start is not None:
            self.force(start)

    def force(self, start: int) -> None:
        """Make ``start`` the first pick, at time 0."""
        pick = torch.tensor([start], dtype=torch.int32, device=self.bound.device)
        value = math.inf
        if self.first == 0:
            self.centers.make_exact(pick, self.bound, self.clocks.rates, self.applied)
            value = float(self.clocks.rates[start])
        self.fired.rows[0], self.fired.values[0], self.count = start, value, 1
        self.waiting[start] = False
        self.clocks.firing[start] = math.inf

    def times_of(self, rows: Tensor, rates: Tensor) -> Tensor:
        """When ``rows`` fire whose clocks run at ``rates`` (n,) from time 0 on."""
        rate = rates[rows].to(torch.float64)
        return torch.where(rate > 0, self.clock[rows] / rate, math.inf)

    def advance(self) -> None:
        """Let the next head catch up, and race in it, which may give no pick."""
        head, outside = self.next_head()
        if len(head) == 0:
            self.take_duplicates()
            return
        unknown = head[self.applied[head] < 0]
        if len(unknown):
            outside = min(outside, self.promote(unknown))
            head = head[self.applied[head] >= 0]
        self.catch_up(head)
        racing = head[self.clocks.firing[head] < outside].sort().values
        if len(racing) == 0:
            return
        fired = Fired(*(part[self.count :] for part in self.fired))
        picked = self.kernels.race(self.pool, racing, outside, fired, self.clocks)
        self.waiting[fired.rows[:picked]] = False
        self.count += picked
        self.applied[racing] = self.count

    def promote(self, rows: Tensor) -> float:
        """Compare rows with more of the labeled samples; return when those fire that need more."""
        self.centers.promote(rows, self.bound, self.clocks.rates, self.applied)
        exact = self.applied[rows] >= 0
        known, rest = rows[exact], rows[~exact]
        self.clocks.firing[known] = self.times_of(known, self.clocks.rates)
        self.applied[known] = self.first
        if len(rest) == 0:
            return math.inf
        times = self.times_of(rest, self.bound)
        self.clocks.firing[rest] = times
        return float(times.min())

    def catch_up(self, rows: Tensor) -> None:
        """Apply to ``rows`` the picks that they lack."""
        applied, order = torch.sort(self.applied[rows])
        behind = int((applied < self.count).sum())
        if behind == 0:
            return
        stale, first = rows[order[:behind]], applied[:behind]
        oldest = int(first[0])
        fired = Fired(*(part[oldest : self.count] for part in self.fired))
        self.kernels.advance(self.pool, stale, first - oldest, fired, self.clocks)
        self.applied[stale] = self.count

    def next_head(self) -> tuple[Tensor, float]:
        """Return the rows that fire earliest, none if all do at infinity, and when others may."""
        for _ in range(2):
            times = self.clocks.firing[self.front]
            top = torch.topk(times, min(self.head + 1, len(times)), largest=False)
            outside = self.outside
            if len(times) > self.head:
                outside = min(outside, float(top.values[-1]))
            head = self.front[top.indices[top.values < outside]]
            if len(head):
                return head, outside
            self.advance_front()
        left = self.candidates[self.waiting[self.candidates]]  # all that are first fire together
        times = self.clocks.firing[left]
        earliest = times.min()
        if earliest == math.inf:
            return left[:0], math.inf
        later = times[times > earliest]
        return left[times == earliest], float(later.min()) if len(later) else math.inf

    def advance_front(self) -> None:
        """Take the candidates that fire earliest, to search them for the next heads."""
        size = max(FRONT, 4 * self.head, len(self.candidates) // 8)
        self.front, self.outside = self.candidates, math.inf
        if size < len(self.candidates):
            times = self.clocks.firing[self.candidates]
            top = torch.topk(times, size + 1, largest=False, sorted=False)
            self.outside = float(top.values.max())
            self.front = self.candidates[top.indices[top.values < self.outside]]

    def take_duplicates(self) -> None:
        """Take what remains, which is all at rate 0: lowest indices first."""
        left = self.candidates[self.waiting[self.candidates]]
        self.fired.rows[self.count :] = left[: self.problem.k - self.count]
        self.fired.values[self.count :] = 0
        self.count = self.problem.k
