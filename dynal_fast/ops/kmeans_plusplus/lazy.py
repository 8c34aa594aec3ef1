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
from dynal_fast.ops.farthest_first.routing import EXACT, Centers
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, Race
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels

HEAD = 2048  # rows in a head: fewer heads cost more comparisons inside each (README.md)
FRONT = 8 * HEAD  # at least so many rows are searched for heads


class LazyRace(Generic[P]):
    """One sampling: what is known of each pool row, and the picks so far."""

    def __init__(self, race: Race, kernels: RaceKernels[P], pool: P, head: int) -> None:
        device, n, k = race.pool.device, race.pool.size, race.k
        self.k, self.start, self.kernels, self.head = k, race.start, kernels, head
        added = [] if race.outside is None else [kernels.points(race.outside, "labeled")]
        (self.pool, *outer), self.exponent = on_one_scale(kernels, [pool, *added])
        self.labeled = [(points, torch.arange(points.rows.size)) for points in outer]
        self.labeled.append((self.pool, race.inside))
        self.candidates = race.free.nonzero().squeeze(1).to(device, torch.int32)
        self.clock = torch.from_numpy(race.clock).to(device)
        # (n,) each. bound: an upper bound of the rate, until that is known; applied: how many picks
        # are applied to the rate, -1 before it is known; waiting: may be picked.
        self.bound = torch.full((n,), math.inf, device=device)
        self.clocks = Clocks(
            torch.full((n,), math.inf, device=device),
            torch.full((n,), math.inf, dtype=torch.float64, device=device),
        )
        self.applied = torch.full((n,), -1, dtype=torch.int32, device=device)
        self.waiting = race.free.to(device)
        self.fired = Fired(
            torch.empty(k, dtype=torch.int32, device=device),
            torch.empty(k, device=device),
            torch.zeros(k, dtype=torch.float64, device=device),
        )
        self.count = 0
        self.front, self.outside = self.candidates[:0], math.inf

    def run(self, reached: Reached) -> Drawn:
        """Pick until done, reporting the number of picks to ``reached``."""
        if self.k:
            self.begin()
        while self.count < self.k:
            self.advance()
            reached(self.count)
        indices = self.fired.rows.to(torch.int64)
        return Drawn(indices, self.fired.values.clone(), self.exponent)

    def begin(self) -> None:
        """Bound all rates by the labeled samples, or by the first pick where there are none."""
        start, device = self.start, self.bound.device
        sets = [(points, rows) for points, rows in self.labeled if len(rows)]
        self.first = 0  # picks that count as labeled
        if not sets:
            if start is None:
                start = int(self.candidates[self.clock[self.candidates].argmin()])
                self.clock -= self.clock[start].clone()
            sets, self.first = [(self.pool, torch.tensor([start]))], 1
        self.sets: list[Centers[P]] = []
        for points, rows in sets:
            centers = Centers(self.kernels, self.pool, points, rows.to(device, torch.int32))
            centers.begin()
            centers.route(self.candidates, self.bound)
            self.sets.append(centers)
        self.clocks.firing[self.candidates] = self.times_of(self.candidates, self.bound)
        if start is not None:
            self.force(start)

    def force(self, start: int) -> None:
        """Make ``start`` the first pick, at time 0."""
        pick = torch.tensor([start], dtype=torch.int32, device=self.bound.device)
        value = math.inf
        if self.first == 0:
            for centers in self.sets:
                centers.make_exact(pick, self.bound, self.clocks.rates)
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
        known = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        for centers in self.sets:
            centers.promote(rows, self.bound, self.clocks.rates)
            known &= centers.stage[rows] == EXACT
        exact, rest = rows[known], rows[~known]
        self.clocks.firing[exact] = self.times_of(exact, self.clocks.rates)
        self.applied[exact] = self.first
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
        self.fired.rows[self.count :] = left[: self.k - self.count]
        self.fired.values[self.count :] = 0
        self.count = self.k
