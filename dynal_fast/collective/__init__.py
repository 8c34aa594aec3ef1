"""Ranks that work together.

``contract.py`` says what they tell each other, ``process_group.py`` does it over torch.distributed,
``in_memory.py`` for simulated ranks; ``packing.py`` makes bytes of what they send, and
``shards.py`` finds samples that are cut into a shard for each rank.
"""

from typing import Any

from dynal_fast.collective.contract import (
    Alone,
    Collective,
    RankError,
    agreed,
    check_alike,
    on_all_ranks,
)

__all__ = [
    "Alone",
    "Collective",
    "RankError",
    "agreed",
    "as_collective",
    "check_alike",
    "on_all_ranks",
]


def as_collective(group: Any) -> Collective:
    """Return what ``group`` is: a process group of torch.distributed, or a collective already."""
    if hasattr(group, "everyones"):
        return group
    from dynal_fast.collective.process_group import OfProcessGroup

    return OfProcessGroup(group)
