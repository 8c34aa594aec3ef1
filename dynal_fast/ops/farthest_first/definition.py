"""The backend "reference": ``reference.py`` on what people pass. Each pick starts anew."""

import copy
from collections.abc import Callable

import numpy as np
import torch

from dynal_fast.ops.farthest_first import reference
from dynal_fast.ops.farthest_first.contract import (
    Answer,
    AssignmentAnswer,
    AssignmentProblem,
    Reached,
    Rows,
)
from dynal_fast.ops.farthest_first.kernels import Points, on_one_scale
from dynal_fast.ops.farthest_first.products import OuterProducts
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels, values_of


class Definition:
    """What covers a pool, and which of its rows may be picked."""

    def __init__(
        self, kernels: ReferenceKernels, pool: Points, candidates: torch.Tensor | None
    ) -> None:
        self.kernels, self.points = kernels, [pool]  # and labeled samples outside the pool
        self.rows = values_of(pool.rows)
        self.covering = np.empty(0, dtype=np.int64)
        self.excluded = np.empty(0, dtype=np.int64)
        self.exponent: int | None = None
        if candidates is not None:
            self.excluded = np.delete(np.arange(len(self.rows)), candidates.cpu().numpy())

    def copy(self) -> "Definition":
        return copy.copy(self)

    def cover(self, outside: Rows | None, rows: torch.Tensor | None) -> None:
        if outside is not None:
            self.points = [*self.points, self.kernels.points(outside, "labeled")]
        if rows is not None:
            self.covering = np.concatenate([self.covering, rows.cpu().numpy()])

    def exclude(self, rows: torch.Tensor) -> None:
        self.excluded = np.concatenate([self.excluded, rows.cpu().numpy()])

    def pick(self, k: int, start: int | None, reached: Reached) -> Answer:
        minimum, exponent = self._minimum()
        order, values, left = reference.farthest_first(
            self.rows,
            k,
            minimum,
            metric=self.kernels.metric,
            exponent=exponent,
            start=start,
            excluded=np.concatenate([self.excluded, self.covering]),
        )
        self.covering = np.concatenate([self.covering, order])
        reached(k)
        device = self.points[0].rows.device
        picks, distances = torch.from_numpy(order), torch.from_numpy(values)
        return Answer(picks.to(device), distances.to(device), float(left), exponent)

    def minima(self) -> torch.Tensor:
        minimum, _ = self._minimum()
        return torch.from_numpy(minimum).to(self.points[0].rows.device)

    def _minimum(self) -> tuple[np.ndarray, int]:
        metric = self.kernels.metric
        _, self.exponent = on_one_scale(self.kernels, self.points)
        minimum = np.full(len(self.rows), np.inf, dtype=np.float32)
        for points in self.points[1:]:
            labeled = values_of(points.rows)
            reference.cover(minimum, self.rows, labeled, metric, self.exponent)
        reference.cover(minimum, self.rows, self.rows[self.covering], metric, self.exponent)
        return minimum, self.exponent


def open_pool(pool: Rows, metric: str) -> Callable[[torch.Tensor | None], Definition]:
    kernels = ReferenceKernels(metric)
    points = kernels.points(pool, "pool")
    return lambda candidates: Definition(kernels, points, candidates)


def assign(problem: AssignmentProblem, reached: Reached) -> AssignmentAnswer:
    kernels = ReferenceKernels(problem.metric)
    points = [kernels.points(problem.pool, "pool")]
    pool = values_of(problem.pool)
    centers = pool[problem.indices.numpy()]
    if problem.labeled is not None:
        points.append(kernels.points(problem.labeled, "labeled"))
        centers = _joined(values_of(problem.labeled), centers)
    _, exponent = on_one_scale(kernels, points)
    found = reference.assign(pool, centers, problem.metric, exponent)
    reached(len(pool))
    nearest, values = (torch.from_numpy(part).to(problem.pool.device) for part in found)
    return AssignmentAnswer(nearest, values, exponent)


def _joined(first: reference.Points, second: reference.Points) -> reference.Points:
    if isinstance(first, OuterProducts) and isinstance(second, OuterProducts):
        left, right = (first.left, second.left), (first.right, second.right)
        return OuterProducts(np.concatenate(left), np.concatenate(right))
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    return np.concatenate([first.astype(np.float64), second.astype(np.float64)])
