"""The primitives on the CPU: the compiled kernels of ``csrc/farthest_first/``."""

from collections.abc import Callable

import numpy as np
import torch

from dynal_fast import _extension
from dynal_fast.ops import dtypes
from dynal_fast.ops.farthest_first import contract, heads, reference
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.kernels import Groups, Points
from dynal_fast.threads import kernel_threads

SAMPLED = 1024  # rows whose mean centers the data for the filter
HEAD_VALUES = 2**19  # values in a head: with few dimensions more rows cost no more
HEAD_BYTES = 2**26  # of a head's rows, which a call packs anew, at most
WORK = 2**34  # multiplications in one call, a fraction of a second: Ctrl-C is seen in between


def head_rows(columns: int) -> int:
    """Rows in a head. Where samples lie dense, as they do in few dimensions, a pick spoils many."""
    return max(1, min(max(heads.HEAD, HEAD_VALUES // columns), HEAD_BYTES // 4 // columns))


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
                with np.errstate(all="ignore"):  # bad values are reported by `points`
                    self.mean = torch.from_numpy(sample.mean(axis=0, dtype=np.float64)).float()
            self.mean.nan_to_num_(0, 0, 0)

    def points(self, rows: Rows, name: str) -> Points:
        none = torch.empty(0, dtype=torch.float64)
        native = self._points(Points(rows, none, none, none, 0.0))
        measured, largest = torch.empty(rows.size, dtype=torch.float64), 0.0
        step = max(1, WORK // 64 // self.columns)
        for begin in range(0, rows.size, step):
            end = min(begin + step, rows.size)
            measures = np.empty((end - begin, 3))  # Measure in csrc/farthest_first/farthest_first.h
            self.native.measure(
                self._space(0), native, begin, end, measures.ctypes.data, kernel_threads()
            )
            squared, centered = measures[:, 0], measures[:, 1]
            bad = contract.bad_squared_norms(squared, self.metric)
            if bad.any():
                at = int(np.argmax(bad))
                raise contract.bad_row(name, begin + at, float(squared[at]))
            largest = max(largest, float(measures[:, 2].max()))
            measured[begin:end] = torch.from_numpy(squared if self.metric == "cosine" else centered)
        if self.metric == "cosine":  # a row times its scale has length 1 / sqrt(2)
            norms, scales = torch.full((rows.size,), 0.5), 1 / (2 * measured).sqrt()
            return Points(rows, norms, scales, none, largest)
        return Points(rows, measured.float(), none, measured, largest)

    def scaled(self, points: Points, exponent: int) -> Points:
        if self.metric == "euclidean" and points.exponent != exponent:
            norms = (points.squares * 4.0**exponent).float()
            return points._replace(norms=norms, exponent=exponent)
        return points

    def distances(
        self, x: Points, rows: torch.Tensor, y: Points, centers: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups = Groups.one(rows, centers)  # must outlive the call, which sees addresses only
        lower = torch.empty(len(rows), len(centers))
        upper = torch.empty_like(lower)
        self._in_shares(
            self.native.distances,
            self._space(x.exponent),
            self._points(x),
            self._points(y),
            self._groups(groups),
            lower.data_ptr(),
            upper.data_ptr(),
        )
        return lower, upper

    def bound(self, x: Points, y: Points, groups: Groups, bound: torch.Tensor) -> None:
        self._in_shares(
            self.native.bound,
            self._space(x.exponent),
            self._points(x),
            self._points(y),
            self._groups(groups),
            bound.data_ptr(),
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
        self._in_shares(
            self.native.refresh,
            self._space(x.exponent),
            self._points(x),
            self._points(y),
            self._groups(groups),
            0 if first is None else first.data_ptr(),
            bound.data_ptr(),
            exact.data_ptr(),
        )

    def assign(
        self,
        x: Points,
        y: Points,
        groups: Groups,
        ranks: torch.Tensor,
        bound: torch.Tensor,
        keys: torch.Tensor,
    ) -> None:
        self._in_shares(
            self.native.assign,
            self._space(x.exponent),
            self._points(x),
            self._points(y),
            self._groups(groups),
            ranks.data_ptr(),
            bound.data_ptr(),
            keys.data_ptr(),
        )

    def _in_shares(self, primitive: Callable[..., int], *arguments: object) -> None:
        """Call a primitive until nothing is left to do, ``WORK`` at a time."""
        unit, threads = 0, kernel_threads()
        while unit != self.native.DONE:
            unit = primitive(*arguments, unit, WORK, threads)

    def traverse(
        self,
        x: Points,
        head: torch.Tensor,
        outside: int,
        exact: torch.Tensor,
        picks: torch.Tensor,
        values: torch.Tensor,
    ) -> int:
        count, done = 0, False
        while not done:
            more, done = self.native.traverse(
                self._space(x.exponent),
                self._points(x),
                head.data_ptr(),
                len(head),
                outside,
                exact.data_ptr(),
                picks[count:].data_ptr(),
                values[count:].data_ptr(),
                len(picks) - count,
                WORK,
                kernel_threads(),
            )
            count += more
        return count

    def _space(self, exponent: int) -> object:
        cosine = self.metric == "cosine"
        return self.native.Space(self.columns, cosine, self.mean.data_ptr(), exponent)

    def _points(self, points: Points) -> object:
        rows = points.rows
        item = rows.dtype.itemsize
        aligned = rows.address % item == 0 and rows.row_bytes % item == 0
        return self.native.Points(
            rows.address,
            rows.row_bytes,
            rows.column_bytes,
            dtypes.code(rows.dtype),
            rows.swapped,
            aligned and rows.column_bytes == item and not rows.swapped,
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
