"""Farthest-first in the libraries that have it, each through its own interface."""

import importlib
import importlib.metadata
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.bench.cases import TraversalCase
from dynal_fast.bench.competitors.base import (
    Method,
    Size,
    every_center_at_every_pick,
    per_center_on_all,
    per_labeled,
    per_pick,
    per_pick_on_all,
)

Data = tuple[Tensor, Tensor | None]
Run = Callable[[Size], np.ndarray]


def _pool_then_labeled(data: Data) -> np.ndarray:
    pool, labeled = data
    return (pool if labeled is None else torch.cat([pool, labeled])).numpy()


def skactiveml_core_set(case: TraversalCase, data: Data) -> Run:
    """``skactiveml.pool.CoreSet.query`` on the whole data set, labels NaN where unlabeled."""
    from skactiveml.pool import CoreSet

    embeddings = _pool_then_labeled(data)
    n = case.n

    def run(size: Size) -> np.ndarray:
        y = np.full(n + size.labeled, np.nan)
        y[n:] = 0
        strategy = CoreSet(random_state=0)
        return strategy.query(embeddings[: n + size.labeled], y, batch_size=size.amount)

    return run


def small_text_greedy_coreset(case: TraversalCase, data: Data) -> Run:
    """``small_text``'s ``greedy_coreset``, the pool first: the only layout it is right for."""
    from small_text.query_strategies.coresets import greedy_coreset

    embeddings = _pool_then_labeled(data)
    n = case.n

    def run(size: Size) -> np.ndarray:
        labeled = np.arange(n, n + size.labeled)
        return greedy_coreset(
            embeddings, np.arange(n), labeled, size.amount, distance_metric="euclidean"
        )

    return run


def small_text_defect() -> str:
    """Its picks are positions in ``indices_unlabeled`` that it then uses as data set indices."""
    from small_text.query_strategies.coresets import greedy_coreset

    points = np.arange(30, dtype=np.float64)[:, None] ** 1.5
    unlabeled, labeled = np.arange(29, 0, -1), np.array([0])
    picks = greedy_coreset(points, unlabeled, labeled, 3, distance_metric="euclidean")
    return (
        ""
        if _greedy(points, labeled, 3) in (list(picks), list(unlabeled[picks]))
        else ("wrong unless the pool comes first, as here: it takes pool positions for indices")
    )


def _skmatter(name: str, case: TraversalCase, data: Data) -> Run:
    selectors = importlib.import_module("skmatter.sample_selection")
    embeddings = _pool_then_labeled(data)
    n = case.n

    def run(size: Size) -> np.ndarray:
        starts: Any = list(range(n, n + size.labeled)) if size.labeled else 0
        selector = getattr(selectors, name)(
            n_to_select=size.amount + size.labeled, initialize=starts
        )
        selector.fit(embeddings[: n + size.labeled])
        return np.asarray(selector.selected_idx_)[size.labeled :]

    return run


def skmatter_fps(case: TraversalCase, data: Data) -> Run:
    """``skmatter.sample_selection.FPS``, started from all labeled samples."""
    return _skmatter("FPS", case, data)


def skmatter_voronoi(case: TraversalCase, data: Data) -> Run:
    """``skmatter.sample_selection.VoronoiFPS``: the triangle inequality skips distances."""
    return _skmatter("VoronoiFPS", case, data)


def _takes_one_start(case: TraversalCase) -> str:
    return "takes one start, no labeled set" if case.labeled else ""


def anomalib_sampler() -> Any:
    """``anomalib.models.components.KCenterGreedy``, imported without the rest of anomalib.

    The package imports Lightning, torchvision and every model first; the class needs none of it.
    """
    name = "anomalib.models.components.sampling.k_center_greedy"
    if name in sys.modules:
        return sys.modules[name].KCenterGreedy
    root = importlib.metadata.distribution("anomalib").locate_file("anomalib")
    for package in ("", ".models", ".models.components", ".models.components.sampling"):
        bare_package(f"anomalib{package}", f"{root}{package.replace('.', '/')}")
    reduction = "anomalib.models.components.dimensionality_reduction"
    parent = bare_package(reduction, f"{root}/models/components/dimensionality_reduction")
    projection = importlib.import_module(f"{reduction}.random_projection")
    parent.SparseRandomProjection = projection.SparseRandomProjection  # type: ignore[attr-defined]
    return importlib.import_module(name).KCenterGreedy


def bare_package(name: str, folder: str) -> types.ModuleType:
    """Register a package without running its ``__init__.py``, to import single modules of it."""
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
    return package


def _anomalib(data: Data, trailing: tuple[int, ...]) -> Run:
    sampler = anomalib_sampler()
    pool = data[0].reshape(*data[0].shape, *trailing)

    def run(size: Size) -> np.ndarray:
        torch.manual_seed(0)
        ratio = (size.amount + 0.5) / len(pool)
        return np.asarray(sampler(pool, ratio).select_coreset_idxs())

    return run


def anomalib_projected(case: TraversalCase, data: Data) -> Run:
    """``KCenterGreedy`` as PatchCore uses it: a sparse random projection first."""
    return _anomalib(data, ())


def anomalib_plain(case: TraversalCase, data: Data) -> Run:
    """``KCenterGreedy`` without projection: it projects only embeddings that are 2-D."""
    return _anomalib(data, (1,))


