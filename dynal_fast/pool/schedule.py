"""Which epochs of a training cycle a statistic observes. Epochs count from 1.

``num_epochs`` is None if a training does not know when it ends (``max_steps``, early stopping, a
stream). `without_end` then replaces the schedules that count back from the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """Anything with ``observes(epoch, num_epochs) -> bool``.

    Statistics with equal schedules share tensors, so a schedule of your own needs ``__eq__``; a
    frozen dataclass has it.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class PowersOfTwo:
    ...     def observes(self, epoch, num_epochs):
    ...         return epoch & (epoch - 1) == 0
    >>> isinstance(PowersOfTwo(), Schedule)
    True
    """

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether ``epoch``, from 1, is observed; ``num_epochs`` may be None: unknown."""
        ...


@dataclass(frozen=True)
class EveryEpoch:
    """Every epoch, or every ``interval``-th one counted back from the last.

    With an interval above 1 the last epoch must be known; `FromEpoch` counts from the first.

    Parameters
    ----------
    interval
        At least 1.

    Raises
    ------
    ValueError
        ``interval`` is not a positive integer.

    Examples
    --------
    >>> [epoch for epoch in range(1, 8) if EveryEpoch(3).observes(epoch, 7)]
    [1, 4, 7]
    """

    interval: int = 1

    def __post_init__(self) -> None:
        _check_positive("interval", self.interval)

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether ``epoch``, from 1, is observed."""
        if self.interval == 1:
            return True
        return (_known(self, num_epochs) - epoch) % self.interval == 0


@dataclass(frozen=True)
class FromEpoch:
    """Epoch ``start`` and every ``interval``-th one after it.

    The last epoch need not be known: this is the alternative to `LastEpochs` for a training that
    may stop at any time.

    Parameters
    ----------
    start, interval
        At least 1.

    Raises
    ------
    ValueError
        One is not a positive integer.

    Examples
    --------
    >>> [epoch for epoch in range(1, 12) if FromEpoch(4, interval=3).observes(epoch, None)]
    [4, 7, 10]
    """

    start: int = 1
    interval: int = 1

    def __post_init__(self) -> None:
        _check_positive("start", self.start)
        _check_positive("interval", self.interval)

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether ``epoch``, from 1, is observed."""
        return epoch >= self.start and (epoch - self.start) % self.interval == 0


@dataclass(frozen=True)
class LastEpochs:
    """The last ``n`` epochs at an interval: e_i = N_e - (i - 1) * interval, i = 1 .. n.

    Eq. 4 of the prediction stability paper, which takes n = 5 with an interval of 5 on CIFAR-10
    and of 1 on CIFAR-100. In a training that is too short for n of them, as many as there are.

    Parameters
    ----------
    n, interval
        At least 1.

    Raises
    ------
    ValueError
        One is not a positive integer.

    Examples
    --------
    >>> [epoch for epoch in range(1, 165) if LastEpochs(5, interval=5).observes(epoch, 164)]
    [144, 149, 154, 159, 164]
    """

    n: int = 1
    interval: int = 1

    def __post_init__(self) -> None:
        _check_positive("n", self.n)
        _check_positive("interval", self.interval)

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether ``epoch``, from 1, is observed.

        Raises
        ------
        ValueError
            ``num_epochs`` is None.
        """
        steps, rest = divmod(_known(self, num_epochs) - epoch, self.interval)
        return rest == 0 and 0 <= steps < self.n


@dataclass(frozen=True, repr=False)
class Epochs:
    """An explicit set of epochs.

    Parameters
    ----------
    epochs
        At least one, each at least 1.

    Raises
    ------
    ValueError
        There is none, or one is not a positive integer.

    Examples
    --------
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

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether ``epoch``, from 1, is observed."""
        return epoch in self.epochs

    def __repr__(self) -> str:
        return f"Epochs({sorted(self.epochs)})"


def without_end(schedule: Schedule, keeps_last: bool) -> Schedule:
    """Return the schedule that replaces ``schedule`` if the number of epochs is unknown.

    Parameters
    ----------
    keeps_last
        Whether each observation replaces the one before. If so, every epoch is observed, as any may
        be the last, and the epochs before it leave no trace.

    >>> without_end(LastEpochs(1), keeps_last=True), without_end(LastEpochs(5), keeps_last=False)
    (EveryEpoch(interval=1), EveryEpoch(interval=1))
    >>> without_end(EveryEpoch(3), keeps_last=False), without_end(Epochs([2]), keeps_last=False)
    (FromEpoch(start=3, interval=3), Epochs([2]))
    """
    if isinstance(schedule, LastEpochs):
        return EveryEpoch()
    if isinstance(schedule, EveryEpoch) and schedule.interval > 1:
        return EveryEpoch() if keeps_last else FromEpoch(schedule.interval, schedule.interval)
    return schedule


def observes_once(schedule: Schedule) -> bool:
    """Return whether a schedule observes exactly one epoch of a training that knows its end."""
    if isinstance(schedule, LastEpochs):
        return schedule.n == 1
    return isinstance(schedule, Epochs) and len(schedule.epochs) == 1


def _known(schedule: Schedule, num_epochs: int | None) -> int:
    if num_epochs is None:
        raise ValueError(
            f"{schedule} counts back from the last epoch, but num_epochs is None; take a schedule "
            "that needs no end: EveryEpoch(), FromEpoch(start, interval) or Epochs(...)"
        )
    return num_epochs


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
