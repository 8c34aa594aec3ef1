"""The race of a pool that many ranks hold: the same picks as of one.

When a row fires is a property of its clock and of the picks so far, so it does not matter where it
is computed. In a round

1. all ranks agree on a *level*, a time before which a given number of rows may fire by what is
   known of them, and bring these up to date (`Racers`); no other row can fire before it;
2. they agree on a second level, before which no more of these rows fire than are worth sending;
3. these rows go to every rank, with their rates and times: those that were sent before, by number;
4. every rank runs the same race among them up to the second level, and so knows the picks without
   being told.

Ties of times go by the global row number, as on one rank.
"""

import math
from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed
from dynal_fast.collective.packing import as_bytes, numbers_of
from dynal_fast.collective.shards import first_of
from dynal_fast.ops.farthest_first.contract import Reached
from dynal_fast.ops.farthest_first.kernels import P
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.sharded.kept import Kept
from dynal_fast.ops.farthest_first.sharded.labeled import union_of
from dynal_fast.ops.farthest_first.sharded.level import level_of
from dynal_fast.ops.farthest_first.sharded.open import Measured, as_request, measure, open_pool
from dynal_fast.ops.farthest_first.sharded.part import Picks, as_matrix, row_bytes, taken
from dynal_fast.ops.kmeans_plusplus import reference
from dynal_fast.ops.kmeans_plusplus.backends import primitives_of
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, as_seed, as_start
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels
from dynal_fast.ops.kmeans_plusplus.racers import Block, Racers

GATHERED = 256  # rows that are sent in a round, at most
HEAD = 2048  # rows of all ranks that are brought up to date in a round
LAST = torch.iinfo(torch.int64).max
AfterRound = Callable[["ShardedRace[Any]"], None]


def keys_of(times: Tensor) -> Tensor:
    """Int64 keys of times, not negative: the earlier, the larger.

    >>> keys = keys_of(torch.tensor([0.5, math.inf, 0.0], dtype=torch.float64))
    >>> keys.argsort(descending=True)
    tensor([2, 0, 1])
    """
    return LAST - times.view(torch.int64)


def time_of(key: int) -> float:
    """The time of a key."""
    return float(torch.tensor(LAST - key).view(torch.float64))


NEVER = int(keys_of(torch.tensor(math.inf, dtype=torch.float64)))


