"""Outer products for the tests: easy, and those whose distances cancel."""

import numpy as np

from dynal_fast import OuterProducts


def outer_products(kind: str, n: int = 60, seed: int = 1) -> OuterProducts:
    """Factors (n, 5) and (n, 17) of a kind in ``KINDS``."""
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((n, 5)).astype(np.float32)
    right = rng.standard_normal((n, 17)).astype(np.float32)
    again = rng.integers(0, max(n // 3, 1), n)
    if kind == "lattice":
        left = rng.integers(-1, 2, left.shape).astype(np.float32)
        right = rng.integers(0, 3, right.shape).astype(np.float32)
    if kind in ("duplicates", "scaled", "negated", "nearly equal"):
        left, right = left[again], right[again]
    if kind == "scaled":  # the same products of other factors
        scale = (2.0 ** rng.integers(-3, 4, (n, 1))).astype(np.float32)
        left, right = left * scale, right / scale
    if kind == "negated":
        sign = rng.choice(np.float32([-1, 1]), (n, 1))
        left, right = left * sign, right * sign
    if kind == "nearly equal":
        right = (right * (1 + 1e-7 * rng.standard_normal(right.shape))).astype(np.float32)
    if kind == "tiny":
        left, right = left * np.float32(1e-30), right * np.float32(1e-5)
    if kind == "unlike scales":
        left, right = left * np.float32(1e-36), right * np.float32(1e30)
    if kind == "float64 and float32":
        left = rng.standard_normal(left.shape)
    if kind == "float16":
        left, right = left.astype(np.float16), right.astype(np.float16)
    if kind == "zeros":
        left[::3] = 0
        right[1::3] = 0
    return OuterProducts(left, right)


KINDS = (
    "gaussian",
    "lattice",
    "duplicates",
    "scaled",
    "negated",
    "nearly equal",
    "tiny",
    "unlike scales",
    "float64 and float32",
    "float16",
    "zeros",
)
