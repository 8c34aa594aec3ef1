"""What all adapters share: the scores of a tracker, for positions in a library's data set."""

from typing import Any

import numpy as np
import torch

from dynal_fast.pool import PoolStats
from dynal_fast.pool.candidates import integer


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


def positions(name: str, indices: Any, samples: int | None = None) -> np.ndarray:
    """Return positions in a data set as int64 (m,).

    Raises
    ------
    ValueError
        They are a mask, not integers, or, where ``samples`` is given, outside 0 to ``samples`` - 1.

    >>> positions("indices", [2, 0])
    array([2, 0])
    """
    given = np.asarray(indices)
    if given.size and given.dtype.kind not in "iu":
        what = f"{given.dtype} numbers"
        if given.dtype.kind == "b":
            what = f"a mask: pass np.flatnonzero({name})"
        raise ValueError(f"{name} must be positions in the data set, integers, got {what}")
    if samples is not None and given.size and not 0 <= given.min() <= given.max() < samples:
        raise ValueError(
            f"{name} must be positions in the data set of {samples} samples, got {given.min()} to "
            f"{given.max()}"
        )
    return given.astype(np.int64)


def at_least(least: int, name: str, value: Any) -> int:
    """Return ``value`` as an int of at least ``least``.

    >>> at_least(1, "every_n_epochs", 2)
    2
    """
    checked = integer(name, value)
    if checked < least:
        raise ValueError(f"{name} must be at least {least}, got {checked}")
    return checked


def number(name: str, value: Any, samples: int, whose: str) -> int:
    """Return a number of picks, an int of 0 to ``samples``; ``whose`` names these.

    >>> number("n_instances", 2, 3, "X")
    2
    """
    checked = integer(name, value)
    if not 0 <= checked <= samples:
        raise ValueError(
            f"{name} must be between 0 and the {samples} samples of {whose}, got {value}"
        )
    return checked


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
