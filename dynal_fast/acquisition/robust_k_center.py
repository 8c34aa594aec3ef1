"""CoreSet: robust k-center by mixed-integer feasibility search, started from the greedy solution.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
Algorithm 2: binary search for the smallest radius at which ``budget`` more centres cover all but
``outliers`` samples. In their program sample i is assigned to centre j by w_ij; summing out w gives
the covering program solved here, with the same feasible centres:

    sum_j u_j <= budget,    sum_i xi_i <= outliers,
    xi_i + sum_{j: d_ij <= radius} u_j >= 1   for each sample i that no labeled sample covers.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import farthest_first

MAX_PAIRS = 20_000_000  # pairs of samples in the program; 12 bytes each, more in the solver
ROWS_AT_A_TIME = 512


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
    searched
        False where the program would have more than ``max_pairs`` pairs: then this is the
        farthest-first solution.
    """

    indices: Tensor
    radius: float
    greedy_radius: float
    lower_bound: float
    searched: bool

    @property
    def optimal(self) -> bool:
        """Whether the search proved that no smaller radius is possible."""
        return self.radius <= self.lower_bound


def robust_k_center(
    pool: Tensor,
    budget: int,
    labeled: Tensor | None = None,
    *,
    outliers: int = 0,
    time_limit: float = 60.0,
    max_pairs: int = MAX_PAIRS,
) -> RobustKCenter:
    """Choose ``budget`` centres whose covering radius, all but ``outliers`` samples in, is small.

    Parameters
    ----------
    pool, labeled
        ``(n, d)`` and ``(m, d)`` embeddings; Euclidean distances in float64.
    outliers
        How many samples may stay uncovered.
    time_limit
        Seconds for the whole search. When they are over, the best centres so far are returned and
        ``lower_bound`` says how good they are; 0 returns the farthest-first solution.
    max_pairs
        Of samples within the greedy radius. A program with more is not built.

    Raises
    ------
    ValueError
        ``budget`` is not in 1 .. n, or ``outliers`` or ``time_limit`` is negative.

    >>> pool = torch.tensor([[0.0], [4.0], [5.0], [6.0], [10.0]])
    >>> found = robust_k_center(pool, 1, labeled=torch.tensor([[0.0], [10.0]]))
    >>> found.indices.tolist(), found.radius, found.optimal
    ([2], 1.0, True)
    """
    if not 1 <= budget <= len(pool):
        raise ValueError(f"budget must be in 1 .. {len(pool)}, got {budget}")
    if outliers < 0:
        raise ValueError(f"outliers must be at least 0, got {outliers}")
    if time_limit < 0:
        raise ValueError(f"time_limit must be at least 0 seconds, got {time_limit}")
    deadline = time.monotonic() + time_limit
    indices = torch.as_tensor(farthest_first(pool, budget, labeled=labeled).indices).cpu()
    rows = pool.double()
    fixed = rows.new_empty(0, rows.shape[1]) if labeled is None else labeled.to(rows)
    to_labeled = _nearest(rows, fixed)
    to_any = np.minimum(to_labeled, _nearest(rows, rows[indices.to(rows.device)]))
    greedy = _covering_radius(to_any, outliers)
    # budget + 1 points that far apart, and from the labeled, need a centre each (Gonzalez 1985).
    lower = greedy / 2 if outliers == 0 else 0.0
    pairs = _pairs_within(rows, greedy, max_pairs)
    if pairs is None or greedy == 0 or time_limit == 0:
        searched = pairs is not None and time_limit > 0
        return RobustKCenter(indices, greedy, greedy, 0.0 if greedy == 0 else lower, searched)
    sample, centre, distance = pairs
    radii = np.unique(np.concatenate([distance, to_labeled[to_labeled < greedy], [0.0]]))
    radii = radii[(radii >= lower) & (radii < greedy)]
    best, radius = indices, greedy
    low, high = 0, len(radii)  # radii[:low] are proven infeasible, radii[high] is reached
    while low < high and time.monotonic() < deadline:
        middle = (low + high) // 2
        near = distance <= radii[middle]
        feasible, centres = _cover(
            sample[near],
            centre[near],
            (to_labeled > radii[middle]).nonzero()[0],
            len(rows),
            budget,
            outliers,
            deadline - time.monotonic(),
        )
        if feasible is None:
            break
        if feasible:
            best = _completed(centres, indices, budget)
            to_any = np.minimum(to_labeled, _nearest(rows, rows[best.to(rows.device)]))
            radius = min(float(radii[middle]), _covering_radius(to_any, outliers))
            high = int(np.searchsorted(radii, radius))
        else:
            low = middle + 1
    if low > 0 or low == high:
        lower = max(lower, float(radii[low]) if low < len(radii) else greedy)
    return RobustKCenter(best, radius, greedy, min(lower, radius), True)


