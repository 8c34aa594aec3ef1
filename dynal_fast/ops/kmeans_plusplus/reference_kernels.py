"""The primitives by their definition, in float64 on the CPU: what those of every device must do."""

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.kernels import Points
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels
from dynal_fast.ops.kmeans_plusplus import reference
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels


class ReferenceRaceKernels(ReferenceKernels, RaceKernels[Points]):
    """Picks are applied one after the other."""

    def advance(
        self,
        x: Points,
        rows: Tensor,
        y: Points,
        first: Tensor,
        fired: Fired,
        clocks: Clocks,
    ) -> None:
        for position, (pick, time) in enumerate(
            zip(fired.rows.tolist(), fired.times.tolist(), strict=True)
        ):
            self._apply(x, rows[first <= position], y, pick, time, clocks)

    def race(self, x: Points, rows: Tensor, outside: float, fired: Fired, clocks: Clocks) -> int:
        for count in range(len(fired.rows)):
            pick = int(rows[int(np.argmin(clocks.firing[rows].numpy()))])
            time = float(clocks.firing[pick])
            if not time < outside:
                return count
            fired.rows[count], fired.values[count] = pick, clocks.rates[pick]
            fired.times[count] = time
            clocks.rates[pick], clocks.firing[pick] = 0, torch.inf
            self._apply(x, rows, x, pick, time, clocks)
        return len(fired.rows)

    def _apply(
        self, x: Points, rows: Tensor, y: Points, pick: int, time: float, clocks: Clocks
    ) -> None:
        rates, firing = clocks.rates[rows].numpy(), clocks.firing[rows].numpy()
        values = self.values(x, rows, y, pick).numpy()
        reference.slow_down(firing, rates, values, time)
        clocks.rates[rows], clocks.firing[rows] = torch.from_numpy(rates), torch.from_numpy(firing)
