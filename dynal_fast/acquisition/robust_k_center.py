"""CoreSet: robust k-center by mixed-integer feasibility search, started from the greedy solution.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (ICLR
2018), Algorithm 2: binary search for the smallest radius at which ``budget`` more centres cover all
but ``outliers`` samples. In their program sample i is assigned to centre j by w_ij; summing out w
gives the covering program solved here, with the same feasible centres:

    sum_j u_j <= budget,    sum_i xi_i <= outliers,
    xi_i + sum_{j: d_ij <= radius} u_j >= 1   for each sample i that no labeled sample covers.

It begins between two radii that farthest-first traversal gives. From above: its first ``budget``
picks are centres. From below (Gonzalez 1985, with outliers): its first budget + 1 + outliers picks
lie at least r from each other and from the labeled samples. With a radius below r/2 a centre,
wherever it is, covers at most one of them, for two would be nearer than r to each other; a labeled
sample covers none. So more than ``outliers`` of them stay uncovered: no radius is below r/2.
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

MAX_PAIRS = 200_000  # a program of so many takes seconds
NODE_LIMIT = 100
ROWS_AT_A_TIME = 512
INFEASIBLE = 2  # status of scipy.optimize.milp
CANDIDATES = 4  # for the nearest, compared exactly
EPSILON = torch.finfo(torch.float64).eps
ROUNDING = 1e-12  # relative, of a distance in float64: more than it can be off


@dataclass(frozen=True)
class RobustKCenter:
    """Centres, the radius they cover with, and what is known of the smallest possible radius.

    Attributes
    ----------
    indices
        int64 ``(budget,)``: rows of the pool.
    radius
        All but ``outliers`` samples are this near to a labeled sample or a centre.
    greedy_radius
        The same for the farthest-first solution that the search starts from.
    lower_bound
        No choice of centres has a smaller radius than this.
    stopped
        What ended the search: ``"optimal"``, that no smaller radius is possible; or the limit that
        it ran into, ``"max_pairs"``, ``"node_limit"`` or ``"time_limit"``; or ``"solver"``, that a
        program ended without an answer for another reason.
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
    """Choose ``budget`` centres whose covering radius, all but ``outliers`` samples in, is small.

    Sener and Savarese (2018), Algorithm 2. The farthest-first solution is always there; the limits
    say how much work may go into a better one. The result is the same on every repeat, unless it is
    ``time_limit`` that ends the search.

    Parameters
    ----------
    pool, labeled
        ``(n, d)`` and ``(m, d)`` embeddings, as :func:`farthest_first` takes them; Euclidean
        distances in float64.
    outliers
        How many samples may stay uncovered.
    max_pairs
        Of a sample and a centre within the greedy radius: the size of the largest program. Where
        there are more, the result is the farthest-first solution.
    node_limit
        Branch-and-bound nodes of each program. One that they do not decide decides nothing.
    time_limit
        Seconds of the clock for the search.

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
    to_labeled = _nearest(rows, fixed)
    lower = 0.0
    if apart > budget + outliers:
        lower = (1 - ROUNDING) * _separation(rows, picks, to_labeled) / 2
    search = _Search(rows, to_labeled, outliers, node_limit, deadline, picks[:budget], lower)
    greedy = search.radius
    try:
        search.list_pairs(max_pairs)
        search.run()
    except _LimitError as limit:
        search.stopped = str(limit)
    stopped = "optimal" if search.lower_bound == search.radius else search.stopped
    return RobustKCenter(search.centres, search.radius, greedy, search.lower_bound, stopped)


def _as_tensor(embeddings: Any, name: str) -> Tensor:
    """Return checked embeddings (n, d) as float64, which is what the search computes in."""
    array = as_rows(embeddings, name).array
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(array.astype(np.float64))
    return array.double()


class _LimitError(Exception):
    """The search must end; the message is the name of the limit."""


class _Search:
    """Between ``radii[excluded]``, below which nothing covers, and ``radii[reached]``.

    The radii are those that a choice of centres can have, ascending; ``centres`` reach
    ``radii[reached]``. A program that the solver does not decide leaves both as they are.
    """

    def __init__(
        self,
        rows: Tensor,
        to_labeled: np.ndarray,
        outliers: int,
        node_limit: int,
        deadline: float,
        centres: Tensor,
        lower_bound: float,
    ) -> None:
        self.rows, self.to_labeled, self.outliers = rows, to_labeled, outliers
        self.node_limit, self.deadline = node_limit, deadline
        self.centres = self.greedy_centres = centres
        self.lower_bound, self.radius = lower_bound, self._covering_radius(centres)
        self.stopped = ""

    def list_pairs(self, most: int) -> None:
        """List samples and centres nearer to each other than the radius reached, and the radii."""
        needy = (self.to_labeled >= self.lower_bound).nonzero()[0]
        found = []
        for part in np.array_split(needy, max(1, math.ceil(len(needy) / ROWS_AT_A_TIME))):
            self._check_time()
            distances = _distances(self.rows[torch.from_numpy(part)], self.rows)
            own, other = (distances < self.radius).nonzero(as_tuple=True)
            most -= len(own)
            if most < 0:
                raise _LimitError("max_pairs")
            values = distances[own, other].cpu().numpy()
            found.append((part[own.cpu().numpy()], other.cpu().numpy(), values))
        self.samples, self.others, self.distances = map(np.concatenate, zip(*found, strict=True))
        radii = np.unique(np.concatenate([self.distances, self.to_labeled]))
        radii = radii[(radii >= self.lower_bound) & (radii < self.radius)]
        self.radii = np.append(radii, self.radius)
        self.excluded, self.reached = 0, len(radii)
        self.undecided = len(radii)
        self.lower_bound = float(self.radii[0])

    def run(self) -> None:
        """Close in on the smallest radius."""
        low = 0  # with what is undecided taken as impossible: the smallest radius reached
        while low < self.reached:
            middle = (low + self.reached) // 2
            if not self._decide(middle):
                low = middle + 1
        high = min(self.undecided, self.reached)  # taken as possible: the largest radius excluded
        while self.excluded < high:
            middle = (self.excluded + high) // 2
            if self._decide(middle) is not False:
                high = middle

    def _decide(self, index: int) -> bool | None:
        """Whether centres cover with ``radii[index]``; None where the solver does not say."""
        self._check_time()
        radius = self.radii[index]
        near = self.distances <= radius
        uncovered = self.to_labeled > radius
        answer = self._solve(self.samples[near], self.others[near], uncovered)
        if answer.x is not None:
            chosen = torch.from_numpy((answer.x[: len(self.rows)] > 0.5).nonzero()[0])
            rest = self.greedy_centres[~torch.isin(self.greedy_centres, chosen)]
            centres = torch.cat([chosen, rest[: len(self.greedy_centres) - len(chosen)]])
            reached = int(np.searchsorted(self.radii, self._covering_radius(centres)))
            if reached <= index:
                self.centres, self.reached = centres, reached
                self.radius = float(self.radii[reached])
                return True
        elif answer.status == INFEASIBLE:
            self.excluded = index + 1
            self.lower_bound = float(self.radii[self.excluded])
            return False
        message = answer.message.lower()
        if "time limit" in message:
            raise _LimitError("time_limit")
        self.stopped = "node_limit" if "limit" in message else "solver"
        self.undecided = min(self.undecided, index)
        return None

    def _solve(self, samples: np.ndarray, others: np.ndarray, uncovered: np.ndarray) -> Any:
        """Return what ``milp`` says of the program: u of every centre, then xi."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_matrix

        m, n = int(uncovered.sum()), len(uncovered)
        row_of = np.where(uncovered, np.cumsum(uncovered) - 1, -1)
        needed = row_of[samples] >= 0
        slack = np.arange(m)
        rows = (row_of[samples[needed]], slack, np.full(n, m), np.full(m, m + 1))
        columns = (others[needed], n + slack, np.arange(n), n + slack)
        entries = np.concatenate(rows), np.concatenate(columns)
        matrix = csr_matrix((np.ones(len(entries[0])), entries), shape=(m + 2, n + m))
        least = np.concatenate([np.ones(m), [0.0, 0.0]])
        most = np.concatenate([np.full(m, np.inf), [len(self.greedy_centres), self.outliers]])
        # Any cover will do. The objective, few centres, makes the relaxation tell that none is.
        options = {"node_limit": self.node_limit, "mip_rel_gap": np.inf}
        if math.isfinite(self.deadline):
            options["time_limit"] = max(self.deadline - time.monotonic(), 1e-3)
        objective = np.concatenate([np.ones(n), np.zeros(m)])
        return milp(
            objective,
            constraints=LinearConstraint(matrix, least, most),
            integrality=objective,  # xi follows: it is 0 or 1 where u is
            bounds=Bounds(0, 1),
            options=options,
        )

    def _covering_radius(self, centres: Tensor) -> float:
        nearest = _nearest(self.rows, self.rows[centres.to(self.rows.device)])
        distances = np.sort(np.minimum(self.to_labeled, nearest))
        uncovered = min(self.outliers, len(distances) - 1)
        return float(distances[len(distances) - 1 - uncovered])

    def _check_time(self) -> None:
        if time.monotonic() >= self.deadline:
            raise _LimitError("time_limit")


