"""The labeled set, compared with each pool row no further than the traversal needs.

It is clustered around some of its samples. Every pool row is compared with its few nearest
clusters only, which gives an upper bound that discards most rows for good. Of the rows that reach
a head with such a bound, a few clusters more turn many away. For the rest, the triangle
inequality spares the clusters that cannot hold the nearest labeled sample.
"""

import math
from typing import Generic

import torch

from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, P
from dynal_fast.ops.farthest_first.problem import Problem

CLUSTERED_FROM = 512  # labeled samples from which clustering them pays
# Measured at 150,000 x 512 with 25,000 labeled: few probes of large clusters win, on clustered and
# on Gaussian features, by a few per cent each way.
PROBES = 2  # clusters that every row is compared with
MORE_PROBES = 12  # clusters that a row is compared with when it first reaches a head
TILE = 2**21  # distances to clusters that are held at once
MARGIN = 1e-6  # covers the float32 roundings of square roots, differences and products
CHUNK = 2**16  # rows that are compared with their clusters in one call
# A GPU takes so many times more at once: 130 MB of distances, and fewer calls, between which it
# idles for some 50 microseconds.
ON_GPU = 8

# Values of ``applied``; from 0 on the row is exact for the labeled set and for so many picks.
ROUTED, PROBED = -2, -1


class LabeledSet(Generic[P]):
    """The clustered labeled samples of one traversal."""

    def __init__(self, problem: Problem, kernels: Kernels[P], pool: P) -> None:
        device = problem.pool.device
        self.kernels, self.pool, self.points = kernels, pool, pool
        self.members = torch.empty(0, dtype=torch.int32, device=device)
        if problem.labeled is not None:
            self.points = kernels.points(problem.labeled, "labeled")
            self.members = torch.arange(problem.labeled.size, dtype=torch.int32, device=device)
        elif problem.labeled_indices is not None:
            self.members = problem.labeled_indices.to(device, torch.int32)
        self.size = len(self.members)
        self.clusters = 1
        if self.size >= CLUSTERED_FROM:
            self.clusters = max(1, round(math.sqrt(self.size)))
        scale = ON_GPU if device.type == "cuda" else 1
        self.tile, self.chunk = max(1, scale * TILE // self.clusters), scale * CHUNK
        if self.size:
            self.cluster()

    def cluster(self) -> None:
        """Assign each labeled sample to the nearest of a random few, and sort by cluster."""
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(self.size, generator=generator)[: self.clusters]
        self.centroids = self.members[chosen.to(self.members.device)]
        nearest, radius = [], torch.zeros(self.clusters, device=self.members.device)
        for tile in self.members.split(self.tile):
            _, upper = self.kernels.distances(self.points, tile, self.points, self.centroids)
            squared, cluster = upper.min(dim=1)
            radius.scatter_reduce_(0, cluster, squared.sqrt(), "amax")
            nearest.append(cluster)
        assignment, order = torch.sort(torch.cat(nearest), stable=True)
        self.members = self.members[order]
        self.counts = torch.bincount(assignment, minlength=self.clusters)
        self.radius = radius * (1 + MARGIN)

    def route(self, candidates: torch.Tensor, bound: torch.Tensor, applied: torch.Tensor) -> None:
        """Bound every candidate by its nearest clusters."""
        if self.size == 0:
            return
        applied[candidates] = ROUTED if self.clusters > PROBES else PROBED
        for chunk in candidates.split(self.chunk):
            self.probe(chunk, bound, min(PROBES, self.clusters))

    def seed(
        self, rows: torch.Tensor, bound: torch.Tensor, exact: torch.Tensor, applied: torch.Tensor
    ) -> None:
        """Take each of ``rows`` that is not exact yet one step further."""
        if self.size == 0:
            return
        for step in rows.split(self.tile):
            progress = applied[step]
            self.compare(step[progress == PROBED], bound, exact, applied)
            routed = step[progress == ROUTED]
            if len(routed):
                self.probe(routed, bound, min(PROBES + MORE_PROBES, self.clusters))
                applied[routed] = PROBED

    def probe(self, rows: torch.Tensor, bound: torch.Tensor, probes: int) -> None:
        """Bound ``rows`` by the members of their ``probes`` nearest clusters."""
        if self.clusters == 1:
            self.kernels.bound(self.pool, self.points, Groups.one(rows, self.members), bound)
            return
        nearest = []
        for tile in rows.split(self.tile):
            lower, _ = self.kernels.distances(self.pool, tile, self.points, self.centroids)
            nearest.append(torch.topk(lower, probes, largest=False, sorted=False).indices)
        cluster, order = torch.sort(torch.cat(nearest).flatten())
        groups = self.groups(rows[order // probes], cluster)
        self.kernels.bound(self.pool, self.points, groups, bound)

    def compare(
        self, rows: torch.Tensor, bound: torch.Tensor, exact: torch.Tensor, applied: torch.Tensor
    ) -> None:
        """Make ``rows`` exact with respect to the whole labeled set, no pick applied yet."""
        if len(rows) == 0:
            return
        if self.size:
            lower, _ = self.kernels.distances(self.pool, rows, self.points, self.centroids)
            gap = lower.sqrt() * (1 - MARGIN) - self.radius
            reach = (bound[rows] + self.kernels.rounding).sqrt() * (1 + MARGIN)
            cluster, at = (gap <= reach[:, None]).t().nonzero(as_tuple=True)
            groups = self.groups(rows[at], cluster)
            self.kernels.refresh(self.pool, self.points, groups, None, bound, exact)
            bound[rows] = exact[rows]
        applied[rows] = 0

    def groups(self, rows: torch.Tensor, cluster: torch.Tensor) -> Groups:
        """One group per cluster, of the ``rows`` given with a sorted cluster number each."""
        counts = torch.bincount(cluster, minlength=self.clusters)
        return Groups(rows, counts.cumsum(0).cpu(), self.members, self.counts.cumsum(0).cpu())
