"""Farthest-first traversal in plain NumPy, float64: the definition that every backend must equal.

Two samples are compared by their *decision value*, one float32 number per pair:

* euclidean: the squared distance ``sum_k (x_k - y_k)^2`` of the inputs as given, rounded once to
  float32 (to nearest, ties to even);
* cosine: ``1 - x.y / (|x| |y|)`` rounded once to a multiple of 2^-23 (to nearest, ties to even),
  which float32 holds exactly, so that scaled duplicates are at distance 0, not at summation noise.

Rounding once makes the value a property of the two samples and not of an order of summation: a
float64 result that lies too close to the midpoint of two neighbours to tell is decided in exact
rational arithmetic. The next pick is the sample with the largest minimum decision value to the
labeled and the chosen ones, the lowest index among equals.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

TILE_BYTES = 16 << 20
COSINE_STEP = 2.0**-23


def decision_values(x: NDArray, y: NDArray, metric: str) -> NDArray[np.float32]:
    """Decision values (rows,) float32 between each row of ``x`` (rows, d) and ``y`` (d,)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    slack = (x.shape[-1] + 8) * 2.0**-52
    if metric == "euclidean":
        value = ((x - y) ** 2).sum(axis=-1)
        low = (value * (1 - slack)).astype(np.float32)
        high = (value * (1 + slack)).astype(np.float32)
        compare = compare_euclidean
    else:
        value = 1 - (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum())
        low = round_cosine(value - slack)
        high = round_cosine(value + slack)
        compare = compare_cosine
    for row in np.flatnonzero(low != high):
        low[row] = nearer(low[row], high[row], x[row], y, compare)
    return low


def round_cosine(value: NDArray[np.float64]) -> NDArray[np.float32]:
    """``value`` rounded to a multiple of 2^-23 within [0, 2]."""
    return (np.rint(np.clip(value, 0, 2) / COSINE_STEP) * COSINE_STEP).astype(np.float32)


def nearer(
    low: np.float32,
    high: np.float32,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    compare: Callable[[NDArray, NDArray, Fraction], int],
) -> np.float32:
    """Whichever of two neighbours is nearer to the exact value of (x, y), the even one on a tie."""
    middle = (Fraction(float(low)) + Fraction(float(high))) / 2
    side = compare(x, y, middle)
    if side == 0:
        half_step = middle - Fraction(float(low))
        return low if (Fraction(float(low)) / (2 * half_step)) % 2 == 0 else high
    return high if side > 0 else low


def compare_euclidean(x: NDArray, y: NDArray, threshold: Fraction) -> int:
    """The sign of (exact squared distance - threshold)."""
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    exact = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs)
    return (exact > threshold) - (exact < threshold)


def compare_cosine(x: NDArray, y: NDArray, threshold: Fraction) -> int:
    """The sign of (exact cosine distance - threshold), without a square root."""
    a, b = [Fraction(v) for v in x.tolist()], [Fraction(v) for v in y.tolist()]
    zero = Fraction(0)
    dot = sum((p * q for p, q in zip(a, b, strict=True)), zero)
    norms = sum((p * p for p in a), zero) * sum((q * q for q in b), zero)
    similarity, limit = dot * abs(dot), (1 - threshold) * abs(1 - threshold) * norms
    return (similarity < limit) - (similarity > limit)


def tiles(rows: int, columns: int) -> Iterator[slice]:
    """Slices of so many rows that a float64 tile stays within ``TILE_BYTES``."""
    step = max(1, TILE_BYTES // (8 * max(columns, 1)))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def cover(minimum: NDArray[np.float32], pool: NDArray, centers: NDArray, metric: str) -> None:
    """Lower ``minimum`` (n,), in place, to the decision values between ``pool`` and ``centers``."""
    for center in centers:
        for tile in tiles(*pool.shape):
            values = decision_values(pool[tile], center, metric)
            np.minimum(minimum[tile], values, out=minimum[tile])


def farthest_first(
    pool: NDArray,
    k: int,
    minimum: NDArray[np.float32],
    *,
    metric: str = "euclidean",
    start: int | None = None,
    excluded: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], np.float32]:
    """Picks (k,), the decision value of each as it was picked (k,), and the largest value left.

    ``pool`` (n, d); ``minimum`` (n,): the decision value to the nearest labeled sample, +inf where
    there is none; ``start``: the first pick, whatever its value; ``excluded``: rows never picked.
    """
    minimum = minimum.copy()
    if excluded is not None:
        minimum[excluded] = -np.inf
    indices, values = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.float32)
    for step in range(k):
        pick = start if step == 0 and start is not None else int(np.argmax(minimum))
        indices[step], values[step] = pick, minimum[pick]
        minimum[pick] = -np.inf
        cover(minimum, pool, pool[pick : pick + 1], metric)
    left = minimum.max(initial=-np.inf)
    return indices, values, np.float32(max(left, 0))
