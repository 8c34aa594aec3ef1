"""The progress bar of the long operations."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from tqdm import tqdm

_HIDDEN: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden_bars() -> Iterator[None]:
    """Hide bars in the block unless they are asked for: the caller has a bar of its own, or none.

    This includes what the block calls, such as a user's strategy.
    """
    before = _HIDDEN.set(True)
    try:
        yield
    finally:
        _HIDDEN.reset(before)


class Progress:
    """A bar on stderr: where ``show`` says so, by default on a terminal."""

    def __init__(self, total: int, show: bool | None, what: str, unit: str) -> None:
        shown = sys.stderr.isatty() and not _HIDDEN.get() if show is None else show
        self._bar = tqdm(total=total, unit=unit, desc=what) if shown else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def reach(self, done: int) -> None:
        """Show that ``done`` units are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
