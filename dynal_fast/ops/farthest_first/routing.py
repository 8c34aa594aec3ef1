"""The labeled set, clustered, so that most pool rows are compared with little of it.

Every pool row is compared with the members of its few nearest clusters, which gives an upper bound
that discards most rows for good. Rows that reach a head are compared with a few more clusters,
which sends many of them back. For the rest, the triangle inequality excludes the clusters that
cannot hold the nearest labeled sample.
"""

import copy
import math
from typing import Any, Generic

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.kernels import Clusters, Groups, Kernels, P

CLUSTERED_FROM = 512  # fewer labeled samples are one cluster
PROBES = 2  # clusters that every row is compared with
MORE_PROBES = 12  # clusters that a row is compared with when it first reaches a head
TILE = 2**21  # distances to centroids that are held at once
MARGIN = 1e-6  # covers the float32 roundings of square roots, differences and products
CHUNK = 2**16  # rows that are compared with their clusters in one call
ON_GPU = 8  # a GPU takes so many times more rows at once, for fewer calls

# How far a row has come with a set: compared with a few clusters, with some more, with all.
ROUTED, PROBED, EXACT = 0, 1, 2


class Centers(Generic[P]):
    """Samples in clusters: the labeled ones of a traversal, or the centers of an assignment."""

    def __init__(
        self, kernels: Kernels[P], pool: P, points: P, members: Tensor, many: int = 0
    ) -> None:
        device = members.device
        self.kernels, self.pool = kernels, pool
        self.points, self.members = points, members  # rows of points (m,) int32
        self.size = len(self.members)  # at least 1
        self.clusters = 1
        self.kept: Any = None  # what `Kernels.keep` made of the clusters
        if self.size >= (many or CLUSTERED_FROM):
            self.clusters = max(1, round(math.sqrt(self.size)))
        scale = ON_GPU if device.type == "cuda" else 1
        self.tile, self.chunk = max(1, scale * TILE // self.clusters), scale * CHUNK
        if self.clusters > 1:
            self.cluster()

    def cluster(self) -> None:
        """Choose random members as centroids, and sort all members by their nearest one."""
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(self.size, generator=generator)[: self.clusters]
        self.centroids = self.members[chosen.to(self.members.device)]
        nearest, radius = [], torch.zeros(self.clusters, device=self.members.device)
        for tile in self.members.split(self.tile):
            upper = self.kernels.distances(self.points, tile, self.points, self.centroids)[1]
            squared, cluster = upper.min(dim=1)
            del upper  # before those of the next tile
            radius.scatter_reduce_(0, cluster, squared.sqrt(), "amax")
            nearest.append(cluster)
        assignment, order = torch.sort(torch.cat(nearest), stable=True)
        self.members = self.members[order]
        self.ends = torch.bincount(assignment, minlength=self.clusters).cumsum(0).cpu()
        self.radius = radius * (1 + MARGIN)
        self.held = Clusters(self.points, self.centroids, self.members, self.ends)
        self.kept = self.kernels.keep(self.held)

    def begin(self) -> None:
        """Note how far each row of the pool has come: ``stage`` (n,) int8."""
        stage = ROUTED if self.clusters > PROBES else PROBED
        n, device = self.pool.rows.size, self.members.device
        self.stage = torch.full((n,), stage, dtype=torch.int8, device=device)

    def copy(self) -> "Centers[P]":
        """A copy of all that changes after `begin`."""
        other = copy.copy(self)
        other.stage = self.stage.clone()
        return other

    def route(self, candidates: Tensor, bound: Tensor) -> None:
        """Bound every candidate by its nearest clusters.

        From the end: of a file that exceeds the memory, what was measured last is still there.
        """
        for chunk in reversed(candidates.split(self.chunk)):
            self.probe(chunk, bound, min(PROBES, self.clusters))

    def promote(self, rows: Tensor, bound: Tensor, exact: Tensor) -> None:
        """Take each of ``rows`` one step on: from routed to probed, from probed to exact."""
        for step in rows.split(self.tile):
            stage = self.stage[step]
            self.make_exact(step[stage == PROBED], bound, exact)
            routed = step[stage == ROUTED]
            if len(routed):
                self.probe(routed, bound, min(PROBES + MORE_PROBES, self.clusters))
                self.stage[routed] = PROBED

    def probe(self, rows: Tensor, bound: Tensor, probes: int) -> None:
        """Bound ``rows`` by the members of their ``probes`` nearest clusters."""
        if self.clusters == 1:
            self.kernels.bound(self.pool, self.points, Groups.one(rows, self.members), bound)
            return
        if self.kept is not None and self.kernels.probe(
            self.pool, rows, self.held, self.kept, probes, bound
        ):
            return
        nearest = []
        for tile in rows.split(self.tile):
            lower = self.kernels.distances(self.pool, tile, self.points, self.centroids)[0]
            nearest.append(torch.topk(lower, probes, largest=False, sorted=False).indices)
            del lower  # before those of the next tile
        cluster, order = torch.sort(torch.cat(nearest).flatten())
        groups = self.groups(rows[order // probes], cluster)
        self.kernels.bound(self.pool, self.points, groups, bound)

    def make_exact(self, rows: Tensor, bound: Tensor, exact: Tensor) -> None:
        """Make ``rows`` exact for the whole set."""
        if len(rows) == 0:
            return
        groups = self.reaching(rows, bound)
        self.kernels.refresh(self.pool, self.points, groups, None, bound, exact)
        bound[rows] = torch.minimum(bound[rows], exact[rows])
        self.stage[rows] = EXACT

    def assign(self, rows: Tensor, ranks: Tensor, bound: Tensor, keys: Tensor) -> None:
        """Lower the ``keys`` of rows to those of their nearest members (see ``Kernels.assign``)."""
        if self.clusters > PROBES:
            self.probe(rows, bound, PROBES)
        groups = self.reaching(rows, bound)
        self.kernels.assign(self.pool, self.points, groups, ranks, bound, keys)

    def reaching(self, rows: Tensor, bound: Tensor) -> Groups:
        """Group ``rows`` with the clusters that may have members within their ``bound``."""
        if self.clusters == 1:
            return Groups.one(rows, self.members)
        gap = self.kernels.distances(self.pool, rows, self.points, self.centroids)[0]
        gap.sqrt_().mul_(1 - MARGIN).sub_(self.radius)
        reach = (bound[rows] + self.kernels.rounding).sqrt() * (1 + MARGIN)
        cluster, at = (gap <= reach[:, None]).t().nonzero(as_tuple=True)
        return self.groups(rows[at], cluster)

    def groups(self, rows: Tensor, cluster: Tensor) -> Groups:
        """One group per cluster; ``cluster`` holds the number of each row's cluster, sorted."""
        counts = torch.bincount(cluster, minlength=self.clusters)
        return Groups(rows, counts.cumsum(0).cpu(), self.members, self.ends, self.kept)
