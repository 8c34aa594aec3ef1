"""The exact traversal, once for all devices: bounds and heads.

Minimum distances only shrink, so a stale minimum is an upper bound (``bound``), and a row whose
bound is below the current radius needs no work. The rows with the highest bounds form a head. Their
minima are made exact, and the traversal runs inside the head for as long as its best row beats
every bound outside: each of those picks is the global one. Picks are then pending for all other
rows, and are applied to a row only when it reaches a head. So are the labeled samples
(``routing.py``).

All of this holds when a traversal has ended, too. So `HeadTraversal` keeps it, and the next picks
go on from there; labeled samples that come in between only lower minima further.

Bounds may have any precision: an upper bound never lies below a decision value, a lower bound never
above it. Only decision values decide.
"""

import copy
import math
from typing import Generic

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import routing
from dynal_fast.ops.farthest_first.contract import Answer, Reached, Rows
from dynal_fast.ops.farthest_first.highest import CHUNK, NOTHING, Highest, keys, pickable
from dynal_fast.ops.farthest_first.kernels import Cluster, Groups, Kernels, Known, P, on_one_scale
from dynal_fast.ops.farthest_first.routing import EXACT, Centers

HEAD = 1024  # rows in a head by default
FRONT = 16 * HEAD  # at least so many rows are searched for heads
WIDER = 64  # times more rows at most are looked at for a head, while nothing is picked
MANY = 128  # picks that a row lacks, from which on it meets the nearest of them first