class ShardedRace(Generic[P]):
    """What all ranks know, and the rows of this one, whose first has the number ``first``."""

    def __init__(
        self,
        collective: Collective,
        kernels: RaceKernels[P],
        racers: Racers[P],
        first: int,
        exponent: int,
    ) -> None:
        self.collective, self.kernels, self.racers = collective, kernels, racers
        self.first, self.exponent, self.like = first, exponent, racers.points.rows
        self.device = self.like.device
        self.picks = Picks(kernels, self.like, exponent)
        self.times = torch.empty(0, dtype=torch.float64, device=self.device)  # of the picks
        self.numbers: list[int] = []
        self.values: list[float] = []
        self.kept = Kept(row_bytes(self.like), GATHERED)
        self.rounds = 0

    def run(self, k: int, start: int | None, reached: Reached, after_round: AfterRound) -> Drawn:
        """Pick ``k`` rows; ``start``: the global number of the first one."""
        if k:
            self.begin(start)
        while len(self.numbers) < k:
            self.round(k)
            reached(len(self.numbers))
            after_round(self)
        indices = torch.tensor(self.numbers, dtype=torch.int64, device=self.device)
        values = torch.tensor(self.values, dtype=torch.float32, device=self.device)
        return Drawn(indices, values, self.exponent)

    def begin(self, start: int | None) -> None:
        """Start the race; where nothing is labeled, with the shortest clock."""
        racers, covered = self.racers, bool(self.racers.sets)
        if not covered and start is None:
            start = self.shortest_clock()
        if start is None:
            racers.begin()
            return
        own = start - self.first
        mine = 0 <= own < len(racers.bound)
        value = racers.rate_of(own) if mine and covered else math.inf
        rows = torch.tensor([own] if mine else [], dtype=torch.int32, device=self.device)
        rates = torch.full((len(rows),), value, device=self.device)
        numbers, rates, _, sent = self.gather(rows, rates, torch.zeros_like(rates).double())
        self.take(numbers, rates.tolist(), torch.zeros(1, dtype=torch.float64), sent)
        if not covered:
            racers.first = 1
            _, points = self.picks.blocks[0]
            racers.cover(points, torch.zeros(1, dtype=torch.int32, device=self.device))
        racers.begin()
        self.retire(numbers)

    def shortest_clock(self) -> int:
        """The row of all ranks with the shortest clock, by which all clocks go back."""
        racers = self.racers
        own = keys_of(racers.clock[racers.candidates])
        (key,) = self.collective.largest([int(own.max()) if len(own) else NEVER])
        first = racers.candidates[own == key][:1].tolist()
        number = first[0] + self.first if first else LAST
        (negative,) = self.collective.largest([-number])
        racers.clock -= time_of(key)
        return -negative

    def round(self, k: int) -> None:
        """Pick what is certain."""
        self.rounds += 1
        firing = keys_of(self.racers.clocks.firing)
        (top,) = self.collective.largest([int(firing.max()) if len(firing) else NEVER])
        if top <= NEVER:  # all that remains is at distance 0: lowest indices first
            self.take_duplicates(k - len(self.numbers))
            return
        level, _ = self.level(firing, NEVER, top, HEAD)
        rows = self.up_to_date(level)
        own = keys_of(self.racers.clocks.firing[rows])
        (top,) = self.collective.largest([int(own.max()) if len(own) else NEVER])
        if top <= level:
            return
        outside, _ = self.level(own, level, top, GATHERED)
        self.race(rows[own > outside], time_of(outside), k - len(self.numbers))

    def level(self, own: Tensor, low: int, top: int, most: int) -> tuple[int, int]:
        """A key, at least ``low``, that some keys of all ranks exceed: at most ``most`` of them.

        Where more have the key ``top``, the largest one, these exceed it.
        """
        own = own.cpu()
        level, count = level_of(self.collective, lambda key: own[own > key], low, top, most)
        return (level, count) if count else (top - 1, most)

    def up_to_date(self, level: int) -> Tensor:
        """Bring all rows up to date that may fire before a level; return those that do, sorted."""
        racers = self.racers
        rows, blocks = racers.candidates, self.blocks()
        while True:
            rows = rows[keys_of(racers.clocks.firing[rows]) > level]
            known = racers.applied[rows] >= 0
            stale = rows[known & (racers.applied[rows] < len(self.numbers))]
            if len(stale) == 0 and bool(known.all()):
                return rows
            racers.catch_up(stale, blocks, len(self.numbers))
            if not bool(known.all()):
                racers.promote(rows[~known])

    def blocks(self) -> list[Block[P]]:
        """The picks, which every rank has."""
        found = []
        for begin, points in self.picks.blocks:
            rows = torch.arange(points.rows.size, dtype=torch.int32, device=self.device)
            times = self.times[begin : begin + len(rows)]
            found.append(Block(begin, points, Fired(rows, times.float(), times)))
        return found

    def gather(
        self, rows: Tensor, rates: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Send this rank's ``rows`` to all; return numbers, rates, times and rows as bytes of all.

        In the order of their numbers.
        """
        numbers = rows.to("cpu", torch.int64) + self.first
        told = (numbers[:, None], times.cpu()[:, None], rates.cpu()[:, None])
        heads = torch.cat([as_bytes(part) for part in told], dim=1)
        known = self.kept.holds(numbers)
        bodies = taken(self.like, rows[(~known).to(rows.device)])
        counts = self.collective.counts([int((~known).sum()), int(known.sum())])
        message = torch.cat([heads[~known], bodies], dim=1)
        sent = self.collective.rows(message, [new for new, _ in counts])
        every, sent = sent[:, : heads.shape[1]], sent[:, heads.shape[1] :]
        if any(old for _, old in counts):
            more = self.collective.rows(heads[known], [old for _, old in counts])
            again = self.kept.rows(numbers_of(more[:, :8], torch.int64))
            every, sent = torch.cat([every, more]), torch.cat([sent, again])
        numbers = numbers_of(every[:, :8], torch.int64)
        order = numbers.argsort()
        times = numbers_of(every[:, 8:16], torch.float64)
        rates = numbers_of(every[:, 16:], torch.float32)
        return numbers[order], rates[order], times[order], sent[order]

    def race(self, rows: Tensor, outside: float, room: int) -> None:
        """Race among ``rows`` of all ranks until ``outside``."""
        clocks = self.racers.clocks
        numbers, rates, times, sent = self.gather(rows, clocks.rates[rows], clocks.firing[rows])
        points = self.kernels.points(as_matrix(sent, self.like), "rows")
        points = self.kernels.scaled(points, self.exponent)
        size, device = len(numbers), self.device
        field = Clocks(rates.to(device), times.to(device))
        limit = min(room, size)
        fired = Fired(
            torch.empty(limit, dtype=torch.int32, device=device),
            torch.empty(limit, device=device),
            torch.empty(limit, dtype=torch.float64, device=device),
        )
        every = torch.arange(size, dtype=torch.int32, device=device)
        count = self.kernels.race(points, every, outside, fired, field)
        chosen = fired.rows[:count].to("cpu", torch.int64)
        self.take(numbers[chosen], fired.values[:count].tolist(), fired.times[:count], sent[chosen])
        mine = (numbers >= self.first) & (numbers < self.first + len(clocks.rates))
        own, there = (numbers[mine] - self.first).to(device), mine.to(device)
        clocks.rates[own], clocks.firing[own] = field.rates[there], field.firing[there]
        self.racers.applied[own] = len(self.numbers)
        self.retire(numbers[chosen])
        self.kept.keep(numbers, sent, chosen)

    def take(self, numbers: Tensor, values: list[float], times: Tensor, sent: Tensor) -> None:
        """Make these rows the next picks."""
        self.numbers += numbers.tolist()
        self.values += values
        self.times = torch.cat([self.times, times.to(self.device)])
        self.picks.append(sent)

    def retire(self, numbers: Tensor) -> None:
        """Never pick these rows again."""
        racers = self.racers
        own = numbers[(numbers >= self.first) & (numbers < self.first + len(racers.bound))]
        own = (own - self.first).to(self.device)
        racers.clocks.firing[own] = math.inf
        waiting = torch.ones(len(racers.bound), dtype=torch.bool, device=self.device)
        waiting[own] = False
        racers.candidates = racers.candidates[waiting[racers.candidates]]

    def take_duplicates(self, room: int) -> None:
        """Pick the first ``room`` of the rows that are left, all at rate 0."""
        own = self.racers.candidates[:room].to("cpu", torch.int64) + self.first
        numbers = first_of(self.collective, own, room).tolist()
        self.numbers += numbers
        self.values += [0.0] * len(numbers)


def kmeans_plusplus_of_shards(
    collective: Collective,
    shard: Any,
    k: int,
    labeled: Any = None,
    *,
    metric: str = "euclidean",
    start: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    backend: str | None = None,
    after_round: AfterRound = lambda race: None,
) -> Drawn:
    """The picks of `kmeans_plusplus` from the shards of all ranks, in the order of the ranks."""
    with collective.session():
        pool = open_pool(
            collective, [shard], metric, backend, primitives=primitives_of, k=k, start=start
        )
        known = union_of(collective, labeled, pool.shards, pool.firsts, pool.total)
        first = agreed(collective, lambda: as_start(start))
        count, first = as_request(collective, pool, known, k, first, None)
        seed = agreed(collective, lambda: as_seed(generator))
        (seed,) = collective.total([seed if collective.rank == 0 else 0])
        shown = progress if collective.rank == 0 else False
        with Progress(count, shown, "k-means++", "pick") as bar:
            race = began(collective, measure(collective, pool, known), seed)
            return race.run(count, first, bar.reach, after_round)


def began(collective: Collective, measured: Measured, seed: int) -> ShardedRace[Any]:
    """A race that knows what is labeled."""
    (points,), rows, first = measured.points, measured.pool.shards[0], measured.pool.begin
    clock = torch.from_numpy(reference.clocks(seed, rows.size, first)).to(rows.device)
    free = torch.ones(rows.size, dtype=torch.bool)
    free[measured.inside.inside_of(first, rows.size)] = False
    candidates = free.nonzero().squeeze(1).to(rows.device, torch.int32)
    racers = Racers(measured.kernels, points, clock, candidates)  # type: ignore[arg-type]
    for labeled in measured.covering:
        racers.cover(labeled, torch.arange(labeled.rows.size, dtype=torch.int32).to(rows.device))
    return ShardedRace(collective, racers.kernels, racers, first, measured.exponent)
