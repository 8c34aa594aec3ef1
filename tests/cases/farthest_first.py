"""Pools for the farthest-first tests and benchmarks: easy, hostile and degenerate."""

import math

import numpy as np
from numpy.typing import NDArray

from dynal_fast.ops.farthest_first import reference

Case = tuple[NDArray[np.float32], NDArray[np.float32] | None]  # pool (n, d), labeled (m, d)


def gaussian(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    """Independent standard Gaussians (n, d): nothing can be pruned."""
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def clustered(n: int, d: int, seed: int = 0, *, components: int = 100) -> NDArray[np.float32]:
    """A mixture of Gaussians behind a ReLU layer (n, d), as the features of a trained network."""
    centers, weight = 2 * gaussian(components, 64, seed=1), gaussian(64, d, seed=2) / 8
    rng = np.random.default_rng(seed)
    latent = centers[rng.integers(components, size=n)]
    latent += rng.standard_normal((n, 64), dtype=np.float32)
    return np.maximum(latent @ weight, 0)


def bootstrap(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    """A clustered pool drawn from with replacement (n, d): many exact duplicates."""
    originals = clustered(max(n // 3, 1), d, seed)
    return originals[np.random.default_rng(seed).integers(len(originals), size=n)]


def lattice(n: int, d: int, seed: int = 0, *, levels: int = 3) -> NDArray[np.float32]:
    """Points of a small integer lattice (n, d): almost every distance ties with many others."""
    return np.random.default_rng(seed).integers(levels, size=(n, d)).astype(np.float32)


def exponent_of(pool: NDArray, labeled: NDArray | None = None) -> int:
    """The exponent of the definition for these rows (n, d) and (m, d)."""
    rows = [part for part in (pool, labeled) if part is not None and len(part)]
    largest = max((float(np.abs(part.astype(np.float64)).max()) for part in rows), default=0.0)
    return reference.scale_exponent(largest, pool.shape[1])


def expected(
    pool: NDArray,
    k: int,
    labeled: NDArray | None = None,
    metric: str = "euclidean",
    start: int | None = None,
    excluded: NDArray | None = None,
) -> tuple[NDArray, NDArray, float]:
    """Indices, distances and radius by the definition; ``excluded`` are labeled pool indices."""
    exponent = exponent_of(pool, labeled)
    minimum = np.full(len(pool), np.inf, dtype=np.float32)
    if labeled is not None:
        reference.cover(minimum, pool, labeled, metric, exponent)
    if excluded is not None:
        reference.cover(minimum, pool, pool[excluded], metric, exponent)
    indices, values, left = reference.farthest_first(
        pool, k, minimum, metric=metric, exponent=exponent, start=start, excluded=excluded
    )
    if metric == "cosine":
        return indices, values, float(left)
    root = np.sqrt(values.astype(np.float64)) * 2.0**-exponent
    return indices, root.astype(np.float32), math.sqrt(left) * 2.0**-exponent


def small_cases() -> dict[str, Case]:
    """Every kind of pool at a size that the reference traverses in a moment."""
    rng = np.random.default_rng(7)
    outliers = clustered(200, 24)
    outliers[[3, 77]] *= 50
    repeated = gaussian(40, 9)
    return {
        "clustered": (clustered(301, 65), clustered(64, 65, seed=1)),
        "gaussian": (gaussian(257, 63), gaussian(33, 63, seed=1)),
        "no labeled": (clustered(255, 32), None),
        "gaussian, no labeled": (gaussian(200, 17), None),
        "outliers": (outliers, clustered(50, 24, seed=2)),
        "lattice": (lattice(300, 4), lattice(5, 4, seed=1)),
        "lattice, no labeled": (lattice(257, 6, levels=2), None),
        "bootstrap": (bootstrap(260, 20), bootstrap(30, 20, seed=3)),
        "offset 1e3": (gaussian(150, 31) + 1e3, gaussian(20, 31, seed=1) + 1e3),
        "offset 1e3, tiny spread": (
            (1e3 + 1e-3 * rng.standard_normal((150, 8))).astype(np.float32),
            None,
        ),
        "all equal": (np.full((130, 5), 0.1, dtype=np.float32), None),
        "all equal, labeled": (np.full((65, 5), 0.1, np.float32), np.ones((3, 5), np.float32)),
        "every distance ties": (np.eye(96, dtype=np.float32), None),
        "labeled are pool rows": (gaussian(120, 12), gaussian(120, 12)[::3].copy()),
        "repeated": (np.concatenate([repeated, repeated, repeated]), repeated[:5]),
        "one dimension": (gaussian(200, 1), gaussian(3, 1, seed=1)),
        "one dimension, grid": (np.arange(129, dtype=np.float32)[:, None], None),
        "one sample": (gaussian(1, 7), None),
        "one sample, labeled": (gaussian(1, 7), gaussian(1, 7, seed=1)),
        "empty labeled": (gaussian(50, 6), np.empty((0, 6), np.float32)),
        "wide": (clustered(65, 2048), clustered(63, 2048, seed=1)),
        "subnormal": ((1e-41 * gaussian(60, 5)).astype(np.float32), None),
        "tiny": ((1e-22 * gaussian(60, 5)).astype(np.float32), None),
        "large": ((1e18 * gaussian(60, 5)).astype(np.float32), None),
        "mixed scales": (
            gaussian(90, 11) * np.logspace(-6, 6, 90, dtype=np.float32)[:, None],
            None,
        ),
    }
