"""Schedules that took the place of others because ``num_epochs`` is None: in words."""

from collections.abc import Mapping

from dynal_fast.pool.schedule import Schedule
from dynal_fast.pool.tracked import KEEPS_LAST, part_of

Schedules = Mapping[str, Schedule]


def warning(schedules: Schedules, replaced: Schedules) -> str | None:
    """Return what to warn of: statistics over epochs whose values differ for want of an end."""
    changed = {n: s for n, s in replaced.items() if part_of(n) not in KEEPS_LAST}
    if not changed:
        return None
    used = ", ".join(f"{n} observes {s}, not {schedules[n]}" for n, s in changed.items())
    return (
        f"num_epochs is None: {used}. Pass num_epochs where it is known; otherwise choose "
        "a schedule that needs no end, such as FromEpoch(start, interval) or EveryEpoch()"
    )


def description(schedules: Schedules, replaced: Schedules) -> str:
    """Return each score's schedule, and which one it replaced, as text for `PoolStats.metadata`."""
    return "; ".join(
        f"{name}: {s}"
        if name not in replaced
        else f"{name}: {replaced[name]} instead of {s}, num_epochs being unknown"
        for name, s in sorted(schedules.items())
    )


def note(schedules: Schedules, replaced: Schedules) -> str:
    """Return which schedules were replaced, as the end of ``repr(stats)``."""
    return "".join(
        f", {name} observes {used} instead of {schedules[name]}" for name, used in replaced.items()
    )
