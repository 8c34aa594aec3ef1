"""Simulated ranks in one process: the same code without a network, one rank at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from dynal_fast.collective.contract import RankError

T = TypeVar("T")
STACK = 1 << 20  # bytes for each rank's thread


def run_ranks(size: int, function: Callable[["InMemory"], T]) -> list[T]:
    """Call ``function`` on each of ``size`` simulated ranks and return what each returned.

    One runs at a time, until it waits for the others: times of a rank are its own. The error of
    the lowest rank that failed by itself is raised.

    >>> run_ranks(3, lambda ranks: ranks.total([ranks.rank]))
    [[3], [3], [3]]
    """
    meeting = _Meeting(size)
    results: list[Any] = [None] * size
    errors: list[BaseException | None] = [None] * size

    def work(rank: int) -> None:
        meeting.wait_for_turn(rank)
        try:
            results[rank] = function(InMemory(meeting, rank))
        except BaseException as error:  # raised below, on the caller's thread
            errors[rank] = error
            if not isinstance(error, RankError):
                meeting.broken = meeting.broken or f"rank {rank} failed: {error}"
        finally:
            meeting.leave(rank)

    before = threading.stack_size(STACK)
    try:
        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(before)
    for thread in threads:
        thread.join()
    own = [error for error in errors if error is not None and not isinstance(error, RankError)]
    for failure in (*own, *errors):
        if failure is not None:
            raise failure
    return results


class _Meeting:
    """Where ranks meet: each leaves its value, and the last one to come lets all go on."""

    def __init__(self, size: int) -> None:
        self.size, self.broken = size, ""
        self.turns = [threading.Semaphore(rank == 0) for rank in range(size)]
        self.left = [False] * size
        self.values: list[Any] = [None] * size
        self.joined: Any = None

    def wait_for_turn(self, rank: int) -> None:
        self.turns[rank].acquire()

    def exchange(
        self, rank: int, value: Any, join: Callable[[list[Any]], Any] | None = None
    ) -> Any:
        """Return the value of every rank, or what ``join`` makes of them, once for all.

        Ranks come in order, so that the next one goes on.
        """
        values = self.values
        values[rank] = value
        if rank == self.size - 1:
            self.values = [None] * self.size
            self.joined = join(values) if join else values
        self._next(rank)
        self.wait_for_turn(rank)
        if self.broken:
            raise RankError(self.broken)
        return self.joined

    def leave(self, rank: int) -> None:
        self.left[rank] = True
        self._next(rank)

    def _next(self, rank: int) -> None:
        for step in range(1, self.size + 1):
            after = (rank + step) % self.size
            if not self.left[after]:
                self.turns[after].release()
                return


class InMemory:
    """One of the simulated ranks."""

    def __init__(self, meeting: _Meeting, rank: int) -> None:
        self._meeting, self.rank, self.size, self.received = meeting, rank, meeting.size, 0

    @contextmanager
    def session(self) -> Iterator[None]:
        yield

    def largest(self, values: Sequence[int]) -> list[int]:
        return self._reduced(values, max)

    def total(self, values: Sequence[int]) -> list[int]:
        return self._reduced(values, sum)

    def _reduced(self, values: Sequence[int], how: Callable[[tuple[int, ...]], int]) -> list[int]:
        def join(told: list[Sequence[int]]) -> list[int]:
            return [how(column) for column in zip(*told, strict=True)]

        self.received += 2 * 8 * len(values)  # of a ring: once to sum up, once to tell
        return list(self._meeting.exchange(self.rank, values, join))

    def counts(self, values: Sequence[int]) -> list[list[int]]:
        self.received += 8 * len(values) * (self.size - 1)
        return self._meeting.exchange(self.rank, list(values))

    def rows(self, own: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        assert len(own) == counts[self.rank], "what was said is what is sent"
        found = self._meeting.exchange(self.rank, own, torch.cat)
        self.received += found.nbytes - own.nbytes
        return found.clone()

    def exchange(
        self, parts: Sequence[torch.Tensor], counts: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        found = [theirs[self.rank] for theirs in self._meeting.exchange(self.rank, list(parts))]
        assert [len(part) for part in found] == list(counts), "what was said is what is sent"
        self.received += sum(part.nbytes for part in found) - parts[self.rank].nbytes
        return found

    def everyones(self, value: Any) -> list[Any]:
        return list(self._meeting.exchange(self.rank, value))
