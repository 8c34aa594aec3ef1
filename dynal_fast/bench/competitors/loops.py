"""Farthest-first as people write it: loops over BLAS, torch.cdist and scikit-learn."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dynal_fast.bench.cases import TraversalCase
from dynal_fast.bench.competitors.base import (
    BLOCK,
    Method,
    Size,
    per_block,
    per_labeled,
    per_pick,
)

Data = tuple[Tensor, Tensor | None]
Run = Callable[[Size], np.ndarray]


def squared_norms(rows: Tensor) -> Tensor:
    """``(rows ** 2).sum(1)`` without a temporary of that size: exact where the squares are."""
    return torch.cat([block.square().sum(1) for block in rows.split(BLOCK)])


def nearest_labeled(pool: Tensor, labeled: Tensor, norms: Tensor) -> Tensor:
    """Squared distances (n,) to the nearest labeled sample, by blocks of matrix products.

    ``norms`` (n,): the squared norms of ``pool``.
    """
    labeled_norms = squared_norms(labeled)
    products = torch.empty(BLOCK, min(BLOCK, len(labeled)), dtype=pool.dtype, device=pool.device)
    minimum = torch.full_like(norms, torch.inf)
    for rows, least in zip(pool.split(BLOCK), minimum.split(BLOCK), strict=True):
        for centers, offsets in zip(labeled.split(BLOCK), labeled_norms.split(BLOCK), strict=True):
            out = products[: len(rows), : len(centers)]
            torch.addmm(offsets, rows, centers.T, alpha=-2, out=out)
            torch.minimum(least, out.amin(1), out=least)
    return minimum.add_(norms)


def blas_loop(case: TraversalCase, data: Data) -> Run:
    """Precomputed norms, blocked products for the labeled set, a matrix-vector product per pick.

    The strong baseline: each pick costs one BLAS call and a few in-place passes over n numbers.
    There is no n × labeled matrix and no transfer to the host inside the loop.
    """
    pool, labeled = data

    def run(size: Size) -> np.ndarray:
        norms = squared_norms(pool)
        if labeled is not None and size.labeled:
            minimum = nearest_labeled(pool, labeled[: size.labeled], norms)
        else:
            minimum = torch.full_like(norms, torch.inf)
        picks = torch.empty(size.amount, dtype=torch.int64, device=pool.device)
        squared = torch.empty_like(norms)
        for step in range(size.amount):
            pick = minimum.argmax()
            picks[step] = pick
            torch.mv(pool, pool[pick], out=squared)
            squared.mul_(-2).add_(norms).add_(norms[pick])
            torch.minimum(minimum, squared, out=minimum)
            minimum[pick] = -torch.inf
        return picks.cpu().numpy()

    return run


def cdist_loop(case: TraversalCase, data: Data) -> Run:
    """``torch.cdist`` in blocks for the labeled set, then ``torch.cdist`` to each pick."""
    pool, labeled = data

    def run(size: Size) -> np.ndarray:
        minimum = torch.full((len(pool),), torch.inf, device=pool.device)
        if labeled is not None and size.labeled:
            for rows in range(0, len(pool), BLOCK):
                distances = torch.cdist(pool[rows : rows + BLOCK], labeled[: size.labeled])
                minimum[rows : rows + BLOCK] = distances.min(1).values
        picks = torch.empty(size.amount, dtype=torch.int64, device=pool.device)
        for step in range(size.amount):
            pick = minimum.argmax()
            picks[step] = pick
            distances = torch.cdist(pool, pool[pick][None])[:, 0]
            minimum = torch.minimum(minimum, distances)
            minimum[pick] = -torch.inf
        return picks.cpu().numpy()

    return run


def sklearn_loop(case: TraversalCase, data: Data) -> Run:
    """``sklearn.metrics.pairwise_distances`` to the labeled set and to each pick."""
    from sklearn.metrics import pairwise_distances

    pool = data[0].numpy()
    labeled = None if data[1] is None else data[1].numpy()

    def run(size: Size) -> np.ndarray:
        minimum = np.full(len(pool), np.inf, dtype=np.float32)
        if labeled is not None and size.labeled:
            for rows in range(0, len(pool), BLOCK):
                block = pairwise_distances(pool[rows : rows + BLOCK], labeled[: size.labeled])
                minimum[rows : rows + BLOCK] = block.min(1)
        picks = np.empty(size.amount, dtype=np.int64)
        for step in range(size.amount):
            pick = int(minimum.argmax())
            picks[step] = pick
            distances = pairwise_distances(pool, pool[pick : pick + 1])[:, 0]
            np.minimum(minimum, distances, out=minimum)
            minimum[pick] = -np.inf
        return picks

    return run


def one_product(case: TraversalCase, data: Data) -> Run:
    """One ``torch.mm`` of pool × labeledᵀ in blocks, the result thrown away: a yardstick."""
    pool, labeled = data

    def run(size: Size) -> np.ndarray:
        assert labeled is not None
        block = torch.empty(BLOCK, size.labeled, dtype=pool.dtype, device=pool.device)
        centers = labeled[: size.labeled].T
        for rows in range(0, len(pool), BLOCK):
            part = pool[rows : rows + BLOCK]
            torch.mm(part, centers, out=block[: len(part)])
        return np.empty(0, dtype=np.int64)

    return run


def _needs_labeled(case: TraversalCase) -> str:
    return "" if case.labeled else "nothing is labeled"


METHODS = [
    Method(
        "one torch.mm (yardstick)",
        "farthest-first",
        one_product,
        per_pick,
        per_labeled,
        refuses=_needs_labeled,
        note="pool × labeledᵀ in blocks, nothing selected",
        exact_from="nothing",
        on_gpu=True,
    ),
    Method(
        "BLAS loop",
        "farthest-first",
        blas_loop,
        per_pick,
        per_block,
        note="strong baseline: blocked torch.addmm, then a matrix-vector product per pick",
        on_gpu=True,
    ),
    Method(
        "torch.cdist loop",
        "farthest-first",
        cdist_loop,
        per_pick,
        per_labeled,
        note="torch.cdist as it comes: a matrix product, even for one pick",
        on_gpu=True,
    ),
    Method(
        "scikit-learn pairwise_distances loop",
        "farthest-first",
        sklearn_loop,
        per_pick,
        per_labeled,
        requires="scikit-learn",
    ),
]
