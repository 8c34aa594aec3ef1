"""How many CPU threads may be asked for: OpenMP ends the process when it cannot start them."""

import operator
import os
from typing import Any


def most_threads() -> int:
    """Return the largest number of threads: four for each CPU, and at least 256.

    So many start even where a container limits them, and more than the CPUs are of no use; the
    number of another machine's record can still be asked for.
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
    """Return the threads of a kernel: torch's number, but no more than :func:`most_threads`.

    The results do not depend on it.
    """
    import torch

    return min(torch.get_num_threads(), most_threads())
