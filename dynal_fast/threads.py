"""How many CPU threads a user may ask for, and how many a kernel uses.

The OpenMP that torch runs on ends the process when it cannot start the threads asked for. And once
the parent of a ``fork()`` has run OpenMP threads, the child cannot: it would wait forever.
"""

import contextlib
import ctypes
import functools
import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_forked = False
_local = threading.local()  # kernels: the threads of kernels, while torch has one


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
    kept: int | None = getattr(_local, "kernels", None)
    if kept is not None:
        return kept
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


@contextlib.contextmanager
def threads_for_kernels() -> Iterator[None]:
    """Leave the cores to the kernels: in this thread, torch's own operations run on one thread.

    OpenMP's threads wait awake for milliseconds after each operation of torch, on the cores that
    the threads of a kernel need next. Other threads of the process keep their number.

    Examples
    --------
    >>> before = kernel_threads()
    >>> with threads_for_kernels():
    ...     kernel_threads() == before
    True
    """
    threads = kernel_threads()
    if threads == 1 or getattr(_local, "kernels", None) is not None:
        yield
        return
    before = _of_torch("omp_get_max_threads")()
    before_in_mkl = _of_torch("MKL_Set_Num_Threads_Local")(1)  # 0: as many as the process has
    try:
        _local.kernels = threads
        _of_torch("omp_set_num_threads")(1)
        yield
    finally:
        _of_torch("omp_set_num_threads")(before)
        _of_torch("MKL_Set_Num_Threads_Local")(before_in_mkl)
        _local.kernels = None


@functools.cache
def _of_torch(name: str) -> Callable[..., Any]:
    """A function of the libraries that torch is linked with; one of no effect where it is not."""
    import torch

    try:
        function: Callable[..., Any] = getattr(ctypes.CDLL(torch._C.__file__), name)
    except (OSError, AttributeError):
        return lambda *arguments: 0
    return function
