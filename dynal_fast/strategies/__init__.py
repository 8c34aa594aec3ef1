"""Acquisition strategies: what a strategy is, the registry, and the built-in ones."""

from dynal_fast.strategies import builtin as builtin  # registers the built-in strategies
from dynal_fast.strategies.registry import (
    get_strategy,
    register_strategy,
    strategies,
    unregister_strategy,
)
from dynal_fast.strategies.strategy import SelectionContext, Strategy

__all__ = [
    "SelectionContext",
    "Strategy",
    "get_strategy",
    "register_strategy",
    "strategies",
    "unregister_strategy",
]
