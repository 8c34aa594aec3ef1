"""Pool statistics of several processes: each observes a share of the pool, then all have all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dynal_fast.collective import Alone, Collective, as_collective, on_all_ranks
from dynal_fast.collective.packing import as_bytes, from_bytes
from dynal_fast.pool import PoolObservationError, PoolStats
from dynal_fast.pool.sharded.saved_parts import is_of_samples

BYTES_AT_A_TIME = 64 << 20
MOST_UNKNOWN = 10  # ids in a message


@dataclass(frozen=True)
class Processes:
    """Those that train together; by default one."""

    ranks: Collective = field(default_factory=Alone, repr=False)

    @classmethod
    def current(cls) -> "Processes":
        """Return the processes of torch's default process group, or this one alone.

        >>> Processes.current().size
        1
        """
        if dist.is_available() and dist.is_initialized():
            return cls(as_collective(dist.group.WORLD))
        return cls()

    @classmethod
    def of(cls, stats: PoolStats) -> "Processes":
        """Return those that keep ``stats`` together, or that train together if one keeps them."""
        return cls.current() if stats.shard.is_whole else cls(stats.shard.ranks)

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.ranks.rank

    @property
    def size(self) -> int:
        """How many there are."""
        return self.ranks.size

    def of_the_first(self, value: Any) -> Any:
        """Return the first process's ``value``; all must call this."""
        return self.all(value if self.rank == 0 else None)[0]

    def all(self, value: Any) -> list[Any]:
        """Return the ``value`` of each process, by rank; all must call this."""
        with self.ranks.session():
            return self.ranks.everyones(value)


class SharedPool:
    """A tracker for `observe_pool`: `PoolStats` of which each process updates some samples.

    Statistics with a ``group`` find the owners of the rows themselves. Of others, the processes
    exchange the rows that each one updated when a pass ends. Then all hold the same statistics,
    those of one process that saw the whole pool. All raise the same errors.
    """

    def __init__(self, stats: PoolStats, partial: bool, processes: Processes) -> None:
        self.stats, self.partial, self.processes = stats, partial, processes
        self.activation = stats.activation  # which `observe_pool` compares with model and labels
        self.shard = stats.shard  # which tells `observe_pool` that ranks without samples take part
        self.num_passes = 0
        self._seen: list[Tensor] = []

    @property
    def _exchanges(self) -> bool:
        return self.processes.size > 1 and self.shard.is_whole

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Do what `PoolStats.observes` does."""
        return self.stats.observes(epoch, num_epochs)

    def update(
        self,
        sample_ids: Tensor,
        logits: Tensor,
        teacher_logits: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> None:
        """Do what `PoolStats.update` does; logits are moved to the statistics' device."""
        device = self.stats.device
        if teacher_logits is not None:
            teacher_logits = teacher_logits.to(device, logits.dtype)
        self.stats.update(sample_ids, logits.to(device), teacher_logits, targets)
        if self._exchanges:
            self._seen.append(sample_ids.long().cpu())

    @contextmanager
    def observe(self, epoch: int, num_epochs: int | None, partial: bool = False) -> Iterator[None]:
        """Observe one pass, each process its share; ``partial`` is this object's own."""
        self.num_passes += 1
        if not self._exchanges:
            with self.stats.observe(epoch, num_epochs, partial=self.partial):
                yield
            return
        self._seen = [torch.zeros(0, dtype=torch.int64)]
        wrong = None
        with self.processes.ranks.session():
            try:
                with self.stats.observe(epoch, num_epochs, partial=True):
                    yield
            except PoolObservationError as error:
                wrong = error
            self._join(wrong)

    def begin(self, epoch: int, num_epochs: int | None) -> None:
        """Begin a pass that lasts while other things happen, and of which samples may be unseen."""
        self._seen = [torch.zeros(0, dtype=torch.int64)]
        self.stats.begin_pass(epoch, num_epochs, partial=True)

    def end(self) -> None:
        """End it; every process must call this."""
        wrong = None
        try:
            self.stats.end_pass()
        except PoolObservationError as error:
            wrong = error
        if self._exchanges:
            with self.processes.ranks.session():
                self._join(wrong)
        elif wrong is not None:
            raise wrong

    def _join(self, wrong: PoolObservationError | None) -> None:
        """Exchange what the processes saw, and raise what any of them found wrong."""
        mine = torch.cat(self._seen)
        mine = mine[(mine >= 0) & (mine < self.stats.num_samples)]
        found = None
        if wrong is not None:
            found = wrong.non_finite, wrong.duplicate, wrong.unknown, wrong.num_unknown
        shares, problems = zip(*self.processes.all((mine.unique(), found)), strict=True)
        given = _each_once(shares)
        for key, tensor in self.stats.state_dict().items():
            if is_of_samples(key) and len(tensor):
                _exchange(tensor, given, self.processes.ranks)
        all_seen, times = torch.cat(shares).unique(return_counts=True)
        remaining = self.stats.remaining().cpu()
        unseen = remaining[~torch.isin(remaining, all_seen)] if not self.partial else remaining[:0]
        none = torch.zeros(0, dtype=torch.int64)
        told = [problem for problem in problems if problem is not None]
        non_finite = torch.cat([none, *(problem[0] for problem in told)]).unique()
        twice = torch.cat([all_seen[times > 1], *(problem[1] for problem in told)]).unique()
        unknown = torch.cat([none, *(problem[2] for problem in told)])[:MOST_UNKNOWN]
        num_unknown = sum(problem[3] for problem in told)
        if len(non_finite) or len(twice) or len(unseen) or num_unknown:
            error = PoolObservationError(non_finite, twice, unseen, unknown, num_unknown)
            raise on_all_ranks(error)


def _each_once(shares: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the shares without what an earlier one holds, so that all end with the same rows.

    >>> _each_once((torch.tensor([0, 1]), torch.tensor([1, 2])))
    (tensor([0, 1]), tensor([2]))
    """
    before, kept = torch.zeros(0, dtype=torch.int64), []
    for share in shares:
        kept.append(share[~torch.isin(share, before)])
        before = torch.cat([before, kept[-1]])
    return tuple(kept)


def _exchange(tensor: Tensor, shares: tuple[Tensor, ...], ranks: Collective) -> None:
    """Write into ``tensor`` (samples, ...) the rows of each share as its process has them."""
    row_bytes = as_bytes(tensor[:1]).shape[1]
    at_a_time = max(1, BYTES_AT_A_TIME // (row_bytes * len(shares)))
    for start in range(0, max(len(share) for share in shares), at_a_time):
        parts = [share[start : start + at_a_time] for share in shares]
        own = as_bytes(tensor[parts[ranks.rank].to(tensor.device)])
        received = ranks.rows(own, [len(part) for part in parts])
        tensor[torch.cat(parts).to(tensor.device)] = from_bytes(received, tensor)


def whole_state(stats: PoolStats) -> dict[str, Tensor]:
    """Return the state of all samples on the first of the processes that keep them together.

    The others return an empty one. All must call this. It is that of one process, and any number of
    processes can load it.
    """
    state = stats.state_dict()
    if stats.shard.is_whole:
        return state
    whole = {}
    for key, tensor in state.items():
        if key == "shard":
            continue
        gathered = stats.shard.whole(tensor.cpu()) if is_of_samples(key) else tensor
        if stats.shard.ranks.rank == 0:
            whole[key] = gathered
    return whole
