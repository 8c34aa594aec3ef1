"""Which epochs of a training cycle a statistic observes. Epochs count from 1."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """Anything with ``observes(epoch, num_epochs) -> bool``; equal schedules share their state."""

    def observes(self, epoch: int, num_epochs: int) -> bool: ...


@dataclass(frozen=True)
class EveryEpoch:
    """Every epoch, or every ``interval``-th one counted back from the last.

    >>> [epoch for epoch in range(1, 8) if EveryEpoch(3).observes(epoch, 7)]
    [1, 4, 7]
    """

    interval: int = 1

    def __post_init__(self) -> None:
        _check_positive("interval", self.interval)

    def observes(self, epoch: int, num_epochs: int) -> bool:
        return (num_epochs - epoch) % self.interval == 0


@dataclass(frozen=True)
class LastEpochs:
    """The last ``n`` epochs at an interval: e_i = N_e - (i - 1) * interval, i = 1..n.

    Eq. 4 of the prediction stability paper, which takes n = 5 with an interval of 5 on CIFAR-10
    and of 1 on CIFAR-100. Of a training too short for n of them, as many as there are.

    >>> [epoch for epoch in range(1, 165) if LastEpochs(5, interval=5).observes(epoch, 164)]
    [144, 149, 154, 159, 164]
    """

    n: int = 1
    interval: int = 1

    def __post_init__(self) -> None:
        _check_positive("n", self.n)
        _check_positive("interval", self.interval)

    def observes(self, epoch: int, num_epochs: int) -> bool:
        steps, rest = divmod(num_epochs - epoch, self.interval)
        return rest == 0 and 0 <= steps < self.n


@dataclass(frozen=True, repr=False)
class Epochs:
    """An explicit set of epochs.

    >>> [epoch for epoch in range(1, 8) if Epochs({2, 3, 7}).observes(epoch, 7)]
    [2, 3, 7]
    """

    epochs: frozenset[int]

    def __init__(self, epochs: Iterable[int]) -> None:
        object.__setattr__(self, "epochs", frozenset(epochs))
        for epoch in self.epochs:
            _check_positive("epochs", epoch)
        if not self.epochs:
            raise ValueError("epochs must name at least one epoch, got none")

    def observes(self, epoch: int, num_epochs: int) -> bool:
        return epoch in self.epochs

    def __repr__(self) -> str:
        return f"Epochs({sorted(self.epochs)})"


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
