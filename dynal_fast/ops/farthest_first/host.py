"""What torch does on the host during a traversal: the default device, and the threads."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from dynal_fast.threads import threads_for_kernels

P = ParamSpec("P")
T = TypeVar("T")


def host_by_default(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with the CPU as torch's default device, and with its threads for the kernels.

    >>> with torch.device("meta"):
    ...     host_by_default(torch.empty)(1).device
    device(type='cpu')
    """

    @functools.wraps(function)
    def on_host(*arguments: P.args, **options: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return function(*arguments, **options)
        # Threads come before the first torch operation of a forked process.
        with threads_for_kernels():
            if torch.get_default_device().type == "cpu":
                return function(*arguments, **options)
            with torch.device("cpu"):
                return function(*arguments, **options)

    return on_host
