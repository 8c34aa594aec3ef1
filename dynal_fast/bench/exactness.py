"""Whether a method's answer is the exact one, and how far off it is."""

from typing import Any

import numpy as np
import scipy.special
import torch
from torch import Tensor

from dynal_fast.bench.cases import StatisticsCase
from dynal_fast.bench.competitors.base import Size
from dynal_fast.ops.farthest_first import Traversal, farthest_first, verify_traversal

ROWS_CHECKED = 1000


def judge_traversal(pool: Tensor, labeled: Tensor | None, traversal: Traversal) -> dict[str, Any]:
    """Check our own traversal against float64 distances, not against itself.

    ``certified``: that no pick falls short of the farthest sample by more than 1e-6, and that the
    distances and the cover radius are right; ``gaps``: picks that fall short at all in float64, by
    at most ``largest_gap``, relative; ``near_ties``: picks that another sample comes within 1e-6
    of. Rounding to float32 and the lowest index decide both.
    """
    certificate = verify_traversal(pool, traversal, labeled, progress=False)
    return {
        "certified": certificate.valid,
        "gaps": certificate.gaps,
        "largest_gap": certificate.largest_gap,
        "near_ties": certificate.near_ties,
    }


def judge_picks(
    pool: Tensor, labeled: Tensor | None, picks: np.ndarray, k: int, free_start: bool
) -> dict[str, Any]:
    """Compare ``picks``, ``k`` of them, with the exact traversal of ``pool`` (n, d).

    ``agreement``: the share of positions with the exact pick. ``radius_ratio``: the cover radius
    after these picks over that of the exact ones. With ``free_start`` and nothing labeled, the
    first pick is taken as given.
    """
    picks = np.asarray(picks, dtype=np.int64)
    if len(picks) != k:
        wrong = f"{len(picks):,} picks, {k:,} were asked for"
        return {"agreement": None, "radius_ratio": None, "wrong": wrong}
    if len(np.unique(picks)) < len(picks) or not _within(picks, len(pool)):
        return {"agreement": None, "radius_ratio": None, "wrong": "repeats a sample or leaves pool"}
    start = int(picks[0]) if free_start and labeled is None and len(picks) else None
    exact = farthest_first(pool, len(picks), labeled, start=start, progress=False)
    agreement = float((exact.indices.cpu().numpy() == picks).mean()) if len(picks) else 1.0
    if agreement == 1:
        return {"agreement": 1.0, "radius_ratio": 1.0}
    chosen = pool[torch.from_numpy(picks).to(pool.device)]
    covered = chosen if labeled is None else torch.cat([labeled, chosen])
    radius = farthest_first(pool, 0, covered, progress=False).radius
    ratio = radius / exact.radius if exact.radius > 0 else float("inf" if radius > 0 else 1)
    return {"agreement": agreement, "radius_ratio": ratio}


def judge_draw(data: tuple[Tensor, Tensor], picks: np.ndarray, k: int) -> dict[str, Any]:
    """Check a draw of BADGE, ``k`` picks: all but the first are random.

    ``first_pick``: whether it is a sample with the largest gradient, to 1e-5 of its norm.
    """
    features, probabilities = data
    picks = np.asarray(picks, dtype=np.int64)
    if len(picks) != k:
        return {"wrong": f"{len(picks):,} picks, {k:,} were asked for"}
    if len(np.unique(picks)) < len(picks) or not _within(picks, len(features)):
        return {"wrong": "repeats a sample or leaves pool"}
    left = probabilities.double()
    left[torch.arange(len(left)), probabilities.argmax(1)] -= 1
    norms = left.norm(dim=1) * torch.cat([f.double().norm(dim=1) for f in features.split(8192)])
    right = k == 0 or bool(norms[int(picks[0])] >= norms.max() * (1 - 1e-5))
    return {"first_pick": right}


def _within(picks: np.ndarray, n: int) -> bool:
    return bool(((picks >= 0) & (picks < n)).all())


def judge_scores(
    case: StatisticsCase, logits: Tensor, scores: dict[str, Any], size: Size
) -> dict[str, Any]:
    """Compare scores (n,) with float64 NumPy on samples spread over the pool.

    ``stability_error``: the largest error of prediction stability relative to the largest value.
    ``dispersion_agreement``: the share of samples whose label dispersion is right to 1e-6.
    ``uncertainty_error``: the largest error of the last epoch's entropy, top probability or margin.
    """
    rows = np.linspace(0, case.n - 1, min(case.n, ROWS_CHECKED)).astype(np.int64)
    epochs = range(1, size.amount + 1)
    values = np.stack([_softmax(case.epoch_logits(logits, e)[rows]) for e in epochs])
    stability = values.var(axis=0).sum(axis=1)
    labels = values.argmax(axis=2)  # (epochs, rows)
    modal = np.array([np.bincount(column).max() for column in labels.T])
    dispersion = 1 - modal / len(labels)
    error = np.abs(_float64(scores["prediction_stability"])[rows] - stability).max()
    close = np.abs(_float64(scores["label_dispersion"])[rows] - dispersion) < 1e-6
    second, top = np.sort(values[-1], axis=1)[:, -2:].T
    uncertainty = {
        "entropy": scipy.special.entr(values[-1]).sum(axis=1),
        "least_confidence": 1 - top,
        "margin": second - top,
    }
    errors = [
        np.abs(_float64(scores[name])[rows] - want).max() for name, want in uncertainty.items()
    ]
    return {
        "stability_error": float(error / max(stability.max(), np.finfo(np.float64).tiny)),
        "dispersion_agreement": float(close.mean()),
        "uncertainty_error": float(max(errors)),
    }


def _softmax(logits: Tensor) -> np.ndarray:
    values = logits.double().cpu().numpy()
    exponential = np.exp(values - values.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def _float64(values: Any) -> np.ndarray:
    return torch.as_tensor(values).double().cpu().numpy()
