"""Bands of percentages: mean and deviation of several runs, and the edges to draw."""

import numpy as np

from dynal_fast.report.analyses import Array


def mean_and_std(values: Array) -> tuple[Array, Array]:
    """Return mean and sample standard deviation over the first axis, 0 of a single one."""
    several = len(values) > 1
    return values.mean(axis=0), values.std(axis=0, ddof=1) if several else np.zeros(values.shape[1])


def band(mean: Array, deviation: Array) -> tuple[list[float], list[float]]:
    """Return the lower and the upper edge of one deviation around the mean, within 0 to 100 %."""
    return [*np.clip(mean - deviation, 0, 100)], [*np.clip(mean + deviation, 0, 100)]
