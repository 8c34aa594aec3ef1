"""The labeled set of a pool in shards: what every rank passes, put together."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed
from dynal_fast.collective.packing import as_bytes, numbers_of
from dynal_fast.ops import dtypes
from dynal_fast.ops.farthest_first.arrays import as_array
from dynal_fast.ops.farthest_first.contract import DTYPES, Rows
from dynal_fast.ops.farthest_first.labeled import as_labeled
from dynal_fast.ops.farthest_first.sharded.part import as_matrix, row_bytes, taken

AT_A_TIME = 2**12  # rows


@dataclass(frozen=True)
class Labeled:
    """What covers the pool from the start, the same on every rank."""

    rows: tuple[Rows, ...]  # embeddings, of samples of the pool too
    inside: Tensor  # the global numbers of those, increasing

    def __contains__(self, number: int) -> bool:
        return bool((self.inside == number).any())

    def inside_of(self, first: int, size: int) -> Tensor:
        """Which of the rows from ``first`` on are labeled, as positions among these."""
        own = self.inside[(self.inside >= first) & (self.inside < first + size)]
        return own - first

    def free_row(self, position: int) -> int:
        """The number of the row at this position among those that are not labeled."""
        before = self.inside - torch.arange(len(self.inside))
        return position + int(torch.searchsorted(before, position, right=True))


@dataclass(frozen=True)
class _Whole(Rows):
    """A shard that has the size of the whole pool, for checks of indices."""

    total: int = 0

    @property
    def size(self) -> int:
        return self.total


def union_of(
    collective: Collective,
    labeled: Any,
    shards: tuple[Rows, ...],
    firsts: tuple[int, ...],
    total: int,
) -> Labeled:
    """Put together what the ranks pass: each the whole set, or a part of it.

    Embeddings, global indices, a mask of this rank's rows or of the whole pool, or a pair.
    ``firsts``: the global number of the first row of each of this rank's ``shards``.
    """
    like, size = shards[0], sum(rows.size for rows in shards)

    def checked() -> tuple[Rows | None, Tensor]:
        whole = _Whole(
            **{name: getattr(like, name) for name in Rows.__dataclass_fields__}, total=total
        )
        outside, inside = as_labeled(_by_number(labeled, size, firsts[0], total), whole)
        return outside, torch.empty(0, dtype=torch.int64) if inside is None else inside.unique()

    outside, inside = agreed(collective, checked)
    inside = _all_rows(collective, as_bytes(inside[:, None]))
    inside = numbers_of(inside, torch.int64).unique()
    rows = [] if outside is None else [outside]
    if collective.size > 1:
        rows = _union_of_rows(collective, outside, like)
    if len(inside):
        own = [
            taken(shard, inside[(inside >= first) & (inside < first + shard.size)] - first)
            for first, shard in zip(firsts, shards, strict=True)
        ]
        joined = torch.cat(own)
        counts = [count for (count,) in collective.counts([len(joined)])]
        rows.append(as_matrix(collective.rows(joined, counts), like))
    return Labeled(tuple(part for part in rows if part.size), inside)


def _by_number(labeled: Any, size: int, begin: int, total: int) -> Any:
    """``labeled``, with a mask of this rank's rows as global indices."""
    if type(labeled) is tuple and len(labeled) == 2:
        return tuple(_by_number(part, size, begin, total) for part in labeled)
    if not hasattr(labeled, "dtype") or getattr(labeled, "ndim", 0) != 1 or size == total:
        return labeled
    array = as_array(labeled, "labeled")
    if str(array.dtype).endswith("bool") and len(array) == size:
        return torch.as_tensor(array).cpu().nonzero().squeeze(1) + begin
    return labeled


def _union_of_rows(collective: Collective, own: Rows | None, like: Rows) -> list[Rows]:
    """The embeddings of all ranks, once where every rank passes the same."""
    form = None if own is None else (dtypes.name(own.dtype), _right(own))
    told = collective.everyones((form, 0 if own is None else own.size, _digest(own)))
    forms = {form for form, _, _ in told if form is not None}
    if not forms:
        return []
    agreed(collective, lambda: _check_one(forms))
    if len({digest for _, _, digest in told}) == 1:
        return [] if own is None else [own]
    ((dtype, right),) = forms
    shape = Rows(like.array, DTYPES[dtype], like.device, 0, 0, 0)
    if right is not None and like.right is not None:
        second = Rows(like.right.array, DTYPES[right], like.device, 0, 0, 0)
        shape = Rows(like.array, DTYPES[dtype], like.device, 0, 0, 0, right=second)
    sent = torch.empty(0, row_bytes(shape), dtype=torch.uint8)
    if own is not None:
        sent = taken(own, torch.arange(own.size))
    return [as_matrix(collective.rows(sent, [size for _, size, _ in told]), shape)]


def _check_one(forms: set[tuple[str, str | None]]) -> None:
    if len(forms) > 1:
        named = sorted({name for name, _ in forms})
        raise ValueError(f"labeled must have one dtype on all ranks, got {' and '.join(named)}")


def _right(rows: Rows) -> str | None:
    return None if rows.right is None else dtypes.name(rows.right.dtype)


def _digest(rows: Rows | None) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    if rows is not None:
        for index in torch.arange(rows.size).split(AT_A_TIME):
            found.update(taken(rows, index).numpy().tobytes())
    return found.digest()


def _all_rows(collective: Collective, own: Tensor) -> Tensor:
    """The rows of all ranks; those of one where all have the same."""
    digest = hashlib.blake2b(own.numpy().tobytes(), digest_size=16).digest()
    told = collective.everyones((len(own), digest))
    if len({digest for _, digest in told}) == 1:
        return own
    return collective.rows(own, [size for size, _ in told])
