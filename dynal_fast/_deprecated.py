"""Arguments that may still be given under an earlier name."""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take the argument ``new`` under the name ``old``, too, with a warning.

    Raises
    ------
    TypeError
        A call gives both.

    >>> @renamed_argument("b", "k")
    ... def first(k: int) -> range:
    ...     return range(k)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     first(b=3)
    range(0, 3)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got both {new} and its old name {old}")
                warnings.warn(
                    f"the argument {old} of {function.__name__}() is called {new} now",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renamed

    return decorate
