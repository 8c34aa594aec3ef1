"""The rows with the highest bounds, found without a look at all of them each time."""

import torch
from torch import Tensor

NARROWER = 8  # so many times fewer rows in a level than in the one below it
SAMPLED = 2**14  # rows that tell where a level begins
CHUNK = 2**18  # rows that are looked at in one go: more would need more memory
NOTHING = -(2**63)  # below every key


def keys(values: Tensor, rows: Tensor) -> Tensor:
    """Int64 keys in the order of picks: larger values first, the lower index first among equals.

    ``values`` float32 must be -inf or not negative, so that their bits sort as they do. The key of
    -inf, for rows that are never picked, is negative.
    """
    return (values.view(torch.int32).to(torch.int64) << 32) + (2**31 - 1 - rows.to(torch.int64))


def pickable(rows: Tensor, bound: Tensor) -> Tensor:
    """Those of ``rows`` that may be picked; ``rows`` itself where all may."""
    parts = rows.split(CHUNK)
    counts = [int((bound[part] >= 0).sum()) for part in parts]
    if sum(counts) == len(rows):
        return rows
    found = rows.new_empty(sum(counts))  # filled in place: to join the parts takes twice its room
    for part, room in zip(parts, found.split(counts), strict=True):
        room.copy_(part[bound[part] >= 0])
    return found


class Highest:
    """Levels of rows over each other: each holds those of the level below with the highest bounds.

    A level notes the highest key that it left out when it was filled. Bounds only shrink, so rows
    above that key are the highest of the level below, too. Once there is none, the level is filled
    anew. So a level is read once for about ``1 / NARROWER`` of its rows that were found.
    """

    def __init__(self, rows: Tensor) -> None:
        self.levels = [(rows, NOTHING)]

    def copy(self) -> "Highest":
        """A copy of all that changes."""
        other = Highest(self.levels[0][0])
        other.levels = list(self.levels)
        return other

    def find(self, bound: Tensor, size: int, least: int) -> tuple[Tensor, int, int]:
        """Return up to ``size`` rows, the highest first; the highest key of the others; the best.

        Some bound must be at least 0. ``least``: about so many rows are in the uppermost level.
        """
        while True:
            rows, left_out = self.levels[-1]
            if len(rows) // NARROWER < max(least, size):
                found = self.select(rows, bound, left_out, size)
                if found is not None:
                    return found
            elif self.fill(rows, bound, left_out):
                continue
            if len(self.levels) == 1:
                raise AssertionError("no candidate is left, but picks are")
            self.levels.pop()

    def fill(self, rows: Tensor, bound: Tensor, left_out: int) -> bool:
        """Put a level over the uppermost one, unless a level below has higher rows."""
        sample = rows[:: -(-len(rows) // SAMPLED)]
        order = keys(bound[sample], sample)
        level = torch.topk(order, len(order) // NARROWER + 1, sorted=False).values.min()
        outside = max(int(level), left_out, -1)
        least = torch.tensor([max(outside, 0) >> 32], dtype=torch.int32).view(torch.float32).item()
        parts = []
        for part in rows.split(CHUNK):
            near = part[bound[part] >= least]
            parts.append(near[keys(bound[near], near) > outside])
        inside = torch.cat(parts)
        if len(inside):
            self.levels.append((inside, outside))
        return len(inside) > 0

    def select(
        self, rows: Tensor, bound: Tensor, left_out: int, size: int
    ) -> tuple[Tensor, int, int] | None:
        """The highest rows of a level, unless a level below has higher ones."""
        if len(rows) == 0:
            return None
        order = keys(bound[rows], rows)
        top = torch.topk(order, min(size + 1, len(order)))
        count = (top.values[:size] > max(left_out, -1)).sum()[None]
        after = top.values.index_select(0, count.clamp(max=len(top.values) - 1))
        inside, outside, best = torch.cat([count, after, top.values[:1]]).tolist()
        if inside == 0:
            return None
        outside = outside if inside < len(top.values) else NOTHING
        return rows[top.indices[:inside]], max(outside, left_out), best
