"""A certificate for a finished traversal: one pass of float64 matrix products over the pool."""

import math
from typing import Any, NamedTuple

import torch

from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.contract import Rows, Traversal
from dynal_fast.ops.farthest_first.host import host_by_default
from dynal_fast.ops.farthest_first.labeled import as_labeled
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.reference import COSINE_STEP

TOLERANCE = 1e-6  # relative, of squared euclidean and of cosine distances
TILE_CENTERS = 2048
TILE_VALUES = 2**22  # rows times steps at once


class Certificate(NamedTuple):
    """What :func:`verify_traversal` found.

    ``valid``: indices distinct, in range and never labeled, no pick short of the farthest sample by
    more than 1e-6, distances and radius right to 1e-6. ``steps``: picks checked. ``largest_gap``:
    the most that a pick fell short of the farthest sample at its step, relative (0 where float64
    agrees on every pick). ``gaps``: steps with any shortfall beyond float64 noise; those up to
    1.2e-7 are ties after the one rounding to float32. ``near_ties``: steps at which another sample
    came within 1e-6 of the pick, so that this certificate cannot tell which is the farther.
    ``distance_error``: the largest relative error of a reported distance or of the radius.
    All relative figures are of squared euclidean or of cosine distances.
    """

    valid: bool
    steps: int
    largest_gap: float
    gaps: int
    near_ties: int
    distance_error: float


