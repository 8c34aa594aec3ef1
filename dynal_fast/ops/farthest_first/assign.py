"""Which labeled or picked sample covers which sample of the pool."""

from typing import Any, NamedTuple

import torch

from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.backends import choose
from dynal_fast.ops.farthest_first.contract import AssignmentProblem, as_distances
from dynal_fast.ops.farthest_first.host import kernels_on_host
from dynal_fast.ops.farthest_first.labeled import as_labeled, as_pool_indices
from dynal_fast.ops.farthest_first.progress import Progress


class Assignment(NamedTuple):
    """The labeled or picked sample that is nearest to each pool sample, all (n,).

    ``pick`` int64: its position in ``picks``, -1 where a labeled sample is nearest. ``labeled``
    int64: its position in ``labeled``, -1 where a pick is nearest. Both are -1 where there is
    neither. In a mask the positions are those among its true entries; of a pair, those of the
    embeddings come first. ``distances`` float32: how far it is, ``inf`` where there is none.
    """

    pick: torch.Tensor
    labeled: torch.Tensor
    distances: torch.Tensor


@kernels_on_host
def assign_to_picks(
    pool: Any,
    picks: Any,
    labeled: Any = None,
    *,
    metric: str = "euclidean",
    progress: bool | None = None,
    backend: str | None = None,
) -> Assignment:
    """Assign each pool sample to the nearest labeled or picked one: the clusters of k-center.

    Exact, and the same on every device: distances are those of :func:`farthest_first`, compared
    after the one rounding to float32. Among equals a labeled sample comes before a pick, and the
    lower position first. Computed in tiles: memory for samples times picks is never needed.

    Parameters
    ----------
    pool, labeled, metric, progress, backend
        As for :func:`farthest_first`; ``progress`` counts samples.
    picks : (k,) integers, or (n,) booleans
        Pool indices, such as the ``indices`` of a :class:`Traversal`, in any order.

    Returns
    -------
    Assignment
        ``pick``, ``labeled`` and ``distances``, each (n,), on the pool's device. A pick lies at
        distance 0 of itself; the largest distance is the ``radius`` of the traversal.

    Raises
    ------
    ValueError, TypeError
        As :func:`farthest_first`.

    Examples
    --------
    >>> import torch
    >>> pool = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    >>> assign_to_picks(pool, [3, 0]).pick
    tensor([1, 1, 1, 0])
    >>> assign_to_picks(pool, [3], labeled=torch.tensor([[1.0]])).labeled
    tensor([ 0,  0,  0, -1])
    """
    rows = contract.as_rows(pool, "pool")
    contract.check_metric(metric, rows)
    labeled_rows, labeled_indices = as_labeled(labeled, rows)
    chosen = as_pool_indices(picks, rows.size, "picks")
    before = 0 if labeled_rows is None else labeled_rows.size
    if labeled_indices is not None:
        before += len(labeled_indices)
        chosen = torch.cat([labeled_indices, chosen])
    problem = AssignmentProblem(rows, labeled_rows, chosen, metric)
    with Progress(rows.size, progress, "assign", "sample") as bar:
        nearest, values, exponent = choose(backend, rows.device).assign(problem, bar.reach)
    distances = values if metric == "cosine" else as_distances(values, exponent)
    return Assignment(
        pick=torch.where(nearest >= before, nearest - before, -1),
        labeled=torch.where(nearest < before, nearest, -1),
        distances=distances,
    )