class HeadTraversal(Generic[P]):
    """What is known of each row of a pool, and what covers it so far.

    A method that is interrupted leaves it unusable: whoever goes on after that works on a `copy`.
    """

    def __init__(
        self, kernels: Kernels[P], pool: P, head: int, candidates: Tensor | None = None
    ) -> None:
        n, self.device = pool.rows.size, pool.rows.device
        self.kernels, self.head = kernels, head
        self.points = [pool]  # and the labeled samples outside the pool, all on one scale
        self.exponent: int | None = None  # squared distances are in units of 4^-exponent
        # Increasing; those that were picked stay in, with bound -inf.
        self.candidates = torch.arange(n, dtype=torch.int32, device=self.device)
        if candidates is not None:
            self.candidates = candidates.to(self.device, torch.int32)
        self.available = len(self.candidates)  # how many may be picked
        # The highest rows that are looked at for a head: `head` to `most`, so many as pay now.
        self.most = head if self.device.type == "cuda" else max(head, min(WIDER * head, n // 16))
        self.forget()

    def forget(self) -> None:
        """Know of no distance, and of nothing that covers the pool."""
        n, device = self.points[0].rows.size, self.device
        # (n,) each. bound: an upper bound of the smallest decision value, -inf for rows that are
        # never picked. exact: the smallest decision value to the centers applied so far, unless
        # that exceeds the bound. applied: how many of `picks` were applied.
        self.bound = torch.full((n,), -math.inf, device=device)
        self.bound[self.candidates] = math.inf
        self.exact = torch.full((n,), math.inf, device=device)
        self.applied = torch.zeros(n, dtype=torch.int32, device=device)
        # What covers the pool: labeled samples in sets, of which `inside` are rows of the pool, and
        # rows of the pool one by one: the first `count` of `picks`, with their values when picked.
        self.sets: list[Centers[P]] = []
        self.inside = torch.empty(0, dtype=torch.int32, device=device)
        self.picks = torch.empty(0, dtype=torch.int32, device=device)
        self.values = torch.empty(0, device=device)
        self.count = 0
        self.highest, self.width = Highest(self.candidates), self.head
        # How many of the picks were in `clustered` when each row met the nearest of them: (n,).
        self.probed: Tensor | None = None
        self.clustered: Centers[P] | None = None
        # Rows exact for all sets and for `settled` picks, and the highest key of the other rows.
        self.inner, self.settled, self.beyond = self.candidates[:0], 0, NOTHING

    def copy(self) -> "HeadTraversal[P]":
        """A copy of all that changes."""
        other = copy.copy(self)
        other.probed = None if self.probed is None else self.probed.clone()
        for name in ("bound", "exact", "applied"):
            setattr(other, name, getattr(self, name).clone())
        other.highest = self.highest.copy()
        other.sets = [centers.copy() for centers in self.sets]
        return other

    @property
    def covers(self) -> bool:
        """Whether anything covers the pool."""
        return self.count > 0 or len(self.sets) > 0

    def cover(self, outside: Rows | None, rows: Tensor | None) -> None:
        """Take in labeled samples: embeddings outside the pool, and distinct ``rows`` of it."""
        added = [] if outside is None else [self.kernels.points(outside, "labeled")]
        self.rescale(added)
        for points in self.points[len(self.points) - len(added) :]:
            self.add(points, torch.arange(points.rows.size, device=self.device))
        if rows is not None:
            self.exclude(rows)
            self.add(self.points[0], rows.to(self.device))

    def exclude(self, rows: Tensor) -> None:
        """Never pick ``rows``."""
        self.bound[rows.to(self.device)] = -math.inf
        self.candidates = pickable(self.candidates, self.bound)
        self.inner = pickable(self.inner, self.bound)
        self.available = len(self.candidates)

    def rescale(self, added: list[P]) -> None:
        """Put all samples and the ``added`` ones on one scale.

        Where that differs from the one so far, which only larger elements can bring about, what is
        known is in other units, in which the smallest values would be rounded twice: start anew.
        """
        before = len(self.points)
        self.points, exponent = on_one_scale(self.kernels, [*self.points, *added])
        if self.exponent not in (None, exponent):
            rows = torch.cat([self.inside, self.picks])
            self.candidates = pickable(self.candidates, self.bound)
            self.forget()
            for points in self.points[1:before]:
                self.add(points, torch.arange(points.rows.size, device=self.device))
            self.add(self.points[0], rows)
        self.exponent = exponent

    def add(self, points: P, rows: Tensor) -> None:
        """Cover by ``rows`` of ``points``. Few of them may wait, as picks do: bounds hold."""
        rows = rows.to(torch.int32)
        inside, few = points is self.points[0], len(rows) < routing.CLUSTERED_FROM and self.covers
        if len(rows) == 0:
            return
        if few and inside:
            self.extend(len(rows))
            self.picks[self.count :] = rows
            self.count += len(rows)
            return
        centers = Centers(self.kernels, self.points[0], points, rows)
        centers.begin()
        if not few:
            centers.route(self.candidates, self.bound)
        if inside:
            self.inside = torch.cat([self.inside, rows])
        self.sets.append(centers)
        self.inner = self.inner[:0]

    def pick(self, k: int, start: int | None, reached: Reached) -> Answer:
        """Pick ``k`` of the available rows, reporting their number so far to ``reached``.

        ``start``: the first pick, whatever its value.
        """
        if self.exponent is None:
            self.rescale([])
        begin = self.count
        self.extend(k)
        left: float | None = None
        if not self.covers and self.available:
            start = int(self.candidates[0]) if start is None else start
            left = None if k else math.inf
        if start is not None and k:
            self.force(start)
        single = all(centers.clusters == 1 for centers in self.sets)
        at_once = single and self.kernels.at_once(len(self.candidates))
        while left is None:
            left = self.rounds() if at_once else self.round()
            reached(self.count - begin)
        picks = self.picks[begin:].to(torch.int64)
        return Answer(picks, self.values[begin:].clone(), left, self.exponent or 0)

    def extend(self, k: int) -> None:
        """Make room for ``k`` more picks."""
        self.picks = torch.cat([self.picks, self.picks.new_empty(k)])
        self.values = torch.cat([self.values, self.values.new_empty(k)])

    def force(self, row: int) -> None:
        """Make ``row`` the next pick, whatever its value."""
        pick = torch.tensor([row], dtype=torch.int32, device=self.device)
        alone, pool = not self.covers, self.points[0]
        self.make_exact(pick)
        self.take(pick, self.exact[pick])
        if alone:
            for chunk in reversed(self.candidates.split(routing.CHUNK)):  # as `Centers.route`
                self.kernels.bound(pool, pool, Groups.one(chunk[chunk != row], pick), self.bound)

    def take(self, rows: Tensor, values: Tensor | float) -> None:
        """Make ``rows`` the next picks."""
        places = slice(self.count, self.count + len(rows))
        self.picks[places], self.values[places] = rows, values
        self.bound[rows] = self.exact[rows] = -math.inf
        self.count += len(rows)
        self.available -= len(rows)

    def rounds(self) -> float | None:
        """Do some rounds of `advance` and `pick_inside` in one call."""
        clusters = [Cluster(each.points, each.members, each.stage) for each in self.sets]
        state = (self.candidates, self.bound, self.exact, self.applied, self.picks, self.values)
        count, left = self.kernels.rounds(self.points[0], clusters, Known(*state), self.count)
        self.available -= count - self.count
        self.count, self.inner = count, self.candidates[:0]
        return left

    def round(self) -> float | None:
        """Take the picks of a head, or make the next one."""
        left = self.pick_inside()
        return self.advance() if left is None else left

    def pick_inside(self) -> float | None:
        """Take the picks from the head that are certain.

        Returns the largest value that is left, once it is known and all picks are taken.
        """
        head = self.inner
        if len(head) == 0:
            self.width = min(2 * self.width, self.most)
            return None
        if self.settled < self.count:
            self.apply_picks(head, torch.full_like(head, self.settled))
        if self.count < len(self.picks):
            count = self.kernels.traverse(
                self.points[0],
                head,
                self.beyond,
                self.exact,
                self.picks[self.count :],
                self.values[self.count :],
            )
            self.count += count
            self.available -= count
        values = self.exact[head]
        self.bound[head] = values
        self.applied[head] = self.settled = self.count
        if self.count < len(self.picks) or int(keys(values, head).max()) <= max(self.beyond, -1):
            return None
        return float(values.max())

    def advance(self) -> float | None:
        """Make the next head exact, or as much of it as is worth it; 0 if all is at distance 0.

        The host waits for the device where it needs sizes: in `narrowed`, here, in `refresh`
        and in `traverse`, and a few more times while rows are compared with the labeled set.
        """
        if self.available == 0:
            return 0.0
        head, outside, best = self.highest.find(self.bound, self.width, max(FRONT, 4 * self.head))
        if best >> 32 == 0:  # all that remains are duplicates: lowest indices first
            room = len(self.picks) - self.count
            equal = [part[self.bound[part] == 0] for part in self.candidates.split(CHUNK)]
            self.take(torch.cat(equal)[:room], 0.0)
            return 0.0
        if self.most > self.head:
            head, outside = self.narrowed(head, outside)
        applied = self.applied[head]
        for centers in self.sets:
            centers.promote(head, self.bound, self.exact)
            applied = torch.where(centers.stage[head] == EXACT, applied, -1)
        applied, order = torch.sort(applied)
        head = head[order]
        sizes = torch.stack([(applied < 0).sum(), (applied < self.count).sum()])
        waiting, behind = sizes.tolist()
        self.apply_picks(head[waiting:behind], applied[waiting:behind])
        if waiting:
            rows = head[:waiting]
            outside = max(outside, int(keys(self.bound[rows], rows).max()))
        self.inner, self.settled = head[waiting:].sort().values, self.count
        self.beyond = outside
        return None

    def narrowed(self, rows: Tensor, outside: int) -> tuple[Tensor, int]:
        """Lower the bounds of ``rows`` by the picks; return the highest and the highest key left.

        Rows that lack many picks are compared with the nearest ones. That sends most of them back.
        """
        many = max(MANY, self.count // 8)
        applied = self.applied[rows]
        met = applied if self.probed is None else torch.maximum(applied, self.probed[rows])
        self.probe_picks(rows[self.count - met >= many], many)
        few = (applied < self.count) & (applied > self.count - many)
        first, order = torch.sort(applied[few])
        self.apply_picks(rows[few][order], first)
        order = keys(self.bound[rows], rows)
        if len(rows) > self.head:
            outside = max(outside, int(torch.topk(order, self.head + 1).values[-1]))
        return rows[order > outside], outside

    def probe_picks(self, rows: Tensor, many: int) -> None:
        """Bound ``rows`` by the picks nearest to them, but for less than ``many`` of the last."""
        if len(rows) == 0:
            return
        pool, clustered = self.points[0], self.clustered
        if clustered is None or self.count - clustered.size > many // 2:
            picks = self.picks[: self.count]
            clustered = self.clustered = Centers(self.kernels, pool, pool, picks, many=1)
        for chunk in rows.split(clustered.chunk):
            clustered.probe(chunk, self.bound, min(routing.PROBES, clustered.clusters))
        if self.probed is None:
            self.probed = torch.zeros_like(self.applied)
        self.probed[rows] = clustered.size

    def apply_picks(self, stale: Tensor, first: Tensor) -> None:
        """Make ``stale`` rows exact for all picks; the ``first`` ones were applied before."""
        if len(stale) == 0:
            return
        oldest, pool = int(first[0]), self.points[0]
        groups = Groups.one(stale, self.picks[oldest : self.count])
        self.kernels.refresh(pool, pool, groups, first - oldest, self.bound, self.exact)
        self.bound[stale] = torch.minimum(self.bound[stale], self.exact[stale])
        self.applied[stale] = self.count

    def make_exact(self, rows: Tensor) -> None:
        """Make ``rows`` exact for all that covers the pool."""
        for centers in self.sets:
            for _ in range(EXACT):  # at most so many steps
                centers.promote(rows, self.bound, self.exact)
        applied, order = torch.sort(self.applied[rows])
        behind = int((applied < self.count).sum())
        self.apply_picks(rows[order[:behind]], applied[:behind])

    def minima(self) -> Tensor:
        """(n,) float32: each row's decision value to what is nearest, inf if nothing covers it.

        Rows that cover are at 0. Bounds are exact then, so that the next call costs little.
        """
        if self.exponent is None:
            self.rescale([])
        covering = torch.zeros(len(self.bound), dtype=torch.bool, device=self.device)
        covering[torch.cat([self.inside, self.picks])] = True
        never = (self.bound < 0) & ~covering
        self.bound[never] = math.inf
        for rows in (~covering).nonzero().squeeze(1).to(torch.int32).split(routing.CHUNK):
            self.make_exact(rows)
        self.bound[never] = -math.inf
        return torch.where(covering, 0, self.exact)
