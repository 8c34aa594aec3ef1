"""Signs of life of the ranks of a process group, and who ended a session.

Each rank counts up a number in the group's store once in a while, from a thread, also while it
computes. A rank whose number stays the same for longer than the patience is lost: dead, stopped, or
cut off. Who finds that, or fails itself, writes a verdict into the store, where all others see it.

A group may be used again after that if its ranks are in step: each has begun as many calls. Else a
call of one would meet another one of the next, so that the next session is refused on all ranks.
"""

import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from torch.distributed import distributed_c10d

from dynal_fast.collective.contract import RankError

PATIENCE = 30.0  # seconds
BEAT = 1.0  # seconds between signs of life, at most
SETTLING = 3.0  # beats without which a rank is named once a call has failed
NEIGHBOURS = 8  # ranks that each rank watches; of any row of lost ranks the first one is seen

T = TypeVar("T")

_names: dict[str, int] = {}


class History:
    """What this process did with one process group."""

    def __init__(self, group: Any) -> None:
        name = str(getattr(group, "group_name", "group"))
        number = _names[name] = _names.get(name, 0) + 1  # the same on every rank
        self.name = f"{name}/{number}"
        self.sessions = 0
        self.calls = 0  # two for each: when it begins, and when all of it is under way
        self.trouble = ""  # what ended a session, until the ranks are known to be in step
        self.refused = ""  # why there is no further session


_histories: "weakref.WeakKeyDictionary[Any, History]" = weakref.WeakKeyDictionary()


def history_of(group: Any) -> History:
    """Return the one history of a process group."""
    if group not in _histories:
        _histories[group] = History(group)
    return _histories[group]


