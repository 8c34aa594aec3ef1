"""Exact D² sampling (k-means++ seeding) of a pool of embeddings, as a race that runs lazily.

``reference.py`` is the definition; a backend may do anything that gives the same indices.
"""

from typing import Any

import torch

from dynal_fast.collective import as_collective
from dynal_fast.ops.farthest_first import contract as checks
from dynal_fast.ops.farthest_first.contract import as_distances
from dynal_fast.ops.farthest_first.host import kernels_on_host
from dynal_fast.ops.farthest_first.labeled import as_labeled
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.request import as_request
from dynal_fast.ops.kmeans_plusplus import reference
from dynal_fast.ops.kmeans_plusplus.backends import choose
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, Race, Seeding, as_seed, as_start
from dynal_fast.ops.kmeans_plusplus.sharded import kmeans_plusplus_of_shards

__all__ = ["Seeding", "kmeans_plusplus"]


@kernels_on_host
def kmeans_plusplus(
    pool: Any,
    k: int,
    labeled: Any = None,
    *,
    metric: str = "euclidean",
    start: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    backend: str | None = None,
    group: Any = None,
) -> Seeding:
    """Draw ``k`` pool samples by D² sampling, the seeding of k-means++.

    Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007: each pick is
    drawn with probability proportional to the squared distance to the nearest labeled or picked
    sample; the first one uniformly, where nothing is labeled. One trial a pick, as the paper has
    it: scikit-learn's ``kmeans_plusplus(..., n_local_trials=1)`` draws from the same law. On
    gradient embeddings this is BADGE (Ash et al., 2020); see :class:`OuterProducts`.

    The draw is a race of exponential clocks (``dynal_fast.ops.kmeans_plusplus.reference``), one
    random number a sample, which lets all but a few per cent of the distances go uncomputed. For
    the same state of ``generator`` the picks are the same on every device, for any number of
    threads. Once only exact duplicates of labeled and picked samples remain, which have probability
    0, they follow by index.

    Parameters
    ----------
    pool : (n, d) floats, integers or booleans, or OuterProducts
        Embeddings, as :func:`farthest_first` takes them.
    k : int
        Samples to pick, 0 to the number of pool samples that are not labeled.
    labeled : (m, d) numbers, (m,) integers or (n,) booleans, optional
        Embeddings of labeled samples outside the pool, or indices or a mask of pool samples that
        are already labeled, which are never picked; or a tuple of both, as for
        :func:`farthest_first`.
    metric : {"euclidean", "cosine"}
        With "cosine" probabilities are proportional to one minus the cosine similarity, which is
        half the squared distance of the normalised rows.
    start : int, optional
        The first pick, whatever its distance.
    generator : torch.Generator, optional
        A CPU generator, of which one number is drawn; torch's default one if omitted.
    progress : bool, optional
        Show a progress bar on stderr; by default only on a terminal.
    backend : {"cpu", "triton", "reference"}, optional
        The implementation; by default the fastest one for the pool's device.
    group : torch.distributed.ProcessGroup, optional
        The processes that hold the pool together, as for :func:`farthest_first`. The generator of
        rank 0 decides; the result is the same on every rank, and that of one process.

    Returns
    -------
    Seeding
        ``indices`` and ``distances``, on the pool's device.

    Raises
    ------
    ValueError, TypeError, ImportError, RankError
        As :func:`farthest_first`.

    Examples
    --------
    >>> import torch
    >>> pool = torch.tensor([[0.0], [1.0], [1.0], [100.0]])
    >>> seeding = kmeans_plusplus(pool, 2, labeled=[0], generator=torch.Generator().manual_seed(0))
    >>> seeding
    Seeding(indices=tensor([3, 1]), distances=tensor([100.,   1.]))
    """
    if group is not None:
        drawn = kmeans_plusplus_of_shards(
            as_collective(group),
            pool,
            k,
            labeled,
            metric=metric,
            start=start,
            generator=generator,
            progress=progress,
            backend=backend,
        )
        return _as_seeding(drawn, metric)
    rows = checks.as_rows(pool, "pool")
    checks.check_metric(metric, rows)
    outside, inside = as_labeled(labeled, rows)
    inside = torch.empty(0, dtype=torch.int64) if inside is None else inside.unique()
    free = torch.ones(rows.size, dtype=torch.bool)
    free[inside] = False
    count, first = as_request(k, as_start(start), None, free)
    clock = reference.clocks(as_seed(generator), rows.size)
    race = Race(rows, count, outside, inside, free, metric, first, clock)
    with Progress(count, progress, "k-means++", "pick") as bar:
        drawn = choose(backend, rows.device).draw(race, bar.reach)
    return _as_seeding(drawn, metric)


def _as_seeding(drawn: Drawn, metric: str) -> Seeding:
    if metric == "cosine":
        return Seeding(drawn.indices, drawn.values)
    return Seeding(drawn.indices, as_distances(drawn.values, drawn.exponent))
