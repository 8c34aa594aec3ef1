"""One matrix of a shard: what is known of its rows; ``traversal.py`` picks among them."""

import copy
import math
from collections.abc import Iterator
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from dynal_fast.collective.packing import numbers_of
from dynal_fast.ops.farthest_first import highest, routing
from dynal_fast.ops.farthest_first.contract import Array, Rows, as_rows
from dynal_fast.ops.farthest_first.heads import MANY
from dynal_fast.ops.farthest_first.highest import NOTHING, SAMPLED
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, P
from dynal_fast.ops.farthest_first.products import OuterProducts
from dynal_fast.ops.farthest_first.routing import CHUNK, EXACT, Centers

MOST_ROWS = 2**32  # of all ranks, which keys can tell apart
FRONT = 8  # one of so many candidates is searched for heads
SMALL_FRONT = 2**14  # but at least so many


def global_keys(values: Tensor, rows: Tensor) -> Tensor:
    """Int64 keys in the order of picks, as ``highest.keys``, of global row numbers up to 2^32."""
    return (values.view(torch.int32).to(torch.int64) << 32) + (MOST_ROWS - 1 - rows)


def of_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The values float32 and the global row numbers int64 of keys.

    >>> value, row = of_keys(global_keys(torch.tensor([2.5]), torch.tensor([7])))
    >>> float(value), int(row)
    (2.5, 7)
    """
    values = (keys >> 32).to(torch.int32).view(torch.float32)
    return values, MOST_ROWS - 1 - (keys & (MOST_ROWS - 1))


class Part(Generic[P]):
    """The rows of one matrix, of which the first one has the global number ``first``."""

    def __init__(
        self, kernels: Kernels[P], points: P, first: int, candidates: Tensor | None = None
    ) -> None:
        n, device = points.rows.size, points.rows.device
        self.kernels, self.points, self.first = kernels, points, first
        self.device = device
        self.candidates = torch.arange(n, dtype=torch.int32, device=device)
        if candidates is not None:
            self.candidates = candidates.to(device, torch.int32)
        # (n,) each. bound: an upper bound of the smallest decision value, -inf for rows that are
        # never picked. exact: the smallest decision value to what was applied so far, unless that
        # exceeds the bound. applied: how many picks were.
        self.bound = torch.full((n,), -math.inf, device=device)
        self.bound[self.candidates] = math.inf
        self.exact = torch.full((n,), math.inf, device=device)
        self.applied = torch.zeros(n, dtype=torch.int32, device=device)
        # How many picks there were in `Picks.sealed` when a row met the nearest of them: (n,).
        self.probed: Tensor | None = None
        self.sets: list[Centers[P]] = []  # of labeled samples
        self.picks: Picks[P] = Picks(kernels, points.rows, 0)
        # Candidates with the highest bounds, and a key that no other candidate exceeds.
        self.front, self.floor = self.candidates[:0], NOTHING
        self.renew()

    def exclude(self, rows: Tensor) -> None:
        """Never pick ``rows``."""
        self.bound[rows.to(self.device)] = -math.inf
        self.candidates = highest.pickable(self.candidates, self.bound)
        self.renew()

    def cover(self, centers: Centers[P]) -> None:
        """Take in a set of labeled samples, which other parts may share."""
        own = copy.copy(centers)
        own.pool = self.points
        own.begin()
        own.route(self.candidates, self.bound)
        self.sets.append(own)
        self.renew()

    @property
    def size(self) -> int:
        return len(self.bound)

    def holds(self, numbers: Tensor) -> Tensor:
        """Which global row numbers are of this part."""
        return (numbers >= self.first) & (numbers < self.first + self.size)

    def left(self, most: int) -> Tensor:
        """The global numbers of the first rows that may be picked."""
        free = highest.pickable(self.candidates, self.bound)[:most]
        return free.to("cpu", torch.int64) + self.first

    def keys(self, values: Tensor, rows: Tensor) -> Tensor:
        """The global keys of rows with these values."""
        return global_keys(values, rows.to(torch.int64) + self.first)

    def keys_of(self, rows: Tensor) -> Tensor:
        """The global keys of the bounds of rows."""
        return self.keys(self.bound[rows], rows)

    def renew(self) -> bool:
        """Choose the front anew; return whether it reaches further down."""
        before = self.floor
        self.front, self.floor = self.candidates[:0], NOTHING
        rows = self.candidates = highest.pickable(self.candidates, self.bound)
        size = max(SMALL_FRONT, len(rows) // FRONT)
        if size >= len(rows):
            self.front = rows
            return self.floor < before
        sample = rows[:: -(-len(rows) // SAMPLED)]
        rank = max(1, size * len(sample) // len(rows))  # of the floor among the sample
        self.floor = int(torch.topk(self.keys_of(sample), rank + 1).values[-1])
        parts = rows.split(highest.CHUNK)  # keys of all rows would take twice their bounds' room
        self.front = torch.cat([part[self.keys_of(part) > self.floor] for part in parts])
        return self.floor < before

    def top(self) -> int:
        """The highest key of a bound."""
        keys = self.keys_of(self.front)
        highest = int(keys.max()) if len(keys) else NOTHING
        if highest <= self.floor and self.floor != NOTHING:
            self.renew()
            return self.top()
        return highest if highest >= 0 else NOTHING

    def unsettled(self, above: int) -> Tensor:
        """The keys above this one of the rows whose bounds may still shrink; ``above >= floor``."""
        keys = self.keys_of(self.front)
        return keys[(keys > above) & ~self.settled(self.front)]

    def settled(self, rows: Tensor) -> Tensor:
        """Which of ``rows`` are exact for all that covers the pool."""
        known = self.applied[rows] == self.picks.count
        for centers in self.sets:
            known &= centers.stage[rows] == EXACT
        return known

    def refine(self, level: int) -> Tensor:
        """Make every row whose bound has a key above the level exact; return these rows, sorted.

        In steps, as a row may fall below the level at each of them.
        """
        rows = self.front[self.keys_of(self.front) > level]
        self.probe(rows)
        for _ in range(1 + (EXACT if self.sets else 0)):
            rows = rows[self.keys_of(rows) > level]
            stale = rows[~self.settled(rows)]
            if len(stale) == 0:
                break
            self.step(stale)
        return rows[self.keys_of(rows) > level]

    def probe(self, rows: Tensor) -> None:
        """Bound those of ``rows`` that lack many picks by the nearest of these."""
        sealed, met = self.picks.sealed, self.applied[rows]
        if self.probed is not None:
            met = torch.maximum(met, self.probed[rows])
        many = (sealed - met) >= max(MANY, sealed // 8)
        rows, met = rows[many], met[many]
        if len(rows) == 0:
            return
        for end, centers in self.picks.clusters():
            own = copy.copy(centers)
            own.pool = self.points
            for chunk in rows[met < end].split(own.chunk):
                own.probe(chunk, self.bound, min(routing.PROBES, own.clusters))
        if self.probed is None:
            self.probed = torch.zeros_like(self.applied)
        self.probed[rows] = sealed

    def step(self, rows: Tensor) -> None:
        """Take rows one step on with the labeled sets, and to all picks where that is done."""
        applied = self.applied[rows]
        for centers in self.sets:
            centers.promote(rows[centers.stage[rows] != EXACT], self.bound, self.exact)
            applied = torch.where(centers.stage[rows] == EXACT, applied, -1)
        applied, order = torch.sort(applied)
        rows = rows[order]
        sizes = torch.stack([(applied < 0).sum(), (applied < self.picks.count).sum()])
        unready, behind = sizes.tolist()
        self.apply_picks(rows[unready:behind], applied[unready:behind])

    def apply_picks(self, stale: Tensor, first: Tensor) -> None:
        """Make ``stale`` rows exact for all picks; the ``first`` ones (increasing) were applied."""
        if len(stale) == 0:
            return
        oldest = int(first[0])
        for begin, points in self.picks.blocks:
            end = begin + points.rows.size
            if end <= oldest:
                continue
            concerned = int((first < end).sum())
            rows, since = stale[:concerned], (first[:concerned] - begin).clamp(min=0)
            skipped = int(since[0])
            centers = torch.arange(skipped, end - begin, dtype=torch.int32, device=self.device)
            groups = Groups.one(rows, centers)
            self.kernels.refresh(
                self.points, points, groups, since - skipped, self.bound, self.exact
            )
        self.bound[stale] = torch.minimum(self.bound[stale], self.exact[stale])
        self.applied[stale] = self.picks.count

    def make_exact(self, rows: Tensor) -> Tensor:
        """Make ``rows`` exact for all that covers the pool; return their values."""
        for _ in range(1 + EXACT):
            self.step(rows)
        return self.exact[rows]

    def set(self, rows: Tensor, exact: Tensor) -> None:
        """Note the values of ``rows`` after all picks; -inf: they are picked."""
        self.exact[rows] = self.bound[rows] = exact
        self.applied[rows] = self.picks.count

    def bound_by_first(self) -> None:
        """Bound every candidate by the first pick alone."""
        _, points = self.picks.blocks[0]
        first = torch.zeros(1, dtype=torch.int32, device=self.device)
        for chunk in reversed(self.candidates.split(CHUNK)):  # as `Centers.route`
            self.kernels.bound(self.points, points, Groups.one(chunk, first), self.bound)
        self.renew()

    def lower(self, rows: slice, bounds: Tensor) -> None:
        """Take in upper bounds that were found before; negative ones say nothing."""
        bounds = bounds.to(self.device)
        bounds[bounds < 0] = math.inf
        self.bound[rows] = torch.minimum(self.bound[rows], bounds)


class Picks(Generic[P]):
    """The embeddings of the picks, which every rank holds, in blocks.

    A full block is sealed, and two sealed ones of the same size become one. So there are few, and
    the nearest picks of a row can be found by clusters of each.
    """

    BLOCK = 256  # rows that are measured anew when some are added

    def __init__(self, kernels: Kernels[P], like: Rows, exponent: int) -> None:
        self.kernels, self.like, self.exponent = kernels, like, exponent
        self.blocks: list[tuple[int, P]] = []  # the number of the first pick, and the rows
        self.count = self.sealed = 0
        self._clusters: list[tuple[int, Centers[P]]] = []  # the number of the pick after the last
        self._last = torch.empty(0, row_bytes(like), dtype=torch.uint8)

    def append(self, rows: Tensor) -> None:
        """Add rows as bytes (m, row bytes)."""
        while len(rows):
            if len(self._last) in (0, self.BLOCK):
                self._last = rows[:0]
            else:
                self.blocks.pop()
            begin = self.count - len(self._last)
            room = self.BLOCK - len(self._last)
            self._last = torch.cat([self._last, rows[:room]])
            self.count += len(rows[:room])
            rows = rows[room:]
            self._add(begin, self._last)
            if len(self._last) == self.BLOCK:
                self._seal()

    def _add(self, begin: int, rows: Tensor) -> None:
        points = self.kernels.points(as_matrix(rows, self.like), "picks")
        self.blocks.append((begin, self.kernels.scaled(points, self.exponent)))

    def _seal(self) -> None:
        """Seal the last block, and join it with those of the same size."""
        self.sealed = self.count
        while len(self.blocks) > 1 and self._size(-2) == self._size(-1):
            (begin, one), (_, other) = self.blocks[-2:]
            both = [taken(points.rows, torch.arange(points.rows.size)) for points in (one, other)]
            del self.blocks[-2:]
            self._add(begin, torch.cat(both))
        sizes = {(begin + points.rows.size, points.rows.size) for begin, points in self.blocks}
        self._clusters = [each for each in self._clusters if (each[0], each[1].size) in sizes]

    def _size(self, block: int) -> int:
        return self.blocks[block][1].rows.size

    def clusters(self) -> Iterator[tuple[int, Centers[P]]]:
        """The sealed blocks in clusters, and the number of the pick after each."""
        known = dict(self._clusters)
        self._clusters = []
        for begin, points in self.blocks:
            end = begin + points.rows.size
            if end > self.sealed:
                break
            centers = known.get(end)
            if centers is None:
                members = torch.arange(points.rows.size, dtype=torch.int32, device=self.like.device)
                centers = Centers(self.kernels, points, points, members, many=1)
            self._clusters.append((end, centers))
        yield from self._clusters


def row_bytes(rows: Rows) -> int:
    """Bytes of a row as it is sent: both factors of outer products."""
    own = rows.columns * rows.dtype.itemsize
    return own + (0 if rows.right is None else row_bytes(rows.right))


def taken(rows: Rows, index: Tensor) -> Tensor:
    """Rows as uint8 (m, row bytes) on the CPU, in the machine's byte order."""
    own = _bytes(rows.array, index)
    return own if rows.right is None else torch.cat([own, taken(rows.right, index)], dim=1)


