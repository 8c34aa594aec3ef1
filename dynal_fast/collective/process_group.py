"""Ranks of a process group of torch.distributed: gloo on CPUs, NCCL on GPUs.

While a call waits, it looks at the clock and at the others (`watch.py`), so that a rank that died,
a network that stalls, and Ctrl-C end all ranks soon; torch alone waits for up to half an hour.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dynal_fast.collective.contract import RankError
from dynal_fast.collective.watch import PATIENCE, Watch, history_of

SPINS = 200  # looks at a call that is under way, before the first sleep
NAP, LONG_NAP = 5e-5, 2e-3  # seconds between looks


class OfProcessGroup:
    """This process among those of a process group.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup
        Any group that this process belongs to.
    patience : float
        After so many seconds without a sign of life a rank counts as lost.
    """

    def __init__(self, group: Any, patience: float = PATIENCE) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "group must be of a torch.distributed that is initialized: call "
                "torch.distributed.init_process_group first"
            )
        self.group, self.patience = group, patience
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group must be one that this process belongs to")
        self.received = 0
        self.ranks = dist.get_process_group_ranks(group)
        self.history = history_of(dist.group.WORLD if group is None else group)
        self.device = torch.device("cpu")
        if "nccl" in str(dist.get_backend(group)) and "gloo" not in str(dist.get_backend(group)):
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._watch: Watch | None = None

    @contextmanager
    def session(self) -> Iterator[None]:
        if self.size == 1 or self._watch is not None:
            yield
            return
        self._watch = Watch(self.history, self.rank, self.size, self.patience)
        try:
            with self._watch:
                yield
        finally:
            self._watch = None

    def largest(self, values: Sequence[int]) -> list[int]:
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, values: Sequence[int]) -> list[int]:
        return self._reduced(values, dist.ReduceOp.SUM)

    def _reduced(self, values: Sequence[int], how: Any) -> list[int]:
        held = torch.tensor(list(values), dtype=torch.int64, device=self.device)
        self._wait(lambda: [dist.all_reduce(held, how, group=self.group, async_op=True)])
        self.received += 2 * held.nbytes
        return held.tolist()

    def counts(self, values: Sequence[int]) -> list[list[int]]:
        held = torch.tensor(list(values), dtype=torch.int64, device=self.device)
        return [row.tolist() for row in self._gathered(held)]

    def _gathered(self, held: Tensor) -> list[Tensor]:
        found = [torch.empty_like(held) for _ in range(self.size)]
        self._wait(lambda: [dist.all_gather(found, held, group=self.group, async_op=True)])
        self.received += held.nbytes * (self.size - 1)
        return found

    def rows(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        columns = own.shape[1]
        parts = [
            own.contiguous().to(self.device)
            if rank == self.rank
            else torch.empty(count, columns, dtype=torch.uint8, device=self.device)
            for rank, count in enumerate(counts)
        ]
        self._wait(
            lambda: [
                dist.broadcast(part, self.ranks[rank], group=self.group, async_op=True)
                for rank, part in enumerate(parts)
                if part.numel()
            ]
        )
        self.received += sum(part.nbytes for part in parts) - parts[self.rank].nbytes
        return torch.cat(parts).cpu()

    def exchange(self, parts: Sequence[Tensor], counts: Sequence[int]) -> Sequence[Tensor]:
        sent = torch.cat(list(parts)).to(self.device)
        found = torch.empty(sum(counts), sent.shape[1], dtype=torch.uint8, device=self.device)
        sizes = [len(part) for part in parts]
        self._wait(
            lambda: [
                dist.all_to_all_single(
                    found, sent, list(counts), sizes, group=self.group, async_op=True
                )
            ]
        )
        self.received += found.nbytes - counts[self.rank] * sent.shape[1]
        return found.cpu().split(list(counts))

    def everyones(self, value: Any) -> list[Any]:
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)[:, None]
        sent = self.rows(own, sizes := [size for (size,) in self.counts([len(own)])])
        return [pickle.loads(part.numpy().tobytes()) for part in sent.split(sizes)]

    def _wait(self, begin: Callable[[], list[Any]]) -> None:
        """Begin calls of torch.distributed and wait for them, or for a rank to be lost."""
        try:
            self.history.calls += 1
            works = [work for work in begin() if work is not None]
            self.history.calls += 1
            looks = 0
            for work in works:
                while not work.is_completed():
                    looks += 1
                    if looks > SPINS:
                        time.sleep(NAP if looks < 2 * SPINS else LONG_NAP)
                        if self._watch is not None:
                            self._watch.look()
                work.wait()
        except RankError:
            raise
        except RuntimeError as error:
            if self._watch is not None:
                self._watch.explain(error)
            raise