def fpsample_vanilla(case: TraversalCase, data: Data) -> Run:
    """``fpsample.fps_sampling``, started from all labeled samples."""
    import fpsample

    embeddings = _pool_then_labeled(data)
    n = case.n

    def run(size: Size) -> np.ndarray:
        starts: Any = list(range(n, n + size.labeled)) if size.labeled else 0
        picks = fpsample.fps_sampling(
            embeddings[: n + size.labeled], size.amount + size.labeled, starts
        )
        return np.asarray(picks, dtype=np.int64)[size.labeled :]

    return run


def fpsample_bucket(case: TraversalCase, data: Data) -> Run:
    """``fpsample.bucket_fps_kdtree_sampling``, made for point clouds of few dimensions."""
    import fpsample

    embeddings = data[0].numpy()

    def run(size: Size) -> np.ndarray:
        picks = fpsample.bucket_fps_kdtree_sampling(embeddings, size.amount, start_idx=0)
        return np.asarray(picks, dtype=np.int64)

    return run


def fpsample_bucket_defect() -> str:
    """Whether the start asked for is the first pick."""
    import fpsample

    points = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    first = [
        int(fpsample.bucket_fps_kdtree_sampling(points, 4, start_idx=start)[0])
        for start in (7, 8, 9)
    ]
    return "" if first == [7, 8, 9] else "ignores the start it is given"


def _gudhi(data: Data, fast: bool) -> Run:
    from gudhi.subsampling import choose_n_farthest_points

    pool = data[0].numpy().astype(np.float64)
    rows = {row.tobytes(): i for i, row in reversed(list(enumerate(pool)))}

    def run(size: Size) -> np.ndarray:
        chosen = choose_n_farthest_points(
            points=pool, nb_points=size.amount, starting_point=0, fast=fast
        )
        return np.array([rows[np.asarray(point).tobytes()] for point in chosen], dtype=np.int64)

    return run


def gudhi_farthest(case: TraversalCase, data: Data) -> Run:
    """``gudhi.subsampling.choose_n_farthest_points``; its points are looked up in the pool."""
    return _gudhi(data, fast=True)


def gudhi_plain(case: TraversalCase, data: Data) -> Run:
    """The same with ``fast=False``: its plain algorithm, whatever the dimension."""
    return _gudhi(data, fast=False)


def _greedy(points: np.ndarray, labeled: np.ndarray, k: int) -> list[int]:
    """Farthest-first of a handful of points, for the checks of defects."""
    minimum = np.linalg.norm(points[:, None] - points[None, labeled], axis=2).min(1)
    picks: list[int] = []
    for _ in range(k):
        picks.append(int(minimum.argmax()))
        minimum = np.minimum(minimum, np.linalg.norm(points - points[picks[-1]], axis=1))
    return picks


METHODS = [
    Method(
        "scikit-activeml CoreSet",
        "farthest-first",
        skactiveml_core_set,
        per_pick_on_all,
        requires="scikit-activeml",
        random_start=True,
        note="breaks ties at random, keeps a float64 array of picks × samples",
    ),
    Method(
        "small-text greedy_coreset",
        "farthest-first",
        small_text_greedy_coreset,
        every_center_at_every_pick,
        per_labeled,
        requires="small-text",
        refuses=lambda case: "" if case.labeled else "needs a labeled sample",
        defect=small_text_defect,
    ),
    Method(
        "scikit-matter FPS",
        "farthest-first",
        skmatter_fps,
        per_center_on_all,
        requires="skmatter",
    ),
    Method(
        "scikit-matter VoronoiFPS",
        "farthest-first",
        skmatter_voronoi,
        per_center_on_all,
        requires="skmatter",
        refuses=_takes_one_start,
    ),
    Method(
        "anomalib KCenterGreedy",
        "farthest-first",
        anomalib_projected,
        per_pick,
        per_labeled,
        requires="anomalib",
        refuses=_takes_one_start,
        random_start=True,
        on_gpu=True,
        note="a random projection first: not the distances asked for",
    ),
    Method(
        "anomalib KCenterGreedy, no projection",
        "farthest-first",
        anomalib_plain,
        per_pick,
        per_labeled,
        requires="anomalib",
        refuses=_takes_one_start,
        random_start=True,
        on_gpu=True,
    ),
    Method(
        "fpsample fps_sampling",
        "farthest-first",
        fpsample_vanilla,
        per_center_on_all,
        requires="fpsample",
    ),
    Method(
        "fpsample bucket_fps_kdtree",
        "farthest-first",
        fpsample_bucket,
        per_pick,
        per_labeled,
        requires="fpsample",
        refuses=_takes_one_start,
        defect=fpsample_bucket_defect,
        random_start=True,
    ),
    Method(
        "GUDHI choose_n_farthest_points",
        "farthest-first",
        gudhi_farthest,
        per_pick,
        per_labeled,
        requires="gudhi",
        refuses=_takes_one_start,
    ),
    Method(
        "GUDHI choose_n_farthest_points, fast=False",
        "farthest-first",
        gudhi_plain,
        per_pick,
        per_labeled,
        requires="gudhi",
        refuses=_takes_one_start,
    ),
]
