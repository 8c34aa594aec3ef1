"""What is known of the rows of one matrix that race; what picks among them is elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.kernels import P
from dynal_fast.ops.farthest_first.routing import EXACT, Centers
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels


@dataclass(frozen=True)
class Block(Generic[P]):
    """Picks in order, of which the first one is number ``begin`` of all."""

    begin: int
    points: P
    fired: Fired


class Racers(Generic[P]):
    """The rows of ``points`` (n, d), each with its ``clock`` (n,) float64.

    Only ``candidates`` (m,) int32 race.
    """

    def __init__(
        self, kernels: RaceKernels[P], points: P, clock: Tensor, candidates: Tensor
    ) -> None:
        n, device = points.rows.size, candidates.device
        self.kernels, self.points, self.clock = kernels, points, clock
        self.candidates = candidates
        # (n,) each. bound: an upper bound of the rate, until that is known; applied: how many picks
        # are applied to the rate, -1 before it is known.
        self.bound = torch.full((n,), math.inf, device=device)
        self.clocks = Clocks(
            torch.full((n,), math.inf, device=device),
            torch.full((n,), math.inf, dtype=torch.float64, device=device),
        )
        self.applied = torch.full((n,), -1, dtype=torch.int32, device=device)
        self.sets: list[Centers[P]] = []  # what covers the rows from the start
        self.first = 0  # picks that are among it

    def cover(self, points: P, rows: Tensor) -> None:
        """Take in ``rows`` (m,) int32 of ``points``, which are labeled; before `begin`."""
        centers = Centers(self.kernels, self.points, points, rows)
        centers.begin()
        centers.route(self.candidates, self.bound)
        self.sets.append(centers)

    def begin(self) -> None:
        """Start the race at time 0, with the bounds that are known."""
        self.clocks.firing[self.candidates] = self.times_of(self.candidates, self.bound)

    def times_of(self, rows: Tensor, rates: Tensor) -> Tensor:
        """When ``rows`` fire whose clocks run at ``rates`` (n,) from time 0 on."""
        rate = rates[rows].to(torch.float64)
        return torch.where(rate > 0, self.clock[rows] / rate, math.inf)

    def rate_of(self, row: int) -> float:
        """The rate of a row for all that covers it from the start."""
        pick = torch.tensor([row], dtype=torch.int32, device=self.bound.device)
        for centers in self.sets:
            centers.make_exact(pick, self.bound, self.clocks.rates)
        return float(self.clocks.rates[row])

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

    def catch_up(self, rows: Tensor, blocks: Sequence[Block[P]], count: int) -> None:
        """Apply to ``rows``, whose rates are known, what they lack of ``count`` picks in all."""
        applied, order = torch.sort(self.applied[rows])
        behind = int((applied < count).sum())
        if behind == 0:
            return
        stale, first = rows[order[:behind]], applied[:behind]
        oldest = int(first[0])
        for block in blocks:
            begin, fired = block.begin, block.fired
            end = begin + len(fired.rows)
            if end <= oldest:
                continue
            lacking = int((first < end).sum())
            since = (first[:lacking] - begin).clamp(min=0)
            skipped = int(since[0])
            left = Fired(*(part[skipped:] for part in fired))
            self.kernels.advance(
                self.points, stale[:lacking], block.points, since - skipped, left, self.clocks
            )
        self.applied[stale] = count