class Watch:
    """This rank's signs of life, and what it sees of the others', during one session."""

    def __init__(self, history: History, rank: int, size: int, patience: float) -> None:
        self.history, self.rank, self.size, self.patience = history, rank, size, patience
        self.beat = min(BEAT, patience / 5)
        history.sessions += 1
        self.calls = history.calls
        prefix = f"dynal_fast/{history.name}/{history.sessions}"
        self.store = distributed_c10d.PrefixStore(prefix, distributed_c10d._get_default_store())
        self.over, self.looking = threading.Event(), threading.Lock()
        watched = {(rank + step) % size for step in range(1, NEIGHBOURS + 1)} - {rank}
        self.seen = {other: (0, time.monotonic()) for other in sorted(watched)}
        self.trouble = ""  # what the store answered last, if it did not
        self.verdict = ""
        self.reached = time.monotonic()  # when the store last answered
        self.thread = threading.Thread(target=self._live, daemon=True, name="signs of life")

    def __enter__(self) -> "Watch":
        self.thread.start()
        try:
            if self.history.trouble:
                self._check_in_step()
        except BaseException:
            self.over.set()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self.thread.join(self.beat)  # a call to the store aborts a process that is about to end
        if error is not None and not getattr(error, "on_all_ranks", False):
            if not isinstance(error, RankError):
                interrupted = isinstance(error, KeyboardInterrupt)
                what = "was interrupted" if interrupted else f"failed: {_one_line(error)}"
                self._tell(f"rank {self.rank} {what}")
            self.history.trouble = self.verdict or str(error)
        elif self.verdict:  # that came too late for this session
            self.history.trouble = self.verdict

    def _check_in_step(self) -> None:
        """Raise `RankError` on all ranks unless each has begun as many calls as this one."""
        history, deadline = self.history, time.monotonic() + self.patience
        for rank in range(self.size):
            if not history.refused:
                calls = self._calls_of(rank, deadline)
                if calls == self.calls:
                    continue
                why = "its ranks are out of step"
                if calls is None:  # dead or late: it gives no sign of life between two sessions
                    why = f"rank {rank} did not come to this call within {self.patience:.0f} s"
                history.refused = (
                    f"the process group cannot be used any more, as {why} since "
                    f"{history.trouble}; make a new one"
                )
            self._tell(history.refused)
            self.look()
        history.trouble = ""

    def _calls_of(self, rank: int, deadline: float) -> int | None:
        """How many calls a rank had begun before this session; None if it does not come."""
        while not self._answer(lambda: self.store.check([f"calls {rank}"])):
            if time.monotonic() > deadline:
                return None
            time.sleep(self.beat / 20)
            self.look()
        return int(self._answer(lambda: self.store.get(f"calls {rank}")))

    def _answer(self, ask: Callable[[], T]) -> T:
        """What the store answers; `RankError` where it does not."""
        try:
            return ask()
        except Exception as error:
            raise RankError(self._unreachable(f"({_one_line(error)})")) from error

    def look(self) -> None:
        """Raise `RankError` if a rank is lost, or has ended the session."""
        if self.verdict:
            raise RankError(self.verdict)
        silent = time.monotonic() - self.reached
        if silent > self.patience:
            raise RankError(self._unreachable(f"for {silent:.0f} s"))

    def _unreachable(self, more: str) -> str:
        return (
            f"rank {self.rank} cannot reach the store of the process group, which is where rank 0 "
            f"or torchrun runs, {more}: that host or the network is down"
        )

    def explain(self, error: Exception) -> None:
        """Raise `RankError` that says which rank made a call fail, once that is known."""
        deadline = time.monotonic() + min(self.patience, 2 * SETTLING * self.beat) + self.beat
        while time.monotonic() < deadline and not self.verdict:
            time.sleep(self.beat / 5)
            if lost := self._lost(SETTLING * self.beat, strangers=True):
                self._tell(lost)
        self.look()
        if self.trouble:
            raise RankError(self._unreachable(f"({self.trouble})")) from error
        raise RankError(
            f"rank {self.rank} lost its connection to another rank, which gives signs of life "
            f"still: {_one_line(error)}"
        ) from error

    def _live(self) -> None:
        while not self.over.is_set():
            try:
                self._see()
                self.reached, self.trouble = time.monotonic(), ""
            except Exception as error:  # `look` says so after a while
                self.trouble = _one_line(error)
            if not self.verdict and (lost := self._lost(self.patience)):
                self._tell(lost)
            self.over.wait(self.beat)

    def _see(self) -> None:
        if self.store.add(f"beat {self.rank}", 1) == 1:
            self.store.set(f"calls {self.rank}", str(self.calls))
        if self.store.add("ended", 0):
            self.verdict = self.store.get("verdict").decode()
            return
        now = time.monotonic()
        for rank, (before, _) in self.seen.items():
            count = self.store.add(f"beat {rank}", 0)
            if count != before:
                self.seen[rank] = (count, now)

    def _lost(self, patience: float, strangers: bool = False) -> str:
        """Which ranks gave no sign of life for so long; ``strangers`` never gave one."""
        now = time.monotonic()
        gone = [
            (rank, now - when)
            for rank, (count, when) in self.seen.items()
            if (count or strangers) and now - when > patience
        ]
        if not gone or now - self.reached > 2 * self.beat:  # it may be this rank that is cut off
            return ""
        names = ", ".join(str(rank) for rank, _ in gone)
        ranks = f"rank {names}" if len(gone) == 1 else f"ranks {names}"
        return f"{ranks} gave no sign of life for {max(time for _, time in gone):.1f} s"

    def _tell(self, verdict: str) -> None:
        """End the session on all ranks; the first verdict counts."""
        try:
            if self.store.add("judges", 1) == 1:
                self.store.set("verdict", verdict)
                self.store.add("ended", 1)
            else:
                for _ in range(10):
                    if self.store.add("ended", 0):
                        verdict = self.store.get("verdict").decode()
                        break
                    time.sleep(self.beat / 10)
        except Exception as error:  # this rank's own view must do
            self.trouble = _one_line(error)
        self.verdict = verdict


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[0][:300]}"