def _cover(
    sample: np.ndarray,
    centre: np.ndarray,
    uncovered: np.ndarray,
    count: int,
    budget: int,
    outliers: int,
    seconds: float,
) -> tuple[bool | None, np.ndarray]:
    """Solve the covering program; feasible is None where the time ran out."""
    if len(uncovered) <= outliers:
        return True, np.empty(0, dtype=np.int64)
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    row_of = np.full(count, -1)
    row_of[uncovered] = np.arange(len(uncovered))
    needed = row_of[sample] >= 0
    rows, columns = row_of[sample[needed]], centre[needed]
    m, size = len(uncovered), count + len(uncovered)
    slack = np.arange(m)
    entries: tuple[Any, ...] = (
        np.concatenate([rows, slack, np.full(count, m), np.full(m, m + 1)]),
        np.concatenate([columns, count + slack, np.arange(count), count + slack]),
    )
    matrix = csr_matrix((np.ones(len(entries[0])), entries), shape=(m + 2, size))
    low = np.concatenate([np.ones(m), [0.0, 0.0]])
    high = np.concatenate([np.full(m, np.inf), [budget, outliers]])
    # Least centres rather than no objective: the relaxation then tells infeasible radii at once.
    answer = milp(
        np.concatenate([np.ones(count), np.zeros(m)]),
        constraints=LinearConstraint(matrix, low, high),
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
        options={"time_limit": max(seconds, 1e-3)},
    )
    if answer.x is not None:
        return True, (answer.x[:count] > 0.5).nonzero()[0]
    return (False if answer.status == 2 else None), np.empty(0, dtype=np.int64)


def _completed(centres: np.ndarray, greedy: Tensor, budget: int) -> Tensor:
    """Fill up with picks of the greedy solution where fewer centres than the budget cover."""
    chosen = torch.as_tensor(centres, dtype=torch.int64)
    rest = greedy[~torch.isin(greedy, chosen)]
    return torch.cat([chosen, rest[: budget - len(chosen)]])


def _nearest(rows: Tensor, others: Tensor) -> np.ndarray:
    """Return each row's distance to the nearest of ``others``, inf where there is none."""
    nearest = np.full(len(rows), np.inf)
    if len(others):
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            part = slice(start, start + ROWS_AT_A_TIME)
            nearest[part] = _distances(rows[part], others).amin(1).cpu().numpy()
    return nearest


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def _covering_radius(distances: np.ndarray, outliers: int) -> float:
    if outliers >= len(distances):
        return 0.0
    kept = len(distances) - outliers - 1
    radius = float(np.partition(distances, kept)[kept])
    return radius if math.isfinite(radius) else 0.0


def _pairs_within(
    rows: Tensor, radius: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return samples, centres and distances of all pairs below ``radius``; None if too many."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    total = 0
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        distances = _distances(rows[start : start + ROWS_AT_A_TIME], rows)
        own, other = (distances < radius).nonzero(as_tuple=True)
        total += len(own)
        if total > most:
            return None
        values = distances[own, other].cpu().numpy()
        found.append((own.cpu().numpy() + start, other.cpu().numpy(), values))
    samples, centres, values = (np.concatenate(part) for part in zip(*found, strict=True))
    return samples, centres, values
