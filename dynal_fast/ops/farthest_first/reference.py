"""Farthest-first traversal in plain NumPy, float64: the definition that every backend must equal.

Two samples are compared by their *decision value*, one float32 number per pair:

* euclidean: the squared distance ``sum_k (x_k - y_k)^2`` of the inputs as given, in units of
  ``4^-e``, rounded once to float32 (to nearest, ties to even);
* cosine: ``1 - x.y / (|x| |y|)`` rounded once to a multiple of 2^-23 (to nearest, ties to even),
  which float32 holds exactly, so that scaled duplicates are at distance 0, not at summation noise.

Rounding once makes the value a property of the two samples and not of an order of summation: a
float64 result that is too close to the midpoint of two float32 numbers is decided in exact rational
arithmetic. Outer products (`products.py`) are compared as the points that they stand for: the exact
squared distance of the products, rounded once. The next pick is the sample with the largest minimum
decision value to the labeled and the chosen ones, the lowest index among equals.

The exponent e is that of `scale_exponent`, one for the pool and the labeled samples. A power of two
changes no digit of a float32, so e has no effect unless squared distances leave its range: it puts
the largest just below the end, so that none overflows and those of the smallest distances keep all
digits down to 2^-63 2^-e, some 1e-35 of the largest element. Below that, and only there, they are
rounded to multiples of 2^-149 4^-e, as float32 rounds near zero.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dynal_fast.ops.farthest_first.products import OuterProducts

TILE_BYTES = 16 << 20
COSINE_STEP = 2.0**-23
Points = NDArray | OuterProducts  # (n, d), or of the factors (n, C) and (n, d)
Compare = Callable[[NDArray, NDArray, Fraction], int]  # sign of (exact value - threshold)


def scale_exponent(largest: float, columns: int) -> int:
    """The largest e up to 126 for which rows have norms below 2^60 once multiplied by 2^e.

    ``largest``: the largest magnitude of an element, of rows of so many ``columns``.
    """
    root = ((columns - 1).bit_length() + 1) // 2  # 2^root is at least the square root of columns
    return min(126, 60 - root - math.frexp(largest)[1]) if largest > 0 else 0


def decision_values(x: Points, y: Points, metric: str, exponent: int = 0) -> NDArray[np.float32]:
    """Decision values (rows,) float32 between each row of ``x`` (rows, d) and ``y`` (d,)."""
    if isinstance(x, OuterProducts) and isinstance(y, OuterProducts):
        return product_values(x, y, exponent)
    assert isinstance(x, np.ndarray)
    assert isinstance(y, np.ndarray)
    x, y = x.astype(np.float64), y.astype(np.float64)
    slack = (x.shape[-1] + 8) * 2.0**-52
    if metric == "euclidean":
        value = ((x - y) ** 2).sum(axis=-1)
        square = 4.0**exponent
        low = (value * (1 - slack) * square).astype(np.float32)
        high = (value * (1 + slack) * square).astype(np.float32)
        compare: Compare = partial(compare_euclidean, unit=Fraction(4) ** -exponent)
    else:
        norms = np.sqrt((x**2).sum(axis=-1)) * np.sqrt((y**2).sum())
        value = 1 - (x * y).sum(axis=-1) / norms
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
    compare: Compare,
) -> np.float32:
    """The neighbour that is nearer to the exact value of (x, y), the even one on a tie."""
    middle = (Fraction(float(low)) + Fraction(float(high))) / 2
    side = compare(x, y, middle)
    if side == 0:
        half_step = middle - Fraction(float(low))
        return low if (Fraction(float(low)) / (2 * half_step)) % 2 == 0 else high
    return high if side > 0 else low


def compare_euclidean(x: NDArray, y: NDArray, threshold: Fraction, unit: Fraction) -> int:
    """The sign of (exact squared distance - threshold * unit)."""
    threshold *= unit
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


def product_values(x: OuterProducts, y: OuterProducts, exponent: int) -> NDArray[np.float32]:
    """Decision values between outer products: squared distances, rounded once, as of any points.

    ``|u|^2 |v|^2 + |w|^2 |z|^2 - 2 (u.w) (v.z)``, in float64 where that decides, which is not so
    for near duplicates: the sum cancels, and its error stays that of the norms.
    """
    u, v = x.left.astype(np.float64), x.right.astype(np.float64)
    w, z = y.left.astype(np.float64), y.right.astype(np.float64)
    norms = (u**2).sum(axis=-1) * (v**2).sum(axis=-1) + (w**2).sum() * (z**2).sum()
    value = norms - 2 * (u * w).sum(axis=-1) * (v * z).sum(axis=-1)
    doubt, square = norms * (x.shape[1] + 16) * 2.0**-51, 4.0**exponent
    low = (np.maximum(value - doubt, 0) * square).astype(np.float32)
    high = (np.maximum(value + doubt, 0) * square).astype(np.float32)
    for row in np.flatnonzero(low != high):
        low[row] = rounded(exact_product(u[row], v[row], w, z) * Fraction(4) ** exponent)
    return low


def exact_product(u: NDArray, v: NDArray, w: NDArray, z: NDArray) -> Fraction:
    """The exact squared distance of two outer products."""
    if (u == w).all() and (v == z).all():
        return Fraction(0)
    a, b, c, d = ([Fraction(value) for value in part.tolist()] for part in (u, v, w, z))

    def dot(left: list[Fraction], right: list[Fraction]) -> Fraction:
        return sum((p * q for p, q in zip(left, right, strict=True)), Fraction(0))

    return dot(a, a) * dot(b, b) + dot(c, c) * dot(d, d) - 2 * dot(a, c) * dot(b, d)


def rounded(value: Fraction) -> np.float32:
    """A number that is not negative, rounded once to float32: to nearest, ties to even."""
    nearest = np.float32(float(value))  # rounded twice, so that a neighbour may be nearer
    infinity = np.float32(np.inf)
    near = (np.nextafter(nearest, -infinity), nearest, np.nextafter(nearest, infinity))
    return min(near, key=lambda f: (abs(Fraction(float(f)) - value), int(f.view(np.int32)) % 2))


def tiles(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that take at most ``TILE_BYTES`` each in float64."""
    step = max(1, TILE_BYTES // (8 * max(columns, 1)))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def cover(
    minimum: NDArray[np.float32], pool: Points, centers: Points, metric: str, exponent: int = 0
) -> None:
    """Lower ``minimum`` (n,), in place, to the decision values between ``pool`` and ``centers``."""
    for center in (centers[row] for row in range(len(centers))):
        for tile in tiles(*pool.shape):
            values = decision_values(pool[tile], center, metric, exponent)
            np.minimum(minimum[tile], values, out=minimum[tile])


def farthest_first(
    pool: Points,
    k: int,
    minimum: NDArray[np.float32],
    *,
    metric: str = "euclidean",
    exponent: int = 0,
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
        cover(minimum, pool, pool[pick : pick + 1], metric, exponent)
    left = minimum.max(initial=-np.inf)
    return indices, values, np.float32(max(left, 0))


def assign(
    pool: Points, centers: Points, metric: str = "euclidean", exponent: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first of the nearest centers of each row (n,), -1 without any, and the decision value."""
    nearest = np.full(len(pool), -1, dtype=np.int64)
    minimum = np.full(len(pool), np.inf, dtype=np.float32)
    for at in range(len(centers)):
        before = minimum.copy()
        cover(minimum, pool, centers[at : at + 1], metric, exponent)
        nearest[minimum < before] = at
    return nearest, minimum
