"""Pool statistics of several processes: each observes a share of the pool, then all have all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dynal_fast.pool import PoolObservationError, PoolStats

BYTES_AT_A_TIME = 64 << 20
MOST_UNKNOWN = 10  # ids in a message


@dataclass(frozen=True)
class Processes:
    """Those that train together; by default one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Return the processes of torch's default process group, or this one alone.

        >>> Processes.current()
        Processes(rank=0, size=1)
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def of_the_first(self, value: Any) -> Any:
        """Return the first process's ``value``; all must call this."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def all(self, value: Any) -> list[Any]:
        """Return the ``value`` of each process, by rank; all must call this."""
        held: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(held, value)
        return held


@contextmanager
def buffers_of_the_first(processes: Processes, *models: nn.Module | None) -> Iterator[None]:
    """Give every process the first one's buffers for a block, such as those of batch normalisation.

    Data-parallel training keeps the weights equal, but not these; a model is saved with the first
    process's.
    """
    buffers = [b for model in models if model is not None for b in model.buffers()]
    if processes.size == 1 or not buffers:
        yield
        return
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        held = buffer.detach().to(_device_of_the_group(buffer.device)).contiguous()
        dist.broadcast(held, src=0)
        buffer.detach().copy_(held)
    try:
        yield
    finally:
        for buffer, kept in zip(buffers, own, strict=True):
            buffer.detach().copy_(kept)


class SharedPool:
    """A tracker for `observe_pool`: `PoolStats` of which each process updates some samples.

    When a pass ends the processes exchange the rows that each one updated. Then all hold the same
    statistics, those of one process that saw the whole pool, and all raise the same errors.
    """

    def __init__(self, stats: PoolStats, partial: bool, processes: Processes) -> None:
        self.stats, self.partial, self.processes = stats, partial, processes
        self.activation = stats.activation  # which `observe_pool` compares with model and labels
        self.num_passes = 0
        self._seen: list[Tensor] = []

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
        if self.processes.size > 1:
            self._seen.append(sample_ids.long().cpu())

    @contextmanager
    def observe(self, epoch: int, num_epochs: int | None, partial: bool = False) -> Iterator[None]:
        """Observe one pass, each process its share; ``partial`` is this object's own."""
        self.num_passes += 1
        if self.processes.size == 1:
            with self.stats.observe(epoch, num_epochs, partial=self.partial):
                yield
            return
        self._seen = [torch.zeros(0, dtype=torch.int64)]
        wrong = None
        try:
            with self.stats.observe(epoch, num_epochs, partial=True):
                yield
        except PoolObservationError as error:
            wrong = error
        self._join(wrong)

    def _join(self, wrong: PoolObservationError | None) -> None:
        """Exchange what the processes saw, and raise what any of them found wrong."""
        mine = torch.cat(self._seen)
        mine = mine[(mine >= 0) & (mine < self.stats.num_samples)]
        found = None
        if wrong is not None:
            found = wrong.non_finite, wrong.duplicate, wrong.unknown, wrong.num_unknown
        shares, problems = zip(*self.processes.all((mine.unique(), found)), strict=True)
        given = _each_once(shares)
        for tensor in self.stats.state_dict().values():
            if tensor.shape[:1] == (self.stats.num_samples,) and len(tensor):
                _exchange(tensor, given, self.processes.rank)
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
            raise PoolObservationError(non_finite, twice, unseen, unknown, num_unknown)


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


def _exchange(tensor: Tensor, shares: tuple[Tensor, ...], rank: int) -> None:
    """Write into ``tensor`` (samples, ...) the rows of each share as its process has them.

    Rows travel as bytes, since not every backend of a process group knows every dtype.
    """
    row_bytes = max(1, tensor[0].numel()) * tensor.element_size()
    longest = max(len(share) for share in shares)
    at_a_time = max(1, BYTES_AT_A_TIME // (row_bytes * len(shares)))
    device = _device_of_the_group(tensor.device)
    for start in range(0, longest, at_a_time):
        parts = [share[start : start + at_a_time] for share in shares]
        length = max(len(part) for part in parts)
        rows = torch.zeros(length, row_bytes, dtype=torch.uint8, device=device)
        own = parts[rank]
        given = tensor[own.to(tensor.device)].contiguous().view(torch.uint8)
        rows[: len(own)] = given.view(len(own), row_bytes).to(device)
        received = [torch.empty_like(rows) for _ in shares]
        dist.all_gather(received, rows)
        for other, (part, theirs) in enumerate(zip(parts, received, strict=True)):
            if other == rank or not len(part):
                continue
            values = theirs[: len(part)].contiguous().view(-1).view(tensor.dtype)
            values = values.view(len(part), *tensor.shape[1:]).to(tensor.device)
            tensor[part.to(tensor.device)] = values


def _device_of_the_group(device: torch.device) -> torch.device:
    """Return where the process group's tensors live: NCCL takes those of a GPU only."""
    if dist.get_backend() == "nccl" and device.type != "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device
