"""The search for a smaller covering radius: a bisection over radii, an integer program for each."""

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROWS_AT_A_TIME = 512
INFEASIBLE = 2  # status of scipy.optimize.milp
CANDIDATES = 4  # for the nearest: compared exactly
EPSILON = torch.finfo(torch.float64).eps


class LimitError(Exception):
    """The search hit a limit; the message is the limit's name."""


class RadiusSearch:
    """A bisection over ``radii``, the ascending radii that a choice of centres can have.

    ``centres`` cover with ``radii[reached]``; no centres cover with less than ``radii[excluded]``.
    A program that the solver does not decide moves neither.
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
        """List the pairs of a sample and a centre that are within the radius, and the radii.

        Raises
        ------
        LimitError
            There are more than ``most`` pairs.
        """
        unsettled = (self.to_labeled >= self.lower_bound).nonzero()[0]
        found = []
        for part in np.array_split(unsettled, max(1, math.ceil(len(unsettled) / ROWS_AT_A_TIME))):
            self._check_time()
            distances = exact_distances(self.rows[torch.from_numpy(part)], self.rows)
            own, other = (distances < self.radius).nonzero(as_tuple=True)
            most -= len(own)
            if most < 0:
                raise LimitError("max_pairs")
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
        """Find the smallest radius reached and the largest excluded.

        Where the solver decides every program, they are the same.
        """
        low = 0  # first bisection: an undecided radius counts as impossible
        while low < self.reached:
            middle = (low + self.reached) // 2
            if not self._decide(middle):
                low = middle + 1
        high = min(self.undecided, self.reached)  # second: it counts as possible
        while self.excluded < high:
            middle = (self.excluded + high) // 2
            if self._decide(middle) is not False:
                high = middle

    def _decide(self, index: int) -> bool | None:
        """Return whether centres cover with ``radii[index]``; None if the solver cannot tell."""
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
            raise LimitError("time_limit")
        self.stopped = "node_limit" if "limit" in message else "solver"
        self.undecided = min(self.undecided, index)
        return None

    def _solve(self, samples: np.ndarray, others: np.ndarray, uncovered: np.ndarray) -> Any:
        """Return the answer of ``milp``; its ``x`` holds u of every centre, then xi."""
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
        # Any cover will do. With few centres as the objective, the relaxation can exclude all.
        options = {"node_limit": self.node_limit, "mip_rel_gap": np.inf}
        if math.isfinite(self.deadline):
            options["time_limit"] = max(self.deadline - time.monotonic(), 1e-3)
        objective = np.concatenate([np.ones(n), np.zeros(m)])
        return milp(
            objective,
            constraints=LinearConstraint(matrix, least, most),
            integrality=objective,  # u is integer, and then so is xi
            bounds=Bounds(0, 1),
            options=options,
        )

    def _covering_radius(self, centres: Tensor) -> float:
        nearest = nearest_distances(self.rows, self.rows[centres.to(self.rows.device)])
        distances = np.sort(np.minimum(self.to_labeled, nearest))
        uncovered = min(self.outliers, len(distances) - 1)
        return float(distances[len(distances) - 1 - uncovered])

    def _check_time(self) -> None:
        if time.monotonic() >= self.deadline:
            raise LimitError("time_limit")


def separation(points: Tensor, to_labeled: np.ndarray) -> float:
    """Return the smallest distance of a point to another one or to a labeled sample.

    ``to_labeled`` (points,): of each to the nearest labeled sample.
    """
    smallest = float(to_labeled.min())
    for start in range(0, len(points), ROWS_AT_A_TIME):
        distances = exact_distances(points[start : start + ROWS_AT_A_TIME], points)
        distances.diagonal(start).fill_(math.inf)
        smallest = min(smallest, float(distances.min()))
    return smallest


def nearest_distances(rows: Tensor, others: Tensor) -> np.ndarray:
    """Return each row's distance to the nearest of ``others``, inf if there are none.

    A matrix product shortlists the ``CANDIDATES`` nearest, which are then compared exactly. Where
    its rounding error could hide a nearer one, the row is compared with all.
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
        found = exact_distances(block[:, None], others[least.indices])[:, 0].amin(1)
        error = (rows.shape[1] + 8) * EPSILON * (own[:, 0] + lengths.max()).square()
        unsure = least.values[:, -1] - least.values[:, 0] <= 2 * error
        if len(others) > CANDIDATES and unsure.any():
            found[unsure] = exact_distances(block[unsure], others).amin(1)
        nearest.append(found)
    return torch.cat(nearest).cpu().numpy()


def exact_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distances, float64 ``(rows, others)``, from differences."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
