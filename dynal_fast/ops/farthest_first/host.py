"""Make the CPU torch's default device during a traversal, whatever the caller's is."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from dynal_fast.threads import kernel_threads

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
