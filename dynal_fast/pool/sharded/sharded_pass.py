"""A pass over a pool that ranks share: rows find their owners, and its end is one for all."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dynal_fast.collective import on_all_ranks
from dynal_fast.collective.packing import as_bytes, numbers_of
from dynal_fast.ops.pool_stats import LOGIT_LIMIT, MAX_UNKNOWN_IDS, Dropout
from dynal_fast.ops.pool_stats.contract import LOGIT_DTYPES, check_batch
from dynal_fast.ops.pool_stats.dropout import factors
from dynal_fast.pool.batch import as_floats, as_ids, as_store, as_targets
from dynal_fast.pool.errors import PoolObservationError
from dynal_fast.pool.open_pass import OpenPass
from dynal_fast.pool.sharded.shard import Shard

BYTES_AT_A_TIME = 64 << 20  # sent by a rank in one exchange
NO_TARGET = -100


class Rows(NamedTuple):
    """Rows of samples that other ranks own, kept until the pass ends."""

    ids: Tensor  # (rows,) int64
    targets: Tensor  # (rows,) int64
    logits: Tensor  # (rows, classes)
    teacher: Tensor  # the same, or (rows, 0)


@dataclass
class ShardedPass(OpenPass):
    """One rank's part of a pass.

    Rows of its own samples are folded in at once. Others wait, and one exchange at the end brings
    them to their owners, so that ranks may have different numbers of batches, or none.
    """

    shard: Shard = field(kw_only=True)
    rows: list[Rows] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)  # the first few ids out of range
    num_outside: int = 0
    senders: dict[int, Tensor] = field(default_factory=dict)  # who sent which samples' rows

    def update(self, sample_ids: Any, logits: Any, teacher_logits: Any, targets: Any) -> None:
        ids = _ids(sample_ids)
        logits = as_floats("logits", logits)
        if teacher_logits is not None:
            teacher_logits = as_floats("teacher_logits", teacher_logits)
        check_batch(
            ids.to(self.device), logits, teacher_logits, self.num_classes, self.device,
            self.due[0].activation,
        )  # fmt: skip
        if targets is not None:
            targets = as_targets(targets, len(ids), self.device)
        own, foreign = self._split(ids)
        if foreign is None:
            super().update(ids - self.shard.begin, logits, teacher_logits, targets)
            return
        super().update(ids[own] - self.shard.begin, *_taken(own, logits, teacher_logits, targets))
        kept = _taken(foreign, logits, teacher_logits, targets)
        self._keep(ids[foreign], *kept)

    def update_from_features(
        self,
        sample_ids: Any,
        features: Any,
        weight: Any,
        bias: Any,
        teacher_features: Any,
        teacher_weight: Any,
        teacher_bias: Any,
        targets: Any,
        by_id: bool,
        dropout: Dropout,
    ) -> None:
        ids = _ids(sample_ids)
        own, foreign = self._split(ids)
        head = (weight, bias)
        teacher = (teacher_features, teacher_weight, teacher_bias)
        if targets is not None:
            targets = as_targets(targets, len(ids), self.device)
        if by_id:
            begin, end = self.shard.begin, self.shard.end
            stores = [_store(n, f, self.shard.num_samples) for n, f in
                      (("features", features), ("teacher_features", teacher_features))]  # fmt: skip
            mine = [None if store is None else store[begin:end] for store in stores]
        else:
            stores = [None if f is None else as_floats("features", f)
                      for f in (features, teacher_features)]  # fmt: skip
            mine = stores if foreign is None else _taken(own, *stores)
        masks = replace(dropout, first_sample=self.shard.begin)
        chosen = targets if foreign is None or targets is None else targets[own]
        super().update_from_features(
            (ids if foreign is None else ids[own]) - self.shard.begin,
            mine[0], *head, mine[1], *teacher[1:], chosen, by_id, masks,
        )  # fmt: skip
        if foreign is None:
            return
        rows = ids[foreign] if by_id else foreign.nonzero().squeeze(1)
        assert stores[0] is not None
        features = stores[0][rows.to(stores[0].device)]
        if dropout.below:
            mask = factors(ids[foreign], features.shape[1], dropout, self.due[0].pass_stamp)
            features = features * mask.to(features.device)  # in float32, as its owner
        logits = _logits(features, *head, self.device)
        teacher_logits = None
        if stores[1] is not None:
            features = stores[1][rows.to(stores[1].device)]
            teacher_logits = _logits(features, *teacher[1:], self.device)
        self._keep(ids[foreign], logits, teacher_logits, *_taken(foreign, targets))

    def _split(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return which rows are this rank's, and which others'; None if all are this rank's.

        Ids on a GPU are waited for: pass those of the loader, which are on the CPU.
        """
        own = (ids >= self.shard.begin) & (ids < self.shard.end)
        if bool(own.all()):
            return own, None
        inside = (ids >= 0) & (ids < self.shard.num_samples)
        outside = ids[~inside].tolist()
        self.num_outside += len(outside)
        self.outside += outside[: MAX_UNKNOWN_IDS - len(self.outside)]
        return own, inside & ~own

    def _keep(
        self, ids: Tensor, logits: Tensor, teacher: Tensor | None, targets: Tensor | None
    ) -> None:
        if not len(ids):
            return
        compares = any("teacher_discrepancy" in tracker.state for tracker in self.due)
        if teacher is None or not compares:
            teacher = logits[:, :0]
        self.labeled |= targets is not None
        if targets is None:
            targets = torch.full((len(ids),), NO_TARGET)
        self.rows.append(Rows(ids.cpu(), targets.cpu(), logits, teacher))

    # The end

    def end(self) -> None:
        """Bring the rows to their owners, and raise on all ranks what any of them found.

        Raises
        ------
        PoolObservationError
            The same on every rank; it names ids and ranks.
        """
        self._deliver()
        found = self.found()
        wrong = found is not None or self.num_outside > 0
        ranks = self.shard.ranks
        (any_wrong, labeled) = ranks.total([int(wrong), int(self.labeled)])
        if not any_wrong:
            return
        own = self._told(found) if wrong else None
        told = [one for one in ranks.everyones(own) if one is not None]
        ids = {name: torch.cat([one[0][name][0] for one in told]) for name in _KINDS}
        by = {name: torch.cat([one[0][name][1] for one in told]) for name in _KINDS}
        unknown = [pair for one in told for pair in one[1]][:MAX_UNKNOWN_IDS]
        error = PoolObservationError(
            ids["non_finite"],
            ids["duplicate"],
            ids["unseen"],
            torch.tensor([id for id, _ in unknown], dtype=torch.int64),
            sum(one[2] for one in told),
            LOGIT_LIMIT if "logit_count" in self.due[0].state else None,
            self.num_classes if labeled else None,
            ranks={**by, "unknown": torch.tensor([rank for _, rank in unknown], dtype=torch.int64)},
        )
        raise on_all_ranks(error)

    def _told(self, found: PoolObservationError | None) -> tuple[dict[str, Any], list[Any], int]:
        """Return the ids that are wrong here, each with the rank whose rows those were."""
        rank = self.shard.ranks.rank
        kinds = {}
        for name in _KINDS:
            local = getattr(found, name) if found is not None else torch.zeros(0).long()
            ids = local + self.shard.begin
            by = torch.full_like(ids, rank)
            for sender, theirs in self.senders.items() if name != "unseen" else ():
                by[torch.isin(ids, theirs)] = sender
            kinds[name] = ids, by
        unknown = [(id, rank) for id in self.outside]
        if found is not None:
            unknown += [(id + self.shard.begin, rank) for id in found.unknown.tolist()]
        return kinds, unknown, self.num_outside + (0 if found is None else found.num_unknown)

    def _deliver(self) -> None:
        """Send the rows that wait to their owners, and fold in those that come."""
        ranks = self.shard.ranks
        codes = [LOGIT_DTYPES.index(rows.logits.dtype) for rows in self.rows]
        waiting = sum(len(rows.ids) for rows in self.rows)
        with_teacher = any(rows.teacher.shape[1] for rows in self.rows)
        total, *kinds, teacher, labeled = ranks.total(
            [waiting, *(codes.count(code) for code in range(len(LOGIT_DTYPES))),
             int(with_teacher), int(self.labeled)]
        )  # fmt: skip
        if not total:
            return
        dtype = LOGIT_DTYPES[next(code for code, rows in enumerate(kinds) if rows)]
        for code, rows in enumerate(kinds):
            dtype = torch.promote_types(dtype, LOGIT_DTYPES[code]) if rows else dtype
        table, owners = self._table(dtype, bool(teacher))
        order = owners.argsort(stable=True)
        sent = owners.bincount(minlength=ranks.size).tolist()
        counts = ranks.counts(sent)
        starts = [sum(sent[:rank]) for rank in range(ranks.size)]
        step = max(1, BYTES_AT_A_TIME // (table.shape[1] * ranks.size))
        for first in range(0, max(map(max, counts)), step):
            parts = [
                table[order[start + min(first, n) : start + min(first + step, n)]]
                for start, n in zip(starts, sent, strict=True)
            ]
            coming = [min(max(theirs[ranks.rank] - first, 0), step) for theirs in counts]
            for sender, came in enumerate(ranks.exchange(parts, coming)):
                self._receive(sender, came, dtype, bool(teacher), bool(labeled))

    def _table(self, dtype: torch.dtype, teacher: bool) -> tuple[Tensor, Tensor]:
        """Return the rows that wait as bytes, and their owners; they no longer wait."""
        device = self.device
        ids = torch.cat([torch.zeros(0, dtype=torch.int64), *(rows.ids for rows in self.rows)])
        targets = torch.cat([ids[:0], *(rows.targets for rows in self.rows)])
        empty = torch.empty(0, self.num_classes, dtype=dtype, device=device)
        columns = [ids[:, None], targets[:, None]]
        columns.append(torch.cat([empty, *(rows.logits.to(dtype) for rows in self.rows)]))
        if teacher:
            columns.append(torch.cat([empty, *(rows.teacher.to(dtype) for rows in self.rows)]))
        self.rows = []
        table = torch.cat([as_bytes(column).to("cpu") for column in columns], dim=1)
        return table, self.shard.owners(ids)

    def _receive(
        self, sender: int, rows: Tensor, dtype: torch.dtype, teacher: bool, labeled: bool
    ) -> None:
        if not len(rows):
            return
        width = self.num_classes * dtype.itemsize
        numbers, logits, teacher_logits = rows.split([16, width, width if teacher else 0], dim=1)
        ids, targets = numbers_of(numbers, torch.int64).view(-1, 2).unbind(1)
        before = self.senders.get(sender, ids[:0])
        self.senders[sender] = torch.cat([before, ids])
        batch = [
            numbers_of(values, dtype).view(len(values), -1).to(self.device)
            for values in (logits, teacher_logits)[: 1 + teacher]
        ]
        super().update(
            ids - self.shard.begin,
            batch[0],
            batch[1] if teacher else None,
            targets.contiguous() if labeled else None,
        )


_KINDS = ("non_finite", "duplicate", "unseen")


def _ids(sample_ids: Any) -> Tensor:
    """Return sample ids as int64, where they are."""
    device = sample_ids.device if isinstance(sample_ids, Tensor) else torch.device("cpu")
    return as_ids(sample_ids, device).long()


def _taken(rows: Tensor, *arrays: Any) -> list[Any]:
    return [None if array is None else array[rows.to(array.device)] for array in arrays]


def _store(name: str, array: Any, rows: int) -> Tensor | None:
    store = None if array is None else as_store(name, array)
    if store is not None and len(store) != rows:
        raise ValueError(f"{name} must be those of all {rows} samples with by_id, got {len(store)}")
    return store


def _logits(features: Tensor, weight: Any, bias: Any, device: torch.device) -> Tensor:
    features = features.to(device)
    weight = as_floats("weight", weight)
    bias = None if bias is None else as_floats("bias", bias)
    return functional.linear(features.to(weight.dtype), weight, bias).detach()
