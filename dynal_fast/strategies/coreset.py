"""CoreSet: robust k-center by mixed-integer search, started from the greedy solution.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (ICLR
2018), Algorithm 2: binary search for the smallest radius at which ``budget`` more centres cover all
but ``outliers`` samples. In their program sample i is assigned to centre j by w_ij; summing out w
gives the covering program solved here, with the same feasible centres:

    sum_j u_j <= budget,    sum_i xi_i <= outliers,
    xi_i + sum_{j: d_ij <= radius} u_j >= 1   for each sample i that no labeled sample covers.

Farthest-first traversal bounds the radius from both sides. From above: its first ``budget`` picks
are centres. From below (Gonzalez 1985, with outliers): its first budget + 1 + outliers picks are at
least r apart and at least r from the labeled samples. A centre with a radius below r/2 covers at
most one of them, since two in its ball would be nearer than r to each other, and a labeled sample
covers none. More than ``outliers`` of them would stay uncovered, so no radius is below r/2.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed, as_collective, check_alike
from dynal_fast.collective.shards import bytes_at, shard_of
from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.ops.farthest_first.contract import as_rows, check_labeled_rows
from dynal_fast.ops.farthest_first.sharded.labeled import union_of
from dynal_fast.ops.farthest_first.sharded.part import as_matrix, taken
from dynal_fast.strategies.k_center_search import (
    LimitError,
    RadiusSearch,
    nearest_distances,
    separation,
)
from dynal_fast.strategies.strategy import SelectionContext

MAX_PAIRS = 200_000  # a program of so many takes seconds
NODE_LIMIT = 100
OPTIONS = {
    "outliers": 1e-4,  # a share of the samples, as in section 5 of the paper
    "max_pairs": MAX_PAIRS,
    "node_limit": NODE_LIMIT,
    "time_limit": 0.0,  # none
}
ROUNDING = 1e-12  # bound on the relative error of a distance in float64


@dataclass(frozen=True)
class RobustKCenter:
    """Centres, the radius they cover with, and bounds on the smallest possible radius.

    Attributes
    ----------
    indices
        int64 ``(budget,)``: rows of the pool.
    radius
        All but ``outliers`` samples are within it of a labeled sample or a centre.
    greedy_radius
        The radius of the farthest-first solution that the search starts from.
    lower_bound
        No choice of centres has a smaller radius.
    stopped
        What ended the search: ``"optimal"`` if no smaller radius is possible; the limit that it
        hit, ``"max_pairs"``, ``"node_limit"`` or ``"time_limit"``; or ``"solver"`` if a program
        ended without an answer for another reason.
    """

    indices: Tensor
    radius: float
    greedy_radius: float
    lower_bound: float
    stopped: str

    @property
    def optimal(self) -> bool:
        """Whether it is proven that no smaller radius is possible."""
        return self.stopped == "optimal"


def robust_k_center(
    pool: Any,
    budget: int,
    labeled: Any = None,
    *,
    outliers: int = 0,
    max_pairs: int = MAX_PAIRS,
    node_limit: int = NODE_LIMIT,
    time_limit: float = math.inf,
    group: Any = None,
) -> RobustKCenter:
    """Choose ``budget`` centres that cover all but ``outliers`` samples with a small radius.

    Sener and Savarese (2018), Algorithm 2. The search starts from the farthest-first solution; the
    limits say how much work may go into a better one. The result can be repeated, unless
    ``time_limit`` ends the search.

    Parameters
    ----------
    pool, labeled
        ``(n, d)`` and ``(m, d)`` embeddings, as `farthest_first` takes them; Euclidean
        distances in float64.
    outliers
        How many samples may stay uncovered.
    max_pairs
        The most pairs of a sample and a centre within the greedy radius, which is the size of the
        largest program. If there are more, the result is the farthest-first solution.
    node_limit
        Branch-and-bound nodes for each program.
    time_limit
        Seconds of wall time for the search.
    group
        As for `farthest_first`: the pool is the shards of all ranks, of which this is one; what is
        labeled may be passed whole, or in parts. The programs are for one process: with a group the
        result is that of ``max_pairs=0``, the farthest-first solution and its bounds, the same on
        every rank.

    Raises
    ------
    ValueError
        ``budget`` is not in 1 .. n, or another number is negative.

    >>> pool = torch.tensor([[0.0], [4.0], [5.0], [6.0], [10.0], [90.0]])
    >>> labeled = torch.tensor([[0.0], [10.0]])
    >>> found = robust_k_center(pool, 1, labeled, outliers=1)
    >>> found.indices.tolist(), found.radius, found.greedy_radius, found.stopped
    ([2], 1.0, 4.0, 'optimal')
    >>> found = robust_k_center(pool, 1, labeled, outliers=1, max_pairs=0)
    >>> found.indices.tolist(), found.radius, round(found.lower_bound, 6), found.stopped
    ([5], 4.0, 0.5, 'max_pairs')
    """
    limits = {
        "outliers": outliers,
        "max_pairs": max_pairs,
        "node_limit": node_limit,
        "time_limit": time_limit,
    }
    if group is not None:
        return _greedy_of_ranks(as_collective(group), pool, budget, labeled, limits)
    pool = _as_tensor(pool, "pool")
    if labeled is not None:
        labeled = _as_tensor(labeled, "labeled")
    _check(budget, len(pool), limits)
    deadline = time.monotonic() + time_limit
    rows = pool.double()
    fixed = rows.new_empty(0, rows.shape[1]) if labeled is None else labeled.to(rows)
    apart = min(budget + 1 + outliers, len(pool))
    picks = torch.as_tensor(farthest_first(pool, apart, labeled=labeled).indices).cpu()
    to_labeled = nearest_distances(rows, fixed)
    lower = 0.0
    if apart > budget + outliers:
        points = rows[picks.to(rows.device)]
        lower = _lower_bound(points, to_labeled[picks.numpy()])
    search = RadiusSearch(rows, to_labeled, outliers, node_limit, deadline, picks[:budget], lower)
    greedy = search.radius
    try:
        search.list_pairs(max_pairs)
        search.run()
    except LimitError as limit:
        search.stopped = str(limit)
    stopped = "optimal" if search.lower_bound == search.radius else search.stopped
    return RobustKCenter(search.centres, search.radius, greedy, search.lower_bound, stopped)


def _greedy_of_ranks(
    ranks: Collective, pool: Any, budget: int, labeled: Any, limits: Mapping[str, float]
) -> RobustKCenter:
    """The farthest-first solution of the shards of all ranks, and its bounds."""
    with ranks.session():
        rows = agreed(ranks, lambda: as_rows(pool, "pool"))
        sizes, begin = shard_of(ranks, rows.size)
        total = sum(sizes)

        def checked() -> Any:
            _check(budget, total, limits)
            if labeled is None:
                return None
            given = as_rows(labeled, "labeled")
            check_labeled_rows(given, rows)
            return given.array

        known = agreed(ranks, checked)
        outliers = int(limits["outliers"])
        check_alike(ranks, "budget and outliers", [budget, outliers])
        apart = min(budget + 1 + outliers, total)
        picks = farthest_first(rows.array, apart, labeled=known, group=ranks).indices.cpu()
        own = _as_tensor(rows.array, "pool")
        parts = union_of(ranks, known, (rows,), (begin,), total).rows
        fixed = torch.cat([own[:0], *(_as_tensor(part.array, "labeled") for part in parts)])
        sent = bytes_at(ranks, lambda mine: taken(rows, mine), picks, sizes)
        points = _as_tensor(as_matrix(sent, rows).array, "pool")
        nearest = nearest_distances(own, torch.cat([fixed, points[:budget]]))
        # The radius is the largest distance but for those of outliers.
        farthest = torch.from_numpy(nearest).topk(min(outliers + 1, len(nearest))).values
        told = torch.cat(ranks.everyones(farthest)).sort(descending=True).values
        radius = float(told[min(outliers, total - 1)])
        lower = 0.0
        if apart > budget + outliers:
            lower = _lower_bound(points, nearest_distances(points, fixed))
    stopped = "optimal" if lower == radius else "max_pairs"
    return RobustKCenter(picks[:budget], radius, radius, lower, stopped)


def _check(budget: int, size: int, limits: Mapping[str, float]) -> None:
    if not 1 <= budget <= size:
        raise ValueError(f"budget must be in 1 .. {size}, got {budget}")
    for name, value in limits.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def _lower_bound(points: Tensor, to_labeled: np.ndarray) -> float:
    """What no radius is below, by one more pick than centres and outliers."""
    return (1 - ROUNDING) * separation(points, to_labeled) / 2


def select_centres(context: SelectionContext) -> Tensor:
    """Pick the centres of `robust_k_center`; report radius, bound and what ended the search.

    The default limits suffice for a few thousand samples. For tens of thousands the search ends at
    ``max_pairs`` with farthest-first's picks, unless that option is raised or ``protocol.subset``
    leaves fewer candidates.
    """
    options = context.strategy.options
    count = len(context.candidates) + len(context.labeled)
    found = robust_k_center(
        context.embeddings(context.candidates),
        context.budget,
        context.embeddings(context.labeled),
        outliers=round(options["outliers"] * count),
        max_pairs=int(options["max_pairs"]),
        node_limit=int(options["node_limit"]),
        time_limit=options["time_limit"] or math.inf,
    )
    context.report |= {
        "radius": found.radius,
        "greedy_radius": found.greedy_radius,
        "lower_bound": found.lower_bound,
        "optimal": found.optimal,
        "stopped": found.stopped,
    }
    return context.candidates[found.indices]


def _as_tensor(embeddings: Any, name: str) -> Tensor:
    """Return checked embeddings (n, d) as float64, in which the search computes."""
    array = as_rows(embeddings, name).array
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(array.astype(np.float64))
    return array.double()
