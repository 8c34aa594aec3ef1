"""BADGE: D² sampling over gradient embeddings, in libraries and as people write it."""

import importlib
import importlib.metadata
import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dynal_fast.bench.cases import GradientCase
from dynal_fast.bench.competitors.base import OURS, Method, Size, per_labeled, per_pick
from dynal_fast.bench.competitors.libraries import bare_package

Data = tuple[Tensor, Tensor]  # features (n, d), probabilities (n, C)
Run = Callable[[Size], np.ndarray]


def ours(case: GradientCase, data: Data) -> Run:
    """``dynal_fast.badge``: the gradients stay two factors."""
    from dynal_fast import badge

    def run(size: Size) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        picks = badge(*data, size.amount, generator=generator, progress=False)
        return picks.indices.cpu().numpy()

    return run


def _coefficients(probabilities: Tensor) -> Tensor:
    """The probabilities minus one for the predicted class (n, C)."""
    ahead = torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1])
    return probabilities - ahead


def gradients(data: Data) -> np.ndarray:
    """The gradient embeddings (n, C d), as the authors' code and DISTIL make them."""
    features, probabilities = data
    left = _coefficients(probabilities)
    return (left[:, :, None] * features[:, None, :]).flatten(1).numpy()


def factored_loop(case: GradientCase, data: Data) -> Run:
    """Two matrix-vector products a pick, one for each factor: the idea without bounds."""
    features, probabilities = data

    def run(size: Size) -> np.ndarray:
        left, rng = _coefficients(probabilities), np.random.default_rng(0)
        norms = left.square().sum(1) * features.square().sum(1)
        picks, squared = [int(norms.argmax())], torch.full_like(norms, torch.inf)
        while len(picks) <= size.amount:
            pick = picks[-1]
            dots = torch.mv(left, left[pick]).mul_(torch.mv(features, features[pick]))
            distance = (norms + norms[pick]).sub_(dots.mul_(2)).clamp_(min=0)
            torch.minimum(squared, distance, out=squared)
            squared[pick] = 0
            shares = squared.double().cumsum(0)
            drawn = torch.searchsorted(shares, rng.random() * float(shares[-1]))
            picks.append(min(int(drawn), len(squared) - 1))
        return np.array(picks[: size.amount])

    return run


def authors_loop(case: GradientCase, data: Data) -> Run:
    """The steps of ``init_centers`` in github.com/JordanAsh/badge, which is no package."""
    from scipy import stats
    from sklearn.metrics import pairwise_distances

    points = gradients(data)

    def run(size: Size) -> np.ndarray:
        np.random.seed(0)  # noqa: NPY002  (rv_discrete draws from the global state)
        picks = [int(np.argmax([np.linalg.norm(row) for row in points]))]
        nearest = pairwise_distances(points, points[picks]).ravel().astype(float)
        while len(picks) < size.amount:
            weights = nearest**2
            draw = stats.rv_discrete(values=(np.arange(len(points)), weights / weights.sum()))
            pick = picks[0]
            while pick in picks:
                pick = int(draw.rvs(size=1)[0])
            picks.append(pick)
            distance = pairwise_distances(points, points[pick : pick + 1]).ravel().astype(float)
            for i in range(len(points)):
                if nearest[i] > distance[i]:
                    nearest[i] = distance[i]
        return np.array(picks)

    return run


def distil_badge(case: GradientCase, data: Data) -> Run:
    """``distil.active_learning_strategies.badge.init_centers``, which ``BADGE.select`` calls.

    Imported without the rest of DISTIL, which needs packages of its own.
    """
    root = importlib.metadata.distribution("decile-distil").locate_file("distil")
    bare_package("distil", str(root))
    bare_package("distil.active_learning_strategies", f"{root}/active_learning_strategies")
    init_centers = importlib.import_module("distil.active_learning_strategies.badge").init_centers
    points = gradients(data)

    def run(size: Size) -> np.ndarray:
        np.random.seed(0)  # noqa: NPY002
        return np.array(init_centers(points, size.amount, "cpu"))

    return run


def skactiveml_badge(case: GradientCase, data: Data) -> Run:
    """``skactiveml.pool.Badge.query``, with a classifier that hands over the outputs."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    features, probabilities = (part.numpy() for part in data)

    class Outputs(SkactivemlClassifier):  # type: ignore[misc]
        def fit(self, X: np.ndarray, y: np.ndarray) -> "Outputs":
            return self

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return probabilities

    def run(size: Size) -> np.ndarray:
        classifier = Outputs(classes=np.arange(probabilities.shape[1]))
        labels = np.full(len(features), np.nan)
        strategy = Badge(random_state=0)
        picks = strategy.query(
            features, labels, clf=classifier, fit_clf=False, batch_size=size.amount
        )
        return np.asarray(picks)

    return run


def _too_large(copies: int) -> Callable[[GradientCase], str]:
    def reason(case: GradientCase) -> str:
        needed = 4 * case.n * case.classes * case.d * copies
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed <= there / 2:
            return ""
        return f"its gradients take {needed / 1e9:.3g} GB, the machine has {there / 1e9:.3g} GB"

    return reason


METHODS = [
    Method(OURS, "badge", ours, per_pick, random_start=True),
    Method(
        "two BLAS products a pick",
        "badge",
        factored_loop,
        per_pick,
        per_labeled,
        note="strong baseline: the same two factors, all distances at every pick",
        random_start=True,
    ),
    Method(
        "scikit-activeml Badge",
        "badge",
        skactiveml_badge,
        per_pick,
        requires="scikit-activeml",
        refuses=_too_large(2),
        random_start=True,
    ),
    Method(
        "authors' init_centers",
        "badge",
        authors_loop,
        per_pick,
        per_labeled,
        requires="scikit-learn",
        refuses=_too_large(1),
        note="transcribed from github.com/JordanAsh/badge; a given embedding",
        random_start=True,
    ),
    Method(
        "DISTIL BADGE",
        "badge",
        distil_badge,
        per_pick,
        per_labeled,
        requires="decile-distil",
        refuses=_too_large(2),
        note="of a given embedding",
        random_start=True,
    ),
]
