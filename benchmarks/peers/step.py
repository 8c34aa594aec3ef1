"""What a step of a codebase is, and the features that it selects from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Select = Callable[[int], Any]


@dataclass(frozen=True)
class Size:
    """A selection of ``picks`` from ``n`` samples, of which ``labeled`` are labeled."""

    n: int
    d: int
    labeled: int
    picks: int


@dataclass(frozen=True)
class Step:
    """A step of a codebase.

    Attributes
    ----------
    peer
        Its name in `benchmarks.peers.sources.REPOSITORIES`; empty for an installed library.
    where
        The file, and the class or "" with the functions that make the step.
    section
        The section of our page that replaces it; empty for a library, which has an adapter.
    tried
        Numbers of picks to run theirs with, if the usual one takes too long.
    """

    title: str
    size: Size
    prepare: Callable[["Step", Size, bool, Path], Select]
    peer: str = ""
    where: tuple[str, str, tuple[str, ...]] = ("", "", ())
    section: str = ""
    tried: tuple[int, ...] = ()


def features(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return features like those of a trained network (n, d), and the labeled positions."""
    from dynal_fast.bench.inputs import clustered

    rng = np.random.default_rng(1)
    return clustered(size.n, size.d), np.sort(rng.choice(size.n, size.labeled, replace=False))
