"""D² sampling in plain NumPy, float64: the definition that every backend must equal.

k-means++ seeding (Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007)
draws each pick with probability proportional to the squared distance to the nearest pick so far.
Here it is a race. Each sample carries one clock, exponential with mean 1. The clock runs at the
*rate* of the sample: its decision value (``ops/farthest_first/reference.py``: a squared distance,
rounded once to float32) to the nearest labeled or picked sample. The sample whose clock runs down
first is picked, which happens with probability rate / sum of rates. What is left of the other
clocks is again exponential with mean 1, whatever the past, so the race goes on with the rates that
the pick has lowered, and every pick is drawn as D² sampling draws it.

A sample *fires* at the time that is kept for it:

* the race starts at time 0, and a sample of rate w fires at clock / w;
* at time t its rate drops from w to v: it fires at t + (firing - t) * w / v instead, from left to
  right in float64;
* at rate 0 it fires at infinity.

The next pick is the sample that fires first, the lowest index among equals: so once all others are
duplicates of labeled and picked samples, they follow by index. With nothing labeled and no start,
the first pick is the sample with the shortest clock, uniform over the pool, and all clocks go back
by it.

Times are relative to rates, so powers of two do not change a pick: decision values are in units of
4^-e. Rates are float32 numbers, so times neither overflow nor underflow in float64.
"""

import numpy as np
from numpy.typing import NDArray

from dynal_fast.ops.farthest_first.reference import Points, decision_values, tiles


def clocks(seed: int, n: int, first: int = 0) -> NDArray[np.float64]:
    """Exponential numbers of mean 1, (n,), from number ``first`` on: each is a function of its
    number and the ``seed``.

    SplitMix64 (Steele, Lea and Flood, 2014) of both gives 52 bits, and so a uniform number that
    is neither 0 nor 1. Computed on the host for every backend: logarithms differ between devices.
    """
    key = mixed(np.array([seed], dtype=np.uint64))
    step = np.uint64(0x9E3779B97F4A7C15)
    bits = mixed(key + np.arange(first + 1, first + n + 1, dtype=np.uint64) * step) >> np.uint64(12)
    return -np.log((bits.astype(np.float64) + 0.5) * 2.0**-52)


def mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def start_times(clock: NDArray[np.float64], rates: NDArray[np.float32]) -> NDArray[np.float64]:
    """When samples fire, (n,) float64, whose clocks run at ``rates`` from time 0 on."""
    firing = np.full(len(rates), np.inf)
    np.divide(clock, rates.astype(np.float64), out=firing, where=rates > 0)
    return firing


def slow_down(
    firing: NDArray[np.float64],
    rates: NDArray[np.float32],
    values: NDArray[np.float32],
    time: float,
) -> None:
    """Lower ``rates`` (n,), in place, to ``values`` at ``time``, and move ``firing`` (n,) back."""
    lower = values < rates
    before, after = rates[lower].astype(np.float64), values[lower].astype(np.float64)
    left = (firing[lower] - time) * before
    firing[lower] = time + np.divide(left, after, out=np.full_like(left, np.inf), where=after > 0)
    rates[lower] = values[lower]


def kmeans_plusplus(
    pool: Points,
    k: int,
    rates: NDArray[np.float32],
    clock: NDArray[np.float64],
    *,
    metric: str = "euclidean",
    exponent: int = 0,
    start: int | None = None,
    excluded: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Picks (k,), and the decision value of each as it was picked (k,): the direct race.

    ``pool`` (n, d); ``rates`` (n,): the decision value to the nearest labeled sample, all +inf
    where there is none; ``clock`` (n,): the exponential numbers; ``start``: the first pick,
    whatever its clock; ``excluded``: rows that are never picked.
    """
    rates, clock, n = rates.copy(), clock.copy(), len(rates)
    waiting = np.ones(n, dtype=bool)
    waiting[[] if excluded is None else excluded] = False
    nothing_labeled = bool(np.isinf(rates).any())
    if nothing_labeled and start is None and k:
        start = int(np.argmin(np.where(waiting, clock, np.inf)))
        clock -= clock[start]
    firing = np.full(n, np.inf) if nothing_labeled else start_times(clock, rates)
    indices, picked = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.float32)
    time = 0.0
    for step in range(k):
        if step == 0 and start is not None:
            pick = start
        else:
            left = np.flatnonzero(waiting)
            pick = int(left[np.argmin(firing[left])])
            time = firing[pick]
        indices[step], picked[step] = pick, rates[pick]
        waiting[pick] = False
        values = np.empty(n, dtype=np.float32)
        for tile in tiles(*pool.shape):
            values[tile] = decision_values(pool[tile], pool[pick], metric, exponent)
        if step == 0 and nothing_labeled:
            rates, firing = values, start_times(clock, values)
        else:
            slow_down(firing, rates, values, time)
    return indices, picked
