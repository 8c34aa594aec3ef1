"""What a method is, and how its cost depends on the size of a case."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

OURS = "dynal_fast"
BLOCK = 4096  # rows, and labeled samples, at a time in the loops over blocks


class Size(NamedTuple):
    """How much of a case is run: ``amount`` picks or epochs, and ``labeled`` samples."""

    amount: int
    labeled: int


class Streamed(NamedTuple):
    """The answer of a method that folds every pass into its state.

    ``scores``: (n,) by their names in ``cases.TRACK``; ``pass_seconds``: those of each
    pass but the first, in which the memory of the state is touched for the first time.
    """

    scores: dict[str, Any]
    pass_seconds: list[float]


# The terms that time and memory are linear in, for a size and n samples in the pool. They predict
# a job that is too large to run from smaller ones.
Terms = Callable[[Size, int], Sequence[float]]


def per_pick(size: Size, n: int) -> Sequence[float]:
    """The labeled set is covered first, then each pick costs the same."""
    return 1, size.labeled, size.amount


def per_pick_on_all(size: Size, n: int) -> Sequence[float]:
    """The same, but every pick computes distances to the labeled samples too."""
    return 1, size.labeled * (n + size.labeled), size.amount * (n + size.labeled)


def per_labeled(size: Size, n: int) -> Sequence[float]:
    """For memory that does not depend on the number of picks."""
    return 1, size.labeled


def per_block(size: Size, n: int) -> Sequence[float]:
    """For memory: a block of distances to at most ``BLOCK`` labeled samples at a time."""
    return 1, min(size.labeled, BLOCK)


def per_center_on_all(size: Size, n: int) -> Sequence[float]:
    """A labeled sample costs as much as a pick: distances to the pool and the labeled samples."""
    return 1, (size.labeled + size.amount) * (n + size.labeled)


def every_center_at_every_pick(size: Size, n: int) -> Sequence[float]:
    """Each pick computes the distances to all labeled and picked samples anew."""
    return 1, size.amount, size.amount * size.labeled + size.amount * (size.amount - 1) / 2


def per_epoch(size: Size, n: int) -> Sequence[float]:
    """Each epoch costs the same."""
    return 1, size.amount


@dataclass(frozen=True)
class Method:
    """One way to do an operation.

    ``prepare(case, data)`` brings inputs into the method's form, outside of the measurement, and
    returns ``run(size)``, which does the job and returns picks (int array), scores (dict) or
    ``Streamed`` scores.
    """

    name: str
    operation: str
    prepare: Callable[[Any, Any], Callable[[Size], Any]]
    terms: Terms
    memory_terms: Terms | None = None  # those of memory, if they differ
    requires: str = ""  # the distribution that must be installed
    refuses: Callable[[Any], str] = lambda case: ""  # why it cannot do a case
    defect: Callable[[], str] = lambda: ""  # what is wrong with its results; checked when it runs
    note: str = ""  # what the name leaves out
    exact_from: str = "picks"  # "picks", or "nothing": a yardstick that selects nothing
    random_start: bool = False
    on_gpu: bool = False

    def missing(self) -> str:
        """Why it cannot run here, or nothing."""
        if not self.requires:
            return ""
        try:
            importlib.metadata.version(self.requires)
        except importlib.metadata.PackageNotFoundError:
            return f"{self.requires} is not installed"
        return ""
