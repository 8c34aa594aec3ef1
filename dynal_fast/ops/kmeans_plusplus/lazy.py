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
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, Race
from dynal_fast.ops.kmeans_plusplus.kernels import Fired, RaceKernels
from dynal_fast.ops.kmeans_plusplus.racers import Block, Racers

HEAD = 2048  # rows in a head: fewer heads cost more comparisons inside each (README.md)
FRONT = 8 * HEAD  # at least so many rows are searched for heads


class LazyRace(Generic[P]):
    """One sampling: what is known of each pool row, and the picks so far."""

    def __init__(self, race: Race, kernels: RaceKernels[P], pool: P, head: int) -> None:
        device, k = race.pool.device, race.k
        self.k, self.start, self.kernels, self.head = k, race.start, kernels, head
        added = [] if race.outside is None else [kernels.points(race.outside, "labeled")]
        (self.pool, *outer), self.exponent = on_one_scale(kernels, [pool, *added])
        self.labeled = [(points, torch.arange(points.rows.size)) for points in outer]
        self.labeled.append((self.pool, race.inside))
        self.candidates = race.free.nonzero().squeeze(1).to(device, torch.int32)
        clock = torch.from_numpy(race.clock).to(device)
        self.racers = Racers(kernels, self.pool, clock, self.candidates)
        self.clocks = self.racers.clocks
        self.waiting = race.free.to(device)  # (n,): may be picked
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
        start, racers = self.start, self.racers
        sets = [(points, rows) for points, rows in self.labeled if len(rows)]
        if not sets:
            if start is None:
                start = int(self.candidates[racers.clock[self.candidates].argmin()])
                racers.clock -= racers.clock[start].clone()
            sets, racers.first = [(self.pool, torch.tensor([start]))], 1
        for points, rows in sets:
            racers.cover(points, rows.to(self.candidates.device, torch.int32))
        racers.begin()
        if start is not None:
            self.force(start)

    def force(self, start: int) -> None:
        """Make ``start`` the first pick, at time 0."""
        value = math.inf if self.racers.first else self.racers.rate_of(start)
        self.fired.rows[0], self.fired.values[0], self.count = start, value, 1
        self.waiting[start] = False
        self.clocks.firing[start] = math.inf

    def advance(self) -> None:
        """Let the next head catch up, and race in it, which may give no pick."""
        head, outside = self.next_head()
        if len(head) == 0:
            self.take_duplicates()
            return
        applied = self.racers.applied
        unknown = head[applied[head] < 0]
        if len(unknown):
            outside = min(outside, self.racers.promote(unknown))
            head = head[applied[head] >= 0]
        picks = Block(0, self.pool, Fired(*(part[: self.count] for part in self.fired)))
        self.racers.catch_up(head, [picks], self.count)
        racing = head[self.clocks.firing[head] < outside].sort().values
        if len(racing) == 0:
            return
        fired = Fired(*(part[self.count :] for part in self.fired))
        picked = self.kernels.race(self.pool, racing, outside, fired, self.clocks)
        self.waiting[fired.rows[:picked]] = False
        self.count += picked
        applied[racing] = self.count

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
