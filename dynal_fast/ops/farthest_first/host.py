"""What torch does on the host during a traversal: the default device, and the threads."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from dynal_fast.threads import kernel_threads, threads_for_kernels

P = ParamSpec("P")
T = TypeVar("T")


def host_by_default(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with the CPU as torch's default device, whatever the caller's is.

    >>> with torch.device("meta"):
    ...     host_by_default(torch.empty)(1).device
    device(type='cpu')
    """

    @functools.wraps(function)
    def on_host(*arguments: P.args, **options: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return function(*arguments, **options)
        kernel_threads()  # must come before the first torch operation of a forked process
        if torch.get_default_device().type == "cpu":
            return function(*arguments, **options)
        with torch.device("cpu"):
            return function(*arguments, **options)

    return on_host


def kernels_on_host(function: Callable[P, T]) -> Callable[P, T]:
    """The same, for a function that spends its time in kernels: the threads are theirs."""

    @functools.wraps(function)
    def with_threads(*arguments: P.args, **options: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return function(*arguments, **options)
        with threads_for_kernels():
            return function(*arguments, **options)

    return host_by_default(with_threads)
