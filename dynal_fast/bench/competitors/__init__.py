"""What people use today, each through its public interface, and ours beside it.

A method states what it needs and what it cannot do; its library is imported when it runs.
"""

from dynal_fast.bench.cases import Case
from dynal_fast.bench.competitors import gradients, libraries, loops, ours, statistics
from dynal_fast.bench.competitors.base import Method

METHODS = [
    *ours.METHODS,
    *loops.METHODS,
    *libraries.METHODS,
    *statistics.METHODS,
    *gradients.METHODS,
]


def methods(operation: str) -> dict[str, Method]:
    """The methods for an operation by name, ours first."""
    return {method.name: method for method in METHODS if method.operation == operation}


def method_for(case: Case, name: str) -> Method:
    """The method of this name for a case."""
    known = methods(case.operation)
    if name not in known:
        raise ValueError(f"method must be one of {', '.join(known)}, got {name!r}")
    return known[name]