def _separation(rows: Tensor, picks: Tensor, to_labeled: np.ndarray) -> float:
    """Return the smallest distance of a pick to another or to a labeled sample."""
    points = rows[picks.to(rows.device)]
    smallest = float(to_labeled[picks.numpy()].min())
    for start in range(0, len(points), ROWS_AT_A_TIME):
        distances = _distances(points[start : start + ROWS_AT_A_TIME], points)
        distances.diagonal(start).fill_(math.inf)
        smallest = min(smallest, float(distances.min()))
    return smallest


def _nearest(rows: Tensor, others: Tensor) -> np.ndarray:
    """Return each row's distance to the nearest of ``others``, inf where there is none.

    Squares by matrix product choose the few that may be nearest; where its rounding leaves more
    than those, all count. Which it is does not change the result.
    """
    if not len(others):
        return np.full(len(rows), np.inf)
    origin = others.mean(0)
    columns = others - origin
    lengths = columns.norm(dim=1)
    nearest = []
    for block in rows.split(ROWS_AT_A_TIME):
        shifted = block - origin
        own = shifted.norm(dim=1, keepdim=True)
        squares = torch.addmm(own.square() + lengths.square(), shifted, columns.T, alpha=-2)
        least = squares.topk(min(CANDIDATES, len(others)), largest=False)
        found = _distances(block[:, None], others[least.indices])[:, 0].amin(1)
        error = (rows.shape[1] + 8) * EPSILON * (own[:, 0] + lengths.max()).square()
        unsure = least.values[:, -1] - least.values[:, 0] <= 2 * error
        if len(others) > CANDIDATES and unsure.any():
            found[unsure] = _distances(block[unsure], others).amin(1)
        nearest.append(found)
    return torch.cat(nearest).cpu().numpy()


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
