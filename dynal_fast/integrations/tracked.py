"""What all adapters share: the scores of a tracker, for positions in a library's data set."""

from typing import Any

import numpy as np
import torch

from dynal_fast.pool import PoolStats


def check_tracks(stats: PoolStats, score: str) -> None:
    """Raise unless ``stats`` is a tracker of this score."""
    if not isinstance(stats, PoolStats):
        raise TypeError(f"stats must be a PoolStats, got {type(stats).__name__}")
    stats._tracked(score)


def check_samples(stats: PoolStats, samples: int, whose: str) -> None:
    """Raise unless the tracker's samples are those of a data set of this size."""
    if stats.num_samples != samples:
        raise ValueError(
            f"{whose} must have the {stats.num_samples} samples that stats tracks, one row each, "
            f"got {samples}"
        )


def positions(name: str, indices: Any) -> np.ndarray:
    """Return positions in a data set as int64 (m,).

    Raises
    ------
    ValueError
        They are a mask, or no integers.

    >>> positions("indices", [2, 0])
    array([2, 0])
    """
    given = np.asarray(indices)
    if given.size and given.dtype.kind not in "iu":
        what = f"{given.dtype} numbers"
        if given.dtype.kind == "b":
            what = f"a mask: pass np.flatnonzero({name})"
        raise ValueError(f"{name} must be positions in the data set, integers, got {what}")
    return given.astype(np.int64)


def scores_of(stats: PoolStats, score: str, ids: Any) -> np.ndarray:
    """Return the scores of these samples as float32 (m,).

    Raises
    ------
    ValueError
        A sample was dropped or has no score; the message says why.
    """
    candidates = torch.as_tensor(np.asarray(ids, dtype=np.int64), device=stats.device)
    stats.select(score, 0, candidates)
    scores: np.ndarray = stats.score(score)[candidates].cpu().numpy()
    return scores


def generator_from(random_state: np.random.RandomState) -> torch.Generator:
    """Return a generator for ties that is seeded by NumPy's."""
    return torch.Generator().manual_seed(int(random_state.randint(2**31 - 1)))
