"""The progress bar of the long operations."""

import sys
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Counts on stderr: when asked to, or by default on a terminal."""

    def __init__(self, total: int, show: bool | None, what: str, unit: str) -> None:
        shown = sys.stderr.isatty() if show is None else show
        self._bar = tqdm(total=total, unit=unit, desc=what, disable=not shown)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def reach(self, done: int) -> None:
        """Show that ``done`` units are done so far."""
        self._bar.update(done - self._bar.n)
