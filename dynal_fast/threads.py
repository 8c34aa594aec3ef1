"""How many CPU threads a user may ask for, and how many a kernel uses.

OpenMP ends the process when it cannot start the threads asked for. And once the parent of a
``fork()`` has run OpenMP threads, the child cannot: it would wait forever.
"""

import functools
import operator
import os
import warnings
from typing import Any

_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


@functools.cache
def most_threads() -> int:
    """Return the largest number of threads: four for each CPU, and at least 256.

    So many start even where a container limits threads, and more would not help. The bound of 256
    admits the thread count of a run on a larger machine.
    """
    return max(256, 4 * (os.cpu_count() or 1))


def checked_threads(threads: Any, name: str = "threads") -> int:
    """Return ``threads`` as an int.

    Raises
    ------
    TypeError, ValueError
        It is not an integer, or not from 1 to :func:`most_threads`.

    Examples
    --------
    >>> checked_threads(4)
    4
    """
    try:
        count = operator.index(threads)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {threads!r}") from None
    if not 1 <= count <= most_threads():
        raise ValueError(f"{name} must be from 1 to {most_threads()} here, got {count}")
    return count


def kernel_threads() -> int:
    """Return the number of threads of a kernel: torch's, at most :func:`most_threads`.

    The results do not depend on it. The first call in a child of ``fork()`` sets torch to one
    thread and warns, unless the child has done so itself, as the workers of a ``DataLoader`` do. A
    number set later is used.
    """
    import torch

    global _forked
    if _forked:
        _forked = False
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            warnings.warn(
                "this process was forked, where OpenMP would wait forever for the threads of its "
                "parent: torch and dynal_fast go on with one thread (torch.set_num_threads(1)). "
                "Start it with multiprocessing.get_context('spawn') to use several.",
                RuntimeWarning,
                stacklevel=3,
            )
    return min(torch.get_num_threads(), most_threads())
