"""Percentages over several runs: mean and deviation, as text and as edges to draw."""

import numpy as np

from dynal_fast.report.analyses import Array


def mean_and_std(values: Array) -> tuple[Array, Array]:
    """Return mean and sample standard deviation over the first axis, 0 of a single one."""
    several = len(values) > 1
    return values.mean(axis=0), values.std(axis=0, ddof=1) if several else np.zeros(values.shape[1])


def band(mean: Array, deviation: Array) -> tuple[list[float], list[float]]:
    """Return the lower and the upper edge of one deviation around the mean, within 0 to 100 %."""
    return [*np.clip(mean - deviation, 0, 100)], [*np.clip(mean + deviation, 0, 100)]


def percent(mean: float, deviation: float, several: bool = True) -> str:
    """Return a percentage, with its deviation where there are several seeds.

    >>> percent(50.0, 1.23), percent(50.0, 0.0, several=False)
    ('50.0 ± 1.2', '50.0')
    """
    return f"{mean:.1f} ± {deviation:.1f}" if several else f"{mean:.1f}"
