"""The primitives on the CPU: the compiled kernels of ``csrc/farthest_first.*``."""

from collections.abc import Iterator

import numpy as np
import torch

from dynal_fast import _extension
from dynal_fast.ops.farthest_first import checks, heads, reference
from dynal_fast.ops.farthest_first.checks import Rows
from dynal_fast.ops.farthest_first.kernels import Groups, Points

DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
SAMPLED = 1024  # rows whose mean centers the data for the filter
HEAD_VALUES = 2**19  # values in a head: with few dimensions more rows cost no more
WORK = 2**34  # multiplications in one call, a fraction of a second: Ctrl-C is seen in between
BLOCK = 512  # rows and centers in one call, at least: fewer would not fill the kernel's blocks


def head_rows(columns: int) -> int:
    """Rows in a head. Where samples lie dense, as they do in few dimensions, a pick spoils many."""
    return max(heads.HEAD, HEAD_VALUES // columns)


class CpuKernels:
    """See ``kernels.Kernels``."""

    def __init__(self, pool: Rows, metric: str) -> None:
        self.metric, self.columns = metric, pool.columns
        self.rounding = reference.COSINE_STEP if metric == "cosine" else 0.0
        self.native = _extension.load().farthest_first
        # The filter's error grows with the norms, and distances do not change with the origin.
        # Which rows are sampled changes the filter's speed, never a result.
        self.mean = torch.zeros(pool.columns)
        if metric == "euclidean" and pool.size:
            step = -(-pool.size // SAMPLED)
            sample = pool.array[::step]
            if isinstance(sample, torch.Tensor):
                self.mean = sample.to(torch.float64).mean(dim=0).float()
            else:
                self.mean = torch.from_numpy(sample.mean(axis=0, dtype=np.float64)).float()
            self.mean.nan_to_num_(0, 0, 0)  # bad values are reported by `points`
        self.space = self.native.Space(pool.columns, metric == "cosine", self.mean.data_ptr())

    def points(self, rows: Rows, name: str) -> Points:
        scaled = rows.size if self.metric == "cosine" else 0
        points = Points(rows, torch.empty(rows.size), torch.empty(scaled, dtype=torch.float64))
        native = self._points(points)
        step = max(1, WORK // 64 // self.columns)
        for begin in range(0, rows.size, step):
            end = min(begin + step, rows.size)
            norms = np.empty(end - begin)
            self.native.measure(
                self.space, native, begin, end, norms.ctypes.data, torch.get_num_threads()
            )
            bad = checks.bad_squared_norms(norms, self.metric)
            if bad.any():
                at = int(np.argmax(bad))
                raise checks.bad_row(name, begin + at, float(norms[at]))
        return points

    def distances(
        self, x: Points, rows: torch.Tensor, y: Points, centers: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups = Groups.one(rows, centers)  # must outlive the call, which sees addresses only
        lower = torch.empty(len(rows), len(centers))
        upper = torch.empty_like(lower)
        self.native.distances(
            self.space,
            self._points(x),
            self._points(y),
            self._groups(groups),
            lower.data_ptr(),
            upper.data_ptr(),
            torch.get_num_threads(),
        )
        return lower, upper

    def bound(self, x: Points, y: Points, groups: Groups, bound: torch.Tensor) -> None:
        for part in self._parts(groups):
            self.native.bound(
                self.space,
                self._points(x),
                self._points(y),
                self._groups(part),
                bound.data_ptr(),
                torch.get_num_threads(),
            )

    def refresh(
        self,
        x: Points,
        y: Points,
        groups: Groups,
        first: torch.Tensor | None,
        bound: torch.Tensor,
        exact: torch.Tensor,
    ) -> None:
        if first is None:
            for part in self._parts(groups):
                self._refresh(x, y, part, None, bound, exact)
            return
        for rows, center, part in self._blocks(groups.rows, groups.centers):
            start = (first[rows] - center).to(torch.int32)
            self._refresh(x, y, part, start, bound, exact)

    def _refresh(
        self,
        x: Points,
        y: Points,
        groups: Groups,
        first: torch.Tensor | None,
        bound: torch.Tensor,
        exact: torch.Tensor,
    ) -> None:
        self.native.refresh(
            self.space,
            self._points(x),
            self._points(y),
            self._groups(groups),
            0 if first is None else first.data_ptr(),
            bound.data_ptr(),
            exact.data_ptr(),
            torch.get_num_threads(),
        )

    def traverse(
        self,
        x: Points,
        head: torch.Tensor,
        outside: int,
        exact: torch.Tensor,
        picks: torch.Tensor,
        values: torch.Tensor,
    ) -> int:
        return self.native.traverse(
            self.space,
            self._points(x),
            head.data_ptr(),
            len(head),
            outside,
            exact.data_ptr(),
            picks.data_ptr(),
            values.data_ptr(),
            len(picks),
            torch.get_num_threads(),
        )

    def _points(self, points: Points) -> object:
        return self.native.Points(
            points.rows.address,
            points.rows.stride,
            DTYPES[points.rows.dtype],
            points.norms.data_ptr(),
            points.scales.data_ptr(),
        )

    def _groups(self, groups: Groups) -> object:
        return self.native.Groups(
            len(groups.row_ends),
            groups.rows.data_ptr(),
            groups.row_ends.data_ptr(),
            groups.centers.data_ptr(),
            groups.center_ends.data_ptr(),
        )

    def _parts(self, groups: Groups) -> Iterator[Groups]:
        """The same work in calls of about ``WORK`` multiplications at most."""
        row_counts = torch.diff(groups.row_ends, prepend=torch.zeros(1, dtype=torch.int64))
        center_counts = torch.diff(groups.center_ends, prepend=torch.zeros(1, dtype=torch.int64))
        work = (row_counts * center_counts).cumsum(0) * self.columns
        begin, row, center = 0, 0, 0
        while begin < len(work):
            before = int(work[begin - 1]) if begin else 0
            end = max(begin + 1, int((work <= before + WORK).sum()))
            row_end, center_end = int(groups.row_ends[end - 1]), int(groups.center_ends[end - 1])
            rows, centers = groups.rows[row:row_end], groups.centers[center:center_end]
            if end == begin + 1:
                for _, _, part in self._blocks(rows, centers):
                    yield part
            else:
                row_ends = groups.row_ends[begin:end] - row
                yield Groups(rows, row_ends, centers, groups.center_ends[begin:end] - center)
            begin, row, center = end, row_end, center_end

    def _blocks(
        self, rows: torch.Tensor, centers: torch.Tensor
    ) -> Iterator[tuple[slice, int, Groups]]:
        """One group in calls of about ``WORK``: which of its rows, from which center on."""
        width = max(BLOCK, WORK // (max(len(rows), 1) * self.columns))
        height = max(BLOCK, WORK // (min(width, max(len(centers), 1)) * self.columns))
        for center in range(0, len(centers), width):
            for row in range(0, len(rows), height):
                part = slice(row, row + height)
                yield part, center, Groups.one(rows[part], centers[center : center + width])
