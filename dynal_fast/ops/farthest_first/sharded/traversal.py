"""The traversal of a pool that many ranks hold: the same picks as of one.

Decision values are properties of pairs of rows, so it does not matter where they are computed. In a
round

1. all ranks agree on a *level*, a key that a given number of bounds exceed, wherever these are, and
   make all rows above it exact (`Part.refine`); no other row can be picked before it is below;
2. they agree on a second level, which no more exact rows exceed than are worth sending;
3. these rows go to every rank, with their values: those that were sent before, by number only;
4. every rank runs the same traversal inside them, for as long as the best one lies above the
   second level, and so knows the picks without being told.

The number of rounds does not depend on how the pool is cut, as the levels are those of all rows.
Keys order by value, then by global row number, so that ties fall as on one rank.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic

import torch
from torch import Tensor

from dynal_fast.collective import Collective
from dynal_fast.collective.packing import as_bytes, numbers_of
from dynal_fast.collective.shards import first_of
from dynal_fast.ops.farthest_first import highest
from dynal_fast.ops.farthest_first.contract import Answer, Rows
from dynal_fast.ops.farthest_first.highest import NOTHING
from dynal_fast.ops.farthest_first.kernels import Kernels, P
from dynal_fast.ops.farthest_first.routing import Centers
from dynal_fast.ops.farthest_first.sharded.kept import Kept
from dynal_fast.ops.farthest_first.sharded.level import level_of
from dynal_fast.ops.farthest_first.sharded.part import (
    MOST_ROWS,
    Part,
    Picks,
    as_matrix,
    global_keys,
    of_keys,
    row_bytes,
    taken,
)

GATHERED = 128  # rows that are sent in a round, at most
# Rows that all ranks make exact in a round: for each rank so many at first; see `resize`.
FIRST_HEAD, LEAST_HEAD, MOST_HEADS = 128, 4 * GATHERED, 8
FEW, MANY, HIGH = 32, 64, 4 * GATHERED

AfterRound = Callable[["ShardedTraversal[Any]"], None]


class ShardedTraversal(Generic[P]):
    """What all ranks know, and the parts of this one."""

    def __init__(
        self,
        collective: Collective,
        kernels: Kernels[P],
        parts: Sequence[Part[P]],
        like: Rows,
        exponent: int,
        head: int,
    ) -> None:
        self.collective, self.kernels, self.parts, self.like = collective, kernels, parts, like
        self.exponent = exponent  # squared distances are in units of 4^-exponent
        self.picks = Picks(kernels, like, exponent)
        for part in parts:
            part.picks = self.picks
        self.most = MOST_HEADS * head * collective.size
        self.head = min(FIRST_HEAD * collective.size, self.most)  # rows made exact in a round
        self.numbers: list[int] = []  # of the picks
        self.values: list[float] = []
        self.kept = Kept(row_bytes(like), GATHERED)
        self.covered = False
        self.rounds = 0

    def cover(self, labeled: P) -> None:
        """Take in labeled samples, the same on every rank, before the first pick."""
        if labeled.rows.size == 0:
            return
        members = torch.arange(labeled.rows.size, dtype=torch.int32, device=self.like.device)
        shared = Centers(self.kernels, self.parts[0].points, labeled, members)
        for part in self.parts:
            part.cover(shared)
        self.covered = True

    def pick(self, k: int, start: int | None, after_round: AfterRound | None = None) -> Answer:
        """Pick ``k`` rows in all; ``start``: the global number of the first one, if none is yet."""
        left: float | None = None
        if not self.numbers and (start is not None or not self.covered):
            left = self.begin(k, start)
        while left is None:
            left = self.round(k)
            if after_round is not None:
                after_round(self)
        indices = torch.tensor(self.numbers[:k], dtype=torch.int64, device=self.like.device)
        values = torch.tensor(self.values[:k], dtype=torch.float32, device=self.like.device)
        return Answer(indices, values, left, self.exponent)

    def begin(self, k: int, start: int | None) -> float | None:
        """Make the first pick, whatever its value."""
        if start is None:
            free = [int(number) for part in self.parts for number in part.left(1)]
            (negative,) = self.collective.largest([-min(free, default=MOST_ROWS)])
            start = -negative
        if start == MOST_ROWS:  # nothing may be picked
            return 0.0
        if k == 0:
            return None if self.covered else math.inf
        own = [torch.empty(0, dtype=torch.int64)]
        for part in self.parts:
            if 0 <= start - part.first < part.size:
                row = torch.tensor([start - part.first], dtype=torch.int32, device=part.device)
                own.append(part.keys(part.make_exact(row), row).cpu())
        keys, sent = self.gather(torch.cat(own))
        values, first = of_keys(keys)[0], torch.zeros(1, dtype=torch.int64)
        self.take(keys, sent, first, torch.full((1,), -math.inf), values)
        if not self.covered:
            for part in self.parts:
                part.bound_by_first()
        self.covered = True
        return None

    def go_on(self, numbers: list[int], values: list[float]) -> None:
        """Take in the picks of a traversal that ended early, from which this one goes on."""
        own = torch.tensor(numbers, dtype=torch.int64)
        mine = torch.zeros(len(own), dtype=torch.bool)
        for part in self.parts:
            mine |= part.holds(own)
        keys = global_keys(torch.zeros(len(own)), own)[mine]
        sent_keys, sent = self.gather(keys)
        _, found = of_keys(sent_keys)  # increasing
        self.picks.append(sent[torch.searchsorted(found, own)])
        self.numbers, self.values = list(numbers), list(values)
        self.kept = Kept(row_bytes(self.like), GATHERED)
        for part in self.parts:
            part.exclude(own[part.holds(own)] - part.first)
            if not self.covered:
                part.bound_by_first()
        self.covered = True

    def round(self, k: int) -> float | None:
        """Pick what is certain; return the largest value left once all ``k`` are picked."""
        self.rounds += 1
        top, level = self.head_level()
        if top == NOTHING:
            return 0.0
        if top >> 32 == 0:  # all that remains is at distance 0: lowest indices first
            self.take_duplicates(k - len(self.numbers))
            return 0.0
        own = self.refined(level)
        if len(self.numbers) >= k:
            (best,) = self.collective.largest([int(own.max()) if len(own) else NOTHING])
            return float(of_keys(torch.tensor([best]))[0]) if best > level else None
        (high,) = self.collective.total([len(own)])
        outside = level
        if high > GATHERED:
            outside, _ = level_of(self.collective, lambda low: own[own > low], level, top, GATHERED)
        before = len(self.numbers)
        if high:
            keys, sent = self.gather(own[own > outside])
            self.traverse(keys, sent, outside, k)
        self.resize(len(self.numbers) - before, high)
        return None

    def resize(self, picked: int, high: int) -> None:
        """Follow the last head with the size of the next one.

        A larger head pays where few picks came from all that stayed ``high``; where more stayed
        high than are sent, a smaller one gives as many picks.
        """
        if high <= GATHERED and picked < FEW:
            self.head = min(2 * self.head, self.most)
        elif high > HIGH or picked > MANY:
            self.head = max(self.head // 2, min(LEAST_HEAD, self.most))

    def head_level(self) -> tuple[int, int]:
        """The highest key of all bounds, and one that about ``head`` unsettled rows exceed."""
        changed = 1
        while True:
            highest = max([part.top() for part in self.parts], default=NOTHING)
            floor = max([part.floor for part in self.parts], default=NOTHING)
            top, floor = self.collective.largest([highest, floor])
            if top >> 32 <= 0:
                return top, NOTHING
            level, count = level_of(self.collective, self.unsettled, floor, top, self.head)
            if 2 * count >= self.head or floor < 0 or not changed:
                return top, level
            renewed = sum(part.renew() for part in self.parts if part.floor == floor)
            (changed,) = self.collective.total([renewed])

    def unsettled(self, low: int) -> Tensor:
        """The keys above ``low`` of this rank's rows whose bounds may still shrink."""
        return self.joined([part.unsettled(low) for part in self.parts])

    def refined(self, level: int) -> Tensor:
        """Make all rows above ``level`` exact; return the keys of those that stay above it."""
        keys = []
        for part in self.parts:
            rows = part.refine(level)
            keys.append(part.keys(part.exact[rows], rows))
        return self.joined(keys)

    def joined(self, keys: list[Tensor]) -> Tensor:
        return torch.cat([torch.empty(0, dtype=torch.int64), *(part.cpu() for part in keys)])

    def gather(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Send this rank's rows with these keys to all; return all keys and rows as bytes.

        In the order of global row numbers.
        """
        _, numbers = of_keys(own)
        known = self.kept.holds(numbers)
        new, old = own[~known], own[known]
        counts = self.collective.counts([len(new), len(old)])
        message = torch.cat([as_bytes(new[:, None]), self.bytes_of(new)], dim=1)
        sent = self.collective.rows(message, [each[0] for each in counts])
        keys, rows = numbers_of(sent[:, :8], torch.int64), sent[:, 8:]
        if any(each[1] for each in counts):
            more = self.collective.rows(as_bytes(old[:, None]), [each[1] for each in counts])
            more = numbers_of(more, torch.int64)
            again = self.kept.rows(of_keys(more)[1])
            keys, rows = torch.cat([keys, more]), torch.cat([rows, again])
        order = of_keys(keys)[1].argsort()
        return keys[order], rows[order]

    def bytes_of(self, keys: Tensor) -> Tensor:
        """This rank's rows with these keys, as bytes (m, row bytes), in the order of the keys."""
        _, numbers = of_keys(keys)
        rows = torch.empty(len(keys), row_bytes(self.like), dtype=torch.uint8)
        for part in self.parts:
            mine = part.holds(numbers)
            rows[mine] = taken(part.points.rows, numbers[mine] - part.first)
        return rows

    def traverse(self, keys: Tensor, sent: Tensor, outside: int, k: int) -> None:
        """Pick among gathered rows while the best one lies above the key ``outside``."""
        exact, numbers = of_keys(keys)
        device, room = self.like.device, k - len(self.numbers)
        points = self.kernels.points(as_matrix(sent, self.like), "rows")
        points = self.kernels.scaled(points, self.exponent)
        value, number = of_keys(torch.tensor([max(outside, 0)]))
        # The same key in the order of `highest.keys`, by position instead of global number.
        position = torch.searchsorted(numbers, number)
        limit = int(highest.keys(value, position)) if outside >= 0 else outside
        exact = exact.to(device)
        picks = torch.empty(min(room, len(keys)), dtype=torch.int32, device=device)
        values = torch.empty(len(picks), device=device)
        head = torch.arange(len(keys), dtype=torch.int32, device=device)
        count = self.kernels.traverse(points, head, limit, exact, picks, values)
        chosen = picks[:count].to("cpu", torch.int64)
        self.take(keys, sent, chosen, exact.cpu(), values[:count].cpu())

    def take(
        self, keys: Tensor, sent: Tensor, chosen: Tensor, exact: Tensor, values: Tensor
    ) -> None:
        """Make the ``chosen`` ones of gathered rows the next picks; ``exact``: all values then."""
        _, numbers = of_keys(keys)
        self.numbers += numbers[chosen].tolist()
        self.values += values.tolist()
        self.picks.append(sent[chosen])
        for part in self.parts:
            mine = part.holds(numbers)
            part.set((numbers[mine] - part.first).to(part.device), exact[mine].to(part.device))
        self.kept.keep(numbers, sent, chosen)

    def take_duplicates(self, room: int) -> None:
        """Pick the first ``room`` of the rows that are left, all at distance 0."""
        own = torch.cat(
            [torch.empty(0, dtype=torch.int64), *(part.left(room) for part in self.parts)]
        )
        numbers = first_of(self.collective, own[:room], room).tolist()
        self.numbers += numbers
        self.values += [0.0] * len(numbers)
