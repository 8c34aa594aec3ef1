"""The primitives in C++: calls of the compiled kernels (``csrc/kmeans_plusplus/``)."""

from torch import Tensor

from dynal_fast import _extension
from dynal_fast.ops.farthest_first import cpu
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.kernels import Points
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels
from dynal_fast.threads import kernel_threads


class CpuRaceKernels(cpu.CpuKernels, RaceKernels[Points]):
    """On the CPU, with the compiled extension."""

    def __init__(self, pool: Rows, metric: str) -> None:
        super().__init__(pool, metric)
        self.native_race = _extension.load().kmeans_plusplus

    def advance(
        self,
        x: Points,
        rows: Tensor,
        y: Points,
        first: Tensor,
        fired: Fired,
        clocks: Clocks,
    ) -> None:
        self.prefetch(x, rows)
        unit = 0
        while unit != self.native.DONE:
            unit = self.native_race.advance(
                space=self._space(x.exponent),
                x=self._points(x),
                y=self._points(y),
                rows=rows.data_ptr(),
                first=first.data_ptr(),
                count=len(rows),
                picks=fired.rows.data_ptr(),
                times=fired.times.data_ptr(),
                pick_count=len(fired.rows),
                rates=clocks.rates.data_ptr(),
                firing=clocks.firing.data_ptr(),
                unit=unit,
                work=cpu.WORK,
                threads=kernel_threads(),
            )

    def race(self, x: Points, rows: Tensor, outside: float, fired: Fired, clocks: Clocks) -> int:
        count, done = 0, False
        while not done:
            more, done = self.native_race.race(
                space=self._space(x.exponent),
                x=self._points(x),
                rows=rows.data_ptr(),
                count=len(rows),
                outside=outside,
                rates=clocks.rates.data_ptr(),
                firing=clocks.firing.data_ptr(),
                picks=fired.rows[count:].data_ptr(),
                values=fired.values[count:].data_ptr(),
                times=fired.times[count:].data_ptr(),
                limit=len(fired.rows) - count,
                work=cpu.WORK,
                threads=kernel_threads(),
            )
            count += more
        return count
