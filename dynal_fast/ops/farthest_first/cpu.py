"""The primitives in C++: calls of the compiled kernels (``csrc/farthest_first/``)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast import _extension
from dynal_fast.ops import dtypes
from dynal_fast.ops.farthest_first import contract, heads, reference
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.kernels import (
    Cluster,
    Clusters,
    Groups,
    Kernels,
    Known,
    Points,
)
from dynal_fast.ops.farthest_first.mapped import is_mapped_file
from dynal_fast.ops.farthest_first.reference_kernels import products_of
from dynal_fast.ops.farthest_first.routing import EXACT
from dynal_fast.threads import kernel_threads

MEASURED = 2**17  # rows at once, at most
SAMPLED = 1024  # rows whose mean the filter subtracts
HEAD_VALUES = 2**19  # elements in a head: in few dimensions it may have more rows
HEAD_BYTES = 2**26  # at most, as every call packs the rows of a head anew
KEPT_BYTES = 2**27  # of packed centers that are kept, at most, and
KEPT_SHARE = 0.5  # so many centers for each row of the pool: they take two bytes an element
SMALL = 2**13  # candidates that are picked from in one call, with heads of
SMALL_HEAD = 256  # rows each
ROUNDS = 64  # in one call
GUESSED, IN_ORDER, TOLD = range(3)  # Order in csrc/farthest_first/reading.h
WORK = 2**34  # multiplications in one call, a fraction of a second: Ctrl-C is seen between calls


def head_rows(columns: int) -> int:
    """Rows in a head: more in few dimensions, where one pick lowers many bounds."""
    return max(1, min(max(heads.HEAD, HEAD_VALUES // columns), HEAD_BYTES // 4 // columns))


class CpuKernels(Kernels[Points]):
    """On the CPU, with the compiled extension."""

    def __init__(self, pool: Rows, metric: str) -> None:
        self.metric, self.pool = metric, pool
        self.rounding = reference.COSINE_STEP if metric == "cosine" else 0.0
        self.in_files: list[Rows] = []  # that lie in mapped files
        self.native = _extension.load().farthest_first
        if is_mapped_file(pool):
            self._expect(pool, TOLD)
        # The filter subtracts this mean, as its error grows with the norms. Which rows are sampled
        # affects its speed, never a result.
        self.mean = torch.zeros(pool.columns)
        if metric == "euclidean" and pool.size and pool.right is None:
            step = -(-pool.size // SAMPLED)
            sample = pool.array[::step]
            if isinstance(sample, Tensor):
                self.mean = sample.to(torch.float64).mean(dim=0).float()
            else:
                with np.errstate(all="ignore"):  # `points` reports bad values
                    self.mean = torch.from_numpy(sample.mean(axis=0, dtype=np.float64)).float()
            self.mean.nan_to_num_(0, 0, 0)

    def points(self, rows: Rows, name: str) -> Points:
        if not is_mapped_file(rows):
            return self._points_of(rows, name)
        self.in_files.append(rows)
        self._expect(rows, IN_ORDER)
        points = self._points_of(rows, name)
        self._expect(rows, TOLD)
        return points

    def _expect(self, rows: Rows, order: int) -> None:
        self.native.expect(self._matrix(rows), rows.columns, rows.size, order)

    def __del__(self) -> None:
        for rows in self.in_files:
            self._expect(rows, GUESSED)

    def prefetch(self, x: Points, rows: Tensor) -> None:
        """Start to read ``rows`` (R,) int32 where they lie in a file: they are needed next."""
        if any(x.rows is known for known in self.in_files):
            matrix = self._matrix(x.rows)
            self.native.prefetch(matrix, x.rows.columns, rows.data_ptr(), len(rows))

    def _points_of(self, rows: Rows, name: str) -> Points:
        if rows.right is not None:
            return products_of(self._measured, rows, name)
        return self._measured(rows, name)

    def _measured(self, rows: Rows, name: str) -> Points:
        mean = self.mean if self.pool.right is None else torch.zeros(rows.columns)
        none = torch.empty(0, dtype=torch.float64)
        native = self._points(Points(rows, none, none, none, 0.0))
        measured, largest = torch.empty(rows.size, dtype=torch.float64), 0.0
        step = max(1, min(MEASURED, WORK // 64 // rows.columns))
        for begin in range(0, rows.size, step):
            end = min(begin + step, rows.size)
            measures = np.empty((end - begin, 3))  # Measure in csrc/farthest_first/farthest_first.h
            self.native.measure(
                space=self._plain_space(rows.columns, mean, 0),
                points=native,
                begin=begin,
                end=end,
                measures=measures.ctypes.data,
                threads=kernel_threads(),
            )
            squared, centered = measures[:, 0], measures[:, 1]
            bad = contract.bad_squared_norms(squared, self.metric)
            if bad.any():
                at = int(np.argmax(bad))
                raise contract.bad_row(name, begin + at, float(squared[at]))
            largest = max(largest, float(measures[:, 2].max()))
            measured[begin:end] = torch.from_numpy(squared if self.metric == "cosine" else centered)
        norms = torch.empty(0)  # of cosine: a row times its scale has length 1 / sqrt(2)
        if self.metric == "cosine":
            return Points(rows, norms, measured.mul_(2).sqrt_().reciprocal_(), none, largest)
        return Points(rows, norms, none, measured, largest)

    def scaled(self, points: Points, exponent: int) -> Points:
        if self.metric == "cosine" or (len(points.norms) and points.exponent == exponent):
            return points
        measured = points if len(points.squares) else self.points(points.rows, "pool")
        norms = torch.empty(points.rows.size)
        for part, squares in zip(
            norms.split(MEASURED), measured.squares.split(MEASURED), strict=True
        ):
            part[:] = squares * 4.0**exponent
        none = torch.empty(0, dtype=torch.float64)  # the squares take twice the room of the norms
        return points._replace(norms=norms, squares=none, exponent=exponent)

    def distances(
        self, x: Points, rows: Tensor, y: Points, centers: Tensor
    ) -> tuple[Tensor, Tensor]:
        groups = Groups.one(rows, centers)  # must outlive the call, which gets addresses
        lower = torch.empty(len(rows), len(centers))
        upper = torch.empty_like(lower)
        self._in_shares(self.native.distances, x, y, groups, lower=lower, upper=upper)
        return lower, upper

    def bound(self, x: Points, y: Points, groups: Groups, bound: Tensor) -> None:
        self._in_shares(self.native.bound, x, y, groups, bound=bound)

    def refresh(
        self,
        x: Points,
        y: Points,
        groups: Groups,
        first: Tensor | None,
        bound: Tensor,
        exact: Tensor,
    ) -> None:
        refresh = partial(self.native.refresh, clusters=groups.kept)
        self._in_shares(refresh, x, y, groups, first=first, bound=bound, exact=exact)

    def assign(
        self, x: Points, y: Points, groups: Groups, ranks: Tensor, bound: Tensor, keys: Tensor
    ) -> None:
        assign = partial(self.native.assign, clusters=groups.kept)
        self._in_shares(assign, x, y, groups, ranks=ranks, bound=bound, keys=keys)

    def keep(self, clusters: Clusters[Points]) -> Any:
        points, count = clusters.points, len(clusters.members)
        space = self._space(points.exponent)
        most = min(KEPT_BYTES // (2 * self.pool.held), int(KEPT_SHARE * self.pool.size))
        if count > most or not self.native.packs(space):
            return None
        return self.native.Clusters(
            space=space,
            y=self._points(points),
            centroids=clusters.centroids.data_ptr(),
            members=clusters.members.data_ptr(),
            ends=clusters.ends.data_ptr(),
            count=len(clusters.ends),
            threads=kernel_threads(),
        )

    def probe(
        self,
        x: Points,
        rows: Tensor,
        clusters: Clusters[Points],
        kept: Any,
        probes: int,
        bound: Tensor,
    ) -> bool:
        if not kept.usable:
            return False
        self.prefetch(x, rows)
        unit, threads = 0, kernel_threads()
        while unit != self.native.DONE:
            unit = self.native.probe(
                space=self._space(x.exponent),
                x=self._points(x),
                y=self._points(clusters.points),
                rows=rows.data_ptr(),
                count=len(rows),
                clusters=kept,
                probes=probes,
                bound=bound.data_ptr(),
                unit=unit,
                work=WORK,
                threads=threads,
            )
        return True

    def _in_shares(
        self,
        primitive: Callable[..., int],
        x: Points,
        y: Points,
        groups: Groups,
        **arrays: Tensor | None,
    ) -> None:
        """Call a primitive until nothing is left to do, ``WORK`` at a time."""
        self.prefetch(x, groups.rows)
        pairs = {
            "space": self._space(x.exponent),
            "x": self._points(x),
            "y": self._points(y),
            "groups": self._groups(groups),
        }
        addresses = {name: 0 if a is None else a.data_ptr() for name, a in arrays.items()}
        unit, threads = 0, kernel_threads()
        while unit != self.native.DONE:
            unit = primitive(**pairs, **addresses, unit=unit, work=WORK, threads=threads)

    def traverse(
        self, x: Points, head: Tensor, outside: int, exact: Tensor, picks: Tensor, values: Tensor
    ) -> int:
        count, done = 0, False
        while not done:
            more, done = self.native.traverse(
                space=self._space(x.exponent),
                x=self._points(x),
                head=head.data_ptr(),
                count=len(head),
                outside=outside,
                exact=exact.data_ptr(),
                picks=picks[count:].data_ptr(),
                values=values[count:].data_ptr(),
                limit=len(picks) - count,
                work=WORK,
                threads=kernel_threads(),
            )
            count += more
        return count

    def at_once(self, candidates: int) -> bool:
        return candidates <= SMALL

    def rounds(
        self, x: Points, clusters: list[Cluster[Points]], known: Known, count: int
    ) -> tuple[int, float | None]:
        count, left, done = self.native.rounds(
            space=self._space(x.exponent),
            x=self._points(x),
            clusters=[
                self.native.Cluster(
                    points=self._points(each.points),
                    members=each.members.data_ptr(),
                    count=len(each.members),
                    stage=each.stage.data_ptr(),
                    exact=EXACT,
                )
                for each in clusters
            ],
            candidate_count=len(known.candidates),
            count=count,
            limit=len(known.picks),
            head=min(SMALL_HEAD, head_rows(self.pool.held)),
            most=ROUNDS,
            threads=kernel_threads(),
            **{name: array.data_ptr() for name, array in known._asdict().items()},
        )
        return count, left if done else None

    def _space(self, exponent: int) -> object:
        pool = self.pool
        if pool.right is not None:
            return self.native.Space.of_products(
                left=pool.columns, right=pool.right.columns, exponent=exponent
            )
        return self._plain_space(pool.columns, self.mean, exponent)

    def _plain_space(self, columns: int, mean: Tensor, exponent: int) -> object:
        cosine = self.metric == "cosine"
        return self.native.Space(
            columns=columns, cosine=cosine, mean=mean.data_ptr(), exponent=exponent
        )

    def _points(self, points: Points) -> object:
        right = points.rows.right
        return self.native.Points(
            matrix=self._matrix(points.rows),
            norms=points.norms.data_ptr(),
            scales=points.scales.data_ptr(),
            right=None if right is None else self._matrix(right),
            left_exponent=points.left_exponent,
        )

    def _matrix(self, rows: Rows) -> object:
        item = rows.dtype.itemsize
        aligned = rows.address % item == 0 and rows.row_bytes % item == 0
        return self.native.Matrix(
            data=rows.address,
            row_bytes=rows.row_bytes,
            column_bytes=rows.column_bytes,
            dtype=dtypes.code(rows.dtype),
            swapped=rows.swapped,
            in_place=aligned and rows.column_bytes == item and not rows.swapped,
        )

    def _groups(self, groups: Groups) -> object:
        return self.native.Groups(
            count=len(groups.row_ends),
            rows=groups.rows.data_ptr(),
            row_ends=groups.row_ends.data_ptr(),
            centers=groups.centers.data_ptr(),
            center_ends=groups.center_ends.data_ptr(),
        )
