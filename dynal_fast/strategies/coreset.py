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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.ops.farthest_first.contract import as_rows
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
    pool = _as_tensor(pool, "pool")
    if labeled is not None:
        labeled = _as_tensor(labeled, "labeled")
    if not 1 <= budget <= len(pool):
        raise ValueError(f"budget must be in 1 .. {len(pool)}, got {budget}")
    for name, value in {
        "outliers": outliers,
        "max_pairs": max_pairs,
        "node_limit": node_limit,
        "time_limit": time_limit,
    }.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    deadline = time.monotonic() + time_limit
    rows = pool.double()
    fixed = rows.new_empty(0, rows.shape[1]) if labeled is None else labeled.to(rows)
    apart = min(budget + 1 + outliers, len(pool))
    picks = torch.as_tensor(farthest_first(pool, apart, labeled=labeled).indices).cpu()
    to_labeled = nearest_distances(rows, fixed)
    lower = 0.0
    if apart > budget + outliers:
        lower = (1 - ROUNDING) * separation(rows, picks, to_labeled) / 2
    search = RadiusSearch(rows, to_labeled, outliers, node_limit, deadline, picks[:budget], lower)
    greedy = search.radius
    try:
        search.list_pairs(max_pairs)
        search.run()
    except LimitError as limit:
        search.stopped = str(limit)
    stopped = "optimal" if search.lower_bound == search.radius else search.stopped
    return RobustKCenter(search.centres, search.radius, greedy, search.lower_bound, stopped)


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