@host_by_default
def verify_traversal(
    pool: Any,
    traversal: Traversal,
    labeled: Any = None,
    *,
    metric: str = "euclidean",
    start: bool = False,
    progress: bool | None = None,
) -> Certificate:
    """Check a traversal without running one: at each step the pick must be the farthest sample.

    Distances to the labeled samples and the picks are computed in blocks of float64 matrix
    products, with a running minimum in pick order; the largest of them at each step must be the
    pick's own. The cost is that of one such product of the pool with all of them.

    Parameters
    ----------
    pool, labeled, metric
        As they were given to :func:`farthest_first`.
    traversal : Traversal
        Its result, or the same from elsewhere.
    start : bool
        The first pick was prescribed, so it need not be the farthest.
    progress : bool, optional
        Show a progress bar on stderr; by default only on a terminal.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or device, as for :func:`farthest_first`.

    Examples
    --------
    >>> import torch
    >>> from dynal_fast import farthest_first
    >>> pool = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    >>> verify_traversal(pool, farthest_first(pool, 2, pool[:1]), pool[:1]).valid
    True
    """
    rows = contract.as_rows(pool, "pool")
    contract.check_metric(metric, rows)
    if rows.right is not None:
        raise TypeError("pool must be a matrix, got OuterProducts, which have no certificate")
    picks = traversal.indices.to("cpu", torch.int64)
    steps, n = len(picks), rows.size
    never = torch.empty(0, dtype=torch.int64)
    centers: list[tuple[Rows, torch.Tensor]] = []
    labeled_rows, labeled_indices = as_labeled(labeled, rows)
    if labeled_indices is not None:
        never = labeled_indices.unique()
        centers += [(rows, part) for part in never.split(TILE_CENTERS) if len(part)]
    if labeled_rows is not None:
        every = torch.arange(labeled_rows.size)
        centers += [(labeled_rows, part) for part in every.split(TILE_CENTERS) if len(part)]
    proper = bool(
        ((picks >= 0) & (picks < n)).all()
        and len(torch.unique(picks)) == steps
        and not torch.isin(picks, never).any()
    )
    if not proper:
        return Certificate(False, steps, math.inf, steps, 0, math.inf)

    space = _Float64(rows, metric, picks, centers)
    # The step at which a row is picked: later distances do not matter. Labeled rows: before all.
    taken = torch.full((n,), steps, dtype=torch.int64)
    taken[picks] = torch.arange(steps)
    taken[never] = -1
    tile = max(16, TILE_VALUES // (steps + 1))
    own = torch.empty(0, dtype=torch.float64)
    for part in picks.split(tile):
        own = torch.cat([own, space.running_minima(part).gather(1, taken[part, None]).squeeze(1)])
    farthest = torch.zeros(steps + 1, dtype=torch.float64)
    near = torch.zeros(steps, dtype=torch.bool)
    with Progress(n, progress, "verify", "sample") as bar:
        for part in torch.arange(n).split(tile) if n else ():
            minima = space.running_minima(part)
            minima[torch.arange(steps + 1) > taken[part, None]] = -math.inf
            farthest = torch.maximum(farthest, minima.amax(dim=0))
            minima.scatter_(1, taken[part, None].clamp(min=0), -math.inf)
            near |= (minima[:, :steps] >= own * (1 - TOLERANCE) - space.noise).any(dim=0)
            bar.reach(int(part[-1]) + 1)
    gaps = space.relative(farthest[:steps], own, farthest[:steps])
    if start and steps:
        gaps[0], near[0] = 0, False
    reported = torch.cat([traversal.distances.cpu().double(), torch.tensor([traversal.radius])])
    squared = reported**2 if metric == "euclidean" else reported
    exact = torch.cat([own, farthest[steps:]])
    errors = space.relative(squared, exact, exact).abs()
    if metric == "euclidean":  # the step of float32 numbers near 0
        errors[(reported - exact.sqrt()).abs() <= 2.0**-149] = 0
    largest = float(gaps.max()) if steps else 0.0
    return Certificate(
        valid=largest <= TOLERANCE and float(errors.max()) <= TOLERANCE,
        steps=steps,
        largest_gap=largest,
        gaps=int((gaps > 0).sum()),
        near_ties=int(near.sum()),
        distance_error=float(errors.max()),
    )


class _Float64:
    """Distances from pool rows to the labeled samples and the picks, by float64 products."""

    def __init__(
        self, pool: Rows, metric: str, picks: torch.Tensor, labeled: list[tuple[Rows, torch.Tensor]]
    ) -> None:
        self.pool, self.metric, self.labeled = pool, metric, labeled
        self.picks = [(pool, part) for part in picks.split(TILE_CENTERS)]
        # Distances do not depend on the origin, but their rounding errors do.
        self.origin = torch.zeros(pool.columns, dtype=torch.float64)
        if metric == "euclidean" and pool.size:
            self.origin = as_float64(pool, torch.arange(0, pool.size, -(-pool.size // 1024))).mean(
                0
            )
        self.norm = 0.0  # the largest squared norm seen

    @property
    def noise(self) -> float:
        """How far two computed distances may differ that are equal: smaller gaps are ignored."""
        rounding = COSINE_STEP if self.metric == "cosine" else 0.0
        return (self.pool.columns + 8) * 2.0**-50 * self.norm + rounding

    def rows(self, rows: Rows, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = as_float64(rows, index)
        x = x - self.origin if self.metric == "euclidean" else x / (x.norm(dim=1)[:, None] * 2**0.5)
        norms = (x * x).sum(dim=1)
        self.norm = max([self.norm, *norms.tolist()])
        return x, norms

    def running_minima(self, part: torch.Tensor) -> torch.Tensor:
        """(rows, steps + 1): column t: the distance to the nearest labeled sample or pick < t."""
        x, norms = self.rows(self.pool, part)
        steps = sum(len(index) for _, index in self.picks)
        minima = torch.full((len(part), steps + 1), math.inf, dtype=torch.float64)
        for rows, index in self.labeled:
            y, other = self.rows(rows, index)
            nearest = (other - 2 * (x @ y.T)).amin(dim=1) + norms
            minima[:, 0] = torch.minimum(minima[:, 0], nearest)
        at = 1
        for rows, index in self.picks:
            y, other = self.rows(rows, index)
            torch.mm(x, y.T, out=minima[:, at : at + len(index)]).mul_(-2).add_(other)
            minima[:, at : at + len(index)] += norms[:, None]
            at += len(index)
        return minima.clamp_(min=0).cummin(dim=1).values

    def relative(self, a: torch.Tensor, b: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """``(a - b) / reference``, 0 within the noise and between equal infinities."""
        same = (a == b) | ((a - b).abs() <= self.noise)
        return torch.where(same, 0.0, (a - b) / reference)


def as_float64(rows: Rows, index: torch.Tensor) -> torch.Tensor:
    """The rows (index,) as float64 on the CPU."""
    if isinstance(rows.array, torch.Tensor):
        return rows.array[index.to(rows.device)].to("cpu", torch.float64)
    return torch.from_numpy(rows.array[index.numpy()].astype("float64"))
