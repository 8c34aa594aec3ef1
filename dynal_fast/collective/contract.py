"""`Collective`: what ranks tell each other, and errors that all of them raise."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
# Errors of data and of arguments, which are the same error on every rank.
TOLD = (ValueError, TypeError, ImportError, LookupError, OSError, MemoryError)


class RankError(RuntimeError):
    """Another rank failed, or cannot be reached; the message names it."""


class Collective(Protocol):
    """What ranks tell each other. All of them call the same methods in the same order.

    A method returns the same on every rank, and raises `RankError` where a rank is lost.
    """

    rank: int
    size: int
    received: int  # bytes so far, by what each method needs; not what a network adds

    def session(self) -> AbstractContextManager[None]:
        """A block of calls. Whatever a rank raises in it ends the block on all of them."""

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest of each of some int64 numbers."""

    def total(self, values: Sequence[int]) -> list[int]:
        """The sum of each of some int64 numbers."""

    def counts(self, values: Sequence[int]) -> list[list[int]]:
        """The numbers of each rank, by rank."""

    def rows(self, own: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """The rows of all ranks, by rank: uint8 (rows, bytes); ``counts`` says how many of each."""

    def exchange(
        self, parts: Sequence[torch.Tensor], counts: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        """What each rank has for this one: uint8 (rows, bytes), of which ``counts`` says how many.

        ``parts`` is what this one has for each.
        """

    def everyones(self, value: Any) -> list[Any]:
        """The ``value`` of each rank, by rank; small objects that can be pickled."""


class Alone:
    """One rank.

    >>> Alone().largest([3, 5])
    [3, 5]
    """

    rank, size, received = 0, 1, 0

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def largest(self, values: Sequence[int]) -> list[int]:
        return list(values)

    def total(self, values: Sequence[int]) -> list[int]:
        return list(values)

    def counts(self, values: Sequence[int]) -> list[list[int]]:
        return [list(values)]

    def rows(self, own: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        return own

    def exchange(
        self, parts: Sequence[torch.Tensor], counts: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        return parts

    def everyones(self, value: Any) -> list[Any]:
        return [value]


def agreed(collective: Collective, made: Callable[[], T]) -> T:
    """Return what ``made`` returns, once it has raised on no rank.

    Otherwise the error of the lowest rank where it has is raised on all of them, and names it.

    >>> agreed(Alone(), lambda: 3)
    3
    """
    result: T | None = None
    error: Exception | None = None
    try:
        result = made()
    except TOLD as failure:
        error = failure
    (failed,) = collective.total([int(error is not None)])
    if not failed:
        return result  # type: ignore[return-value]
    if collective.size == 1 and error is not None:
        raise error
    told = collective.everyones(None if error is None else (_kind(error), str(error)))
    rank, (kind, text) = next((r, one) for r, one in enumerate(told) if one is not None)
    if len({one and one[1] for one in told}) > 1:  # else it is one of arguments, not of a shard
        more = f" ({failed - 1} more of {collective.size} ranks have errors)" if failed > 1 else ""
        text = f"rank {rank}: {text}{more}"
    raise on_all_ranks(kind(text)) from error


def check_alike(collective: Collective, what: str, numbers: Sequence[int]) -> None:
    """Raise ``ValueError`` on all ranks unless each has the same int64 numbers.

    >>> check_alike(Alone(), "k", [3])
    """
    said = collective.counts(numbers)
    if any(one != said[0] for one in said):
        raise on_all_ranks(ValueError(f"{what} must be the same on every rank"))


def on_all_ranks(error: E) -> E:
    """Return an error marked as one that all ranks raise, so that it is told to none."""
    error.on_all_ranks = True  # type: ignore[attr-defined]
    return error


def _kind(error: Exception) -> type[Exception]:
    return next(kind for kind in TOLD if isinstance(error, kind))
