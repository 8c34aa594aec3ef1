"""The primitives in Triton: launches. What discards and what decides is that of farthest-first."""

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import triton
from dynal_fast.ops.farthest_first.kernels import Groups
from dynal_fast.ops.farthest_first.triton import TritonKernels
from dynal_fast.ops.farthest_first.triton_filter import COLLECT
from dynal_fast.ops.farthest_first.triton_points import TritonPoints
from dynal_fast.ops.kmeans_plusplus.kernels import Clocks, Fired, RaceKernels
from dynal_fast.ops.kmeans_plusplus.triton_race import race, walk
from dynal_fast.ops.launch import launch

WALKERS = 32  # rows that a program walks at once
RACERS = 256  # rows of a head in a warp: eight a thread, as float64 times take two registers each


class TritonRaceKernels(TritonKernels, RaceKernels[TritonPoints]):
    """On a GPU; under ``TRITON_INTERPRET=1`` on the CPU, slowly."""

    def advance(
        self,
        x: TritonPoints,
        rows: Tensor,
        y: TritonPoints,
        first: Tensor,
        fired: Fired,
        clocks: Clocks,
    ) -> None:
        device, count = rows.device, len(fired.rows)
        found = torch.zeros(1, dtype=torch.int32, device=device)
        pairs = torch.empty((2, triton.PAIRS), dtype=torch.int32, device=device)
        groups = Groups.one(rows, fired.rows)
        self._compare(
            x, y, groups, COLLECT.value, bound=clocks.rates, first=first, found=found, pairs=pairs
        )
        many = int(found)
        if many > triton.PAIRS:  # in two parts, the earlier picks first
            self._advance_in_parts(x, rows, y, first, fired, clocks)
            return
        values = self._values(x, y, pairs, found, many)
        row, pick = (
            _places(ids, many, part) for ids, part in ((rows, pairs[0]), (fired.rows, pairs[1]))
        )
        order = (row * count + pick).argsort()
        row, places = row[order], pick[order]
        every = torch.arange(len(rows), device=device)
        launch(
            walk,
            (-(-len(rows) // WALKERS),),
            rows,
            torch.searchsorted(row, every),
            torch.searchsorted(row, every, right=True),
            places,
            values[order],
            fired.times,
            clocks.rates,
            clocks.firing,
            len(rows),
            BR=WALKERS,
            num_warps=1,
            enable_fp_fusion=False,
        )

    def _advance_in_parts(
        self,
        x: TritonPoints,
        rows: Tensor,
        y: TritonPoints,
        first: Tensor,
        fired: Fired,
        clocks: Clocks,
    ) -> None:
        if len(fired.rows) == 1:
            for own, since in zip(rows.tensor_split(2), first.tensor_split(2), strict=True):
                self.advance(x, own, y, since, fired, clocks)
            return
        middle = len(fired.rows) // 2
        early = Fired(*(part[:middle] for part in fired))
        late = Fired(*(part[middle:] for part in fired))
        reached = int((first < middle).sum())
        if reached:
            self.advance(x, rows[:reached], y, first[:reached], early, clocks)
        self.advance(x, rows, y, (first - middle).clamp(min=0), late, clocks)

    def _values(
        self, x: TritonPoints, y: TritonPoints, pairs: Tensor, found: Tensor, many: int
    ) -> Tensor:
        """The decision values (many,) float32 of the pairs."""
        values = torch.empty(many, dtype=torch.float32, device=pairs.device)
        undecided = torch.zeros((1 + many, 2), dtype=torch.int32, device=pairs.device)
        if many:
            self.decide_pairs(x, y, pairs, found, undecided, values=values)
        for row, center in undecided[1 : 1 + int(undecided[0, 0])].tolist():
            open_ = (pairs[0, :many] == row) & (pairs[1, :many] == center)
            values[open_] = self._value(x, row, y, center)
        return values

    def race(
        self, x: TritonPoints, rows: Tensor, outside: float, fired: Fired, clocks: Clocks
    ) -> int:
        options = self.block_options(len(rows))
        options["num_warps"] = max(4, options["BT"] // RACERS)
        end = torch.tensor([outside], dtype=torch.float64, device=rows.device)

        def pick(block: Tensor, state: Tensor) -> None:
            launch(
                race,
                (1,),
                block,
                rows,
                len(rows),
                end,
                clocks.rates,
                clocks.firing,
                fired.rows,
                fired.values,
                fired.times,
                len(fired.rows),
                state,
                state[1:],
                enable_fp_fusion=False,
                **options,
            )

        return self.on_block(x, rows, pick)


def _places(ids: Tensor, many: int, values: Tensor) -> Tensor:
    """The position in ``ids``, which are distinct, of each of the first ``many`` ``values``."""
    order = ids.argsort()
    return order[torch.searchsorted(ids[order], values[:many])]