def _bytes(array: Array, index: Tensor) -> Tensor:
    if isinstance(array, Tensor):
        taken = array[index.to(array.device, torch.int64)].cpu().contiguous()
        return taken.view(torch.uint8).view(len(index), -1) if len(index) else _none(array)
    chosen = array[index.cpu().numpy()]
    chosen = np.ascontiguousarray(chosen, dtype=chosen.dtype.newbyteorder("="))
    if not len(index):
        return _none(array)
    return torch.from_numpy(chosen.view(np.uint8).reshape(len(index), -1))


def _none(array: Array) -> Tensor:
    return torch.empty(0, array.shape[1] * array.itemsize, dtype=torch.uint8)


def as_matrix(sent: Tensor, like: Rows) -> Rows:
    """Rows that were sent, on the device of ``like``, whose dtypes and columns they have."""
    first = _matrix(sent, like)
    if like.right is None:
        return as_rows(first, "rows")
    second = _matrix(sent[:, like.columns * like.dtype.itemsize :], like.right)
    return as_rows(OuterProducts(first, second), "rows")


def _matrix(sent: Tensor, like: Rows) -> Tensor:
    matrix = numbers_of(sent[:, : like.columns * like.dtype.itemsize], like.dtype)
    return matrix.view(len(sent), like.columns).to(like.device)
