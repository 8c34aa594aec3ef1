"""Bring ranks together for one traversal: checks, the common scale, what is labeled."""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed
from dynal_fast.ops.farthest_first import contract, reference
from dynal_fast.ops.farthest_first.backends import Device, choose
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.kernels import Kernels
from dynal_fast.ops.farthest_first.sharded.labeled import Labeled
from dynal_fast.ops.farthest_first.sharded.part import MOST_ROWS, Part
from dynal_fast.ops.farthest_first.sharded.traversal import ShardedTraversal


class Pool(NamedTuple):
    """The shards of all ranks, which lie behind each other in the order of the ranks."""

    shards: tuple[Rows, ...]  # of this rank: at least one
    firsts: tuple[int, ...]  # the global number of the first row of each
    begin: int  # of this rank's rows
    sizes: tuple[int, ...]  # rows of each rank
    metric: str
    device: Device  # what implements the primitives

    @property
    def total(self) -> int:
        return sum(self.sizes)


def primitives_of(backend: str | None, device: torch.device) -> Device:
    """The primitives of a backend for traversals."""
    return choose(backend, device).device()


def open_pool(
    collective: Collective,
    shards: Sequence[Any],
    metric: str,
    backend: str | None,
    *,
    primitives: Callable[[str | None, torch.device], Device] = primitives_of,
    **alike: Any,
) -> Pool:
    """Check the shards of every rank, and that all ranks have passed the same of ``alike``."""

    def checked() -> tuple[Rows, ...]:
        rows = tuple(contract.as_rows(shard, "pool") for shard in shards)
        for part in rows:
            contract.check_metric(metric, part)
            if _form(part) != _form(rows[0]):
                raise ValueError(f"shards must be alike, got {_form(rows[0])} and {_form(part)}")
        return rows

    rows = agreed(collective, checked)
    own = {"pool": _form(rows[0]), "metric": metric, "backend": backend, **alike}
    told = collective.everyones((sum(part.size for part in rows), own))
    sizes = tuple(size for size, _ in told)
    agreed(collective, lambda: _check_alike([values for _, values in told], sum(sizes)))
    begin = sum(sizes[: collective.rank])
    firsts = [begin]
    for part in rows[:-1]:
        firsts.append(firsts[-1] + part.size)
    device = agreed(collective, lambda: primitives(backend, rows[0].device))
    return Pool(rows, tuple(firsts), begin, sizes, metric, device)


def _check_alike(told: list[dict[str, Any]], total: int) -> None:
    for rank, values in enumerate(told):
        for name, value in values.items():
            if value != told[0][name]:
                raise ValueError(
                    f"{name} must be the same on every rank, got {told[0][name]!r} on rank 0 and "
                    f"{value!r} on rank {rank}"
                )
    if total > MOST_ROWS:
        raise ValueError(f"pool must have at most 2^32 samples in all, got {total}")


def _form(rows: Rows) -> str:
    own = f"(n, {rows.columns}) {rows.dtype}".replace("torch.", "")
    return own if rows.right is None else f"OuterProducts of {own} and {_form(rows.right)}"


class Measured(NamedTuple):
    """A pool whose values were checked, on the common scale, and what is labeled."""

    pool: Pool
    kernels: Kernels[Any]
    points: list[Any]  # of each shard of this rank
    covering: list[Any]  # of labeled samples
    inside: Labeled
    exponent: int

    def begin(
        self, collective: Collective, candidates: Sequence[Tensor] | None = None
    ) -> ShardedTraversal[Any]:
        """Begin a traversal that knows what is labeled.

        ``candidates``: of each shard, the rows that may be picked, increasing; all by default.
        """
        chosen: Sequence[Tensor | None] = candidates or [None] * len(self.points)
        parts = [
            Part(self.kernels, own, first, rows)
            for own, first, rows in zip(self.points, self.pool.firsts, chosen, strict=True)
        ]
        for part in parts:
            part.exclude(self.inside.inside_of(part.first, part.size))
        like = self.pool.shards[0]
        head = self.pool.device.head(like)
        traversal = ShardedTraversal(collective, self.kernels, parts, like, self.exponent, head)
        for rows in self.covering:
            traversal.cover(rows)
        return traversal


def measure(collective: Collective, pool: Pool, labeled: Labeled) -> Measured:
    """Check all values, and agree on the scale."""
    like = pool.shards[0]

    def measured() -> tuple[Any, list[Any], list[Any]]:
        largest_shard = max(pool.shards, key=lambda rows: rows.size)
        kernels = pool.device.kernels(largest_shard, pool.metric)
        points = [kernels.points(rows, "pool") for rows in pool.shards]
        covering = [kernels.points(rows, "labeled") for rows in labeled.rows]
        return kernels, points, covering

    kernels, points, covering = agreed(collective, measured)
    largest = max(part.largest for part in (*points, *covering))
    (bits,) = collective.largest([struct.unpack("<q", struct.pack("<d", largest))[0]])
    (largest,) = struct.unpack("<d", struct.pack("<q", bits))
    if pool.metric == "euclidean":
        agreed(collective, lambda: contract.check_smallest(largest, *pool.shards, *labeled.rows))
    exponent = reference.scale_exponent(largest, like.dimensions)
    points = [kernels.scaled(own, exponent) for own in points]
    covering = [kernels.scaled(rows, exponent) for rows in covering]
    return Measured(pool, kernels, points, covering, labeled, exponent)


def as_request(
    collective: Collective,
    pool: Pool,
    labeled: Labeled,
    k: int,
    start: int | str | None,
    generator: torch.Generator | None,
) -> tuple[int, int | None]:
    """Check ``k`` and ``start``, the same on every rank; the lowest rank draws a random one."""
    free = pool.total - len(labeled.inside)

    def checked() -> tuple[int, int | None]:
        count = contract.as_count(k, "k", free, "pool samples that are not labeled")
        if isinstance(start, str) and start != "random":
            raise ValueError(f'start must be a pool index, "random" or None, got {start!r}')
        if start is None or isinstance(start, str):
            return count, None
        first = contract.as_count(start, "start", pool.total - 1, "the last pool sample")
        if first in labeled:
            raise ValueError(f"start must not be a labeled sample, got {first}")
        return count, first

    count, first = agreed(collective, checked)
    if isinstance(start, str) and free > 0:
        drawn = int(torch.randint(free, (), generator=generator)) if collective.rank == 0 else 0
        (drawn,) = collective.total([drawn])
        return count, labeled.free_row(drawn)
    return count, first
