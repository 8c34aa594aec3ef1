"""The progress bar of a traversal."""

import sys
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Counts picks on stderr: when asked to, or by default on a terminal."""

    def __init__(self, total: int, show: bool | None) -> None:
        shown = sys.stderr.isatty() if show is None else show
        self._bar = tqdm(total=total, unit="pick", desc="farthest-first", disable=not shown)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def reach(self, picks: int) -> None:
        """Show that ``picks`` samples have been picked so far."""
        self._bar.update(picks - self._bar.n)
