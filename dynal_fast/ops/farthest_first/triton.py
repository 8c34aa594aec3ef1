"""The primitives in Triton: the filter discards, `triton_exact` decides, `triton_traverse` picks.

The host waits for the device once in each of ``points`` (for bad rows), ``refresh`` and
``traverse`` (for their counts), nowhere else.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from dynal_fast.ops.farthest_first import reference
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels
from dynal_fast.ops.farthest_first.products import OuterProducts
from dynal_fast.ops.farthest_first.triton_exact import decide_pairs, decide_tiles
from dynal_fast.ops.farthest_first.triton_filter import BOUND, COLLECT, DISTANCES, compare
from dynal_fast.ops.farthest_first.triton_points import TritonPoints, measured, rescaled
from dynal_fast.ops.farthest_first.triton_traverse import traverse
from dynal_fast.ops.farthest_first.triton_work import cut, upper_tiles
from dynal_fast.ops.launch import interpreted, launch

HEAD = 4096  # rows in a head (README.md)
SMALLEST_BLOCK = 1024  # smaller heads take its kernel, as each size is compiled separately
# Of the filter: rows and centers of a tile, warps.
FILTER_TILE = {
    BOUND.value: (128, 128, 8),
    DISTANCES.value: (128, 64, 8),
    COLLECT.value: (64, 64, 8),
}
SMALL_TILE = (64, 64, 8)
EXACT_TILE = (32, 32)  # of `decide_tiles`: rows and centers
PAIRS = 1 << 20  # of one refresh; if more are left, it decides all pairs of its groups
UNDECIDED = 4096  # room for pairs that the host settles; more is made where it is needed


class TritonKernels(Kernels[TritonPoints]):
    """On a GPU; under ``TRITON_INTERPRET=1`` on the CPU, slowly."""

    def __init__(self, metric: str) -> None:
        self.cosine = metric == "cosine"
        self.metric = metric
        self.rounding = reference.COSINE_STEP if self.cosine else 0.0

    def points(self, rows: Rows, name: str) -> TritonPoints:
        return measured(rows, name, self.cosine)

    def scaled(self, points: TritonPoints, exponent: int) -> TritonPoints:
        return rescaled(points, exponent, self.cosine)

    def distances(
        self, x: TritonPoints, rows: Tensor, y: TritonPoints, centers: Tensor
    ) -> tuple[Tensor, Tensor]:
        shape = (len(rows), len(centers))
        lower, upper = torch.empty(2, *shape, dtype=torch.float32, device=rows.device)
        self._compare(x, y, Groups.one(rows, centers), DISTANCES.value, lower=lower, upper=upper)
        return lower, upper

    def bound(self, x: TritonPoints, y: TritonPoints, groups: Groups, bound: Tensor) -> None:
        self._compare(x, y, groups, BOUND.value, bound=bound)

    def refresh(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        first: Tensor | None,
        bound: Tensor,
        exact: Tensor,
    ) -> None:
        reach = torch.minimum(bound, exact)
        for row, center in self._decide_within(x, y, groups, reach, first=first, exact=exact):
            exact[row] = min(float(exact[row]), self._value(x, row, y, center))

    def assign(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        ranks: Tensor,
        bound: Tensor,
        keys: Tensor,
    ) -> None:
        reach = bound.clone()
        for row, center in self._decide_within(x, y, groups, reach, ranks=ranks, keys=keys):
            value = torch.tensor([self._value(x, row, y, center)])
            key = (int(value.view(torch.int32)) << 32) + int(ranks[center])
            keys[row] = min(int(keys[row]), key)

    def _decide_within(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        reach: Tensor,
        *,
        first: Tensor | None = None,
        exact: Tensor | None = None,
        ranks: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> list[list[int]]:
        """Decide the pairs within ``reach``, into ``exact`` or ``keys``; return those left open.

        ``reach`` (n,) float32 is lowered to the upper bounds of the filter first.
        """
        device, capacity = reach.device, UNDECIDED
        self._compare(x, y, groups, BOUND.value, bound=reach)
        undecided = torch.zeros((1 + capacity, 2), dtype=torch.int32, device=device)
        pairs = torch.empty((2, PAIRS), dtype=torch.int32, device=device)
        found = undecided[0, 1:]
        self._compare(
            x, y, groups, COLLECT.value, bound=reach, first=first, found=found, pairs=pairs
        )
        self.decide_pairs(x, y, pairs, found, undecided, exact=exact, ranks=ranks, keys=keys)
        left, count = undecided[0].tolist()
        decide = partial(self.decide, x, y, groups, exact=exact, ranks=ranks, keys=keys)
        if count > PAIRS:
            undecided, left = decide()
        if left > capacity:
            undecided, left = decide(capacity=left)
        return undecided[1 : 1 + left].tolist()

    def decide_pairs(
        self,
        x: TritonPoints,
        y: TritonPoints,
        pairs: Tensor,
        found: Tensor,
        undecided: Tensor,
        *,
        exact: Tensor | None = None,
        ranks: Tensor | None = None,
        keys: Tensor | None = None,
        values: Tensor | None = None,
    ) -> None:
        """Decide the first ``found`` of ``pairs`` (2, capacity), into one of the last arguments."""
        launch(
            decide_pairs,
            (_processors(pairs.device) * 16,),
            x.array,
            x.rows.stride,
            x.grains,
            y.array,
            y.rows.stride,
            y.grains,
            *pairs,
            found,
            pairs.shape[1],
            None if exact is None else exact.view(torch.int32),
            undecided,
            len(undecided) - 1,
            x.rows.columns,
            2.0**x.exponent,
            ranks,
            keys,
            values=values,
            COSINE=self.cosine,
            BP=1,
            BK=128,
            **_second_factors(x, y),
            **_second_grains(x, y),
            num_warps=1,
            enable_fp_fusion=False,
        )

    def traverse(
        self,
        x: TritonPoints,
        head: Tensor,
        outside: int,
        exact: Tensor,
        picks: Tensor,
        values: Tensor,
    ) -> int:
        size = len(head)
        head = head.sort().values

        def pick(block: Tensor, state: Tensor) -> None:
            launch(
                traverse,
                (1,),
                block,
                head,
                size,
                outside,
                exact,
                picks,
                values,
                len(picks),
                state,
                state[1:],
                **self.block_options(size),
            )

        return self.on_block(x, head, pick)

    def block_options(self, size: int) -> dict[str, Any]:
        """How to launch a kernel of one program that holds a head of ``size`` rows."""
        return {
            "BT": max(SMALLEST_BLOCK, 1 << (size - 1).bit_length()),
            "num_warps": 1 if size <= SMALLEST_BLOCK else 4,
            "registers": 255,
        }

    def on_block(
        self, x: TritonPoints, head: Tensor, pick: Callable[[Tensor, Tensor], None]
    ) -> int:
        """Pick with the decision values between ``head`` (T,) rows, in order; return how many.

        ``pick(block, state)`` launches a kernel: ``block`` (T, T) float32; ``state`` (2,) int32: it
        does nothing unless the first is 0, and stores the number of picks in the second.
        """
        size = len(head)
        block = torch.empty((size, size), dtype=torch.float32, device=head.device)
        groups = Groups.one(head, head)
        undecided, _ = self.decide(x, x, groups, block=block, wait=False)
        state, count = undecided[0], 0
        for _ in range(2):
            pick(block, state)
            left, count = state.tolist()
            if left == 0:
                break
            if left > UNDECIDED:
                undecided, left = self.decide(x, x, groups, block=block, capacity=left)
            at = torch.searchsorted(head, undecided[1 : 1 + left])
            for i, j in at.tolist():
                block[i, j] = block[j, i] = self._value(x, int(head[i]), x, int(head[j]))
            state = torch.zeros_like(state)
        return count

    def _compare(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        mode: int,
        *,
        bound: Tensor | None = None,
        first: Tensor | None = None,
        lower: Tensor | None = None,
        upper: Tensor | None = None,
        found: Tensor | None = None,
        pairs: Tensor | tuple[None, None] = (None, None),
    ) -> None:
        factors = [(x, y)]
        if x.right is not None and y.right is not None:
            factors.append((x.right, y.right))
        narrow = all(part.array.element_size() == 2 for pair in factors for part in pair)
        depth = 64 if narrow else 32
        aligned = [_aligned(*pair, depth) for pair in factors]
        scaled = any(part.filter_exponent != 0 for pair in factors for part in pair)
        wide = scaled and len(factors) > 1  # factors may leave the range of float16
        # Scaling needs registers that a large tile leaves no room for, and so do two products.
        large = len(factors) == 1 and all(aligned) and not scaled
        rows, columns, warps = FILTER_TILE[mode] if large else SMALL_TILE
        work = cut(groups, rows, columns, 2 * _processors(x.array.device))
        if len(work) == 0:
            return
        launch(
            compare,
            (len(work),),
            x.array,
            x.rows.stride,
            x.norms,
            x.tails,
            groups.rows,
            y.array,
            y.rows.stride,
            y.norms,
            y.tails,
            groups.centers,
            work.to(x.array.device, non_blocking=True),
            first,
            x.rows.columns,
            2.0**x.filter_exponent,
            1.0 if self.cosine else x.raised,
            None if bound is None else bound.view(torch.int32),
            lower,
            upper,
            len(groups.centers),
            found,
            *pairs,
            PAIRS,
            MODE=mode,
            COSINE=self.cosine,
            OPERAND=_operand(x, y, wide),
            SCALED=scaled,
            EVEN=aligned[0],
            BM=rows,
            BN=columns,
            BK=depth if all(aligned) else 32,
            y_scale=2.0**y.filter_exponent,
            y_raised=1.0 if self.cosine else y.raised,
            x_right_scale=2.0 ** factors[-1][0].filter_exponent,
            y_right_scale=2.0 ** factors[-1][1].filter_exponent,
            RIGHT_OPERAND=_operand(*factors[-1], wide),
            RIGHT_EVEN=aligned[-1],
            **_second_factors(x, y),
            num_warps=warps,
            num_stages=3,
        )

    def decide(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        *,
        exact: Tensor | None = None,
        block: Tensor | None = None,
        ranks: Tensor | None = None,
        keys: Tensor | None = None,
        capacity: int = UNDECIDED,
        wait: bool = True,
    ) -> tuple[Tensor, int]:
        """Decide every pair, into ``exact``, ``keys`` or ``block``; return the open ones."""
        device = x.array.device
        rows, columns = EXACT_TILE
        if block is None:
            work = cut(groups, rows, columns, None).to(device, non_blocking=True)
        else:
            work = upper_tiles(len(groups.rows), EXACT_TILE, device)
        undecided = torch.zeros((1 + capacity, 2), dtype=torch.int32, device=device)
        origin = groups.centers[y.norms[groups.centers].argmin(0, keepdim=True)]
        launch(
            decide_tiles,
            (len(work),),
            x.array,
            x.rows.stride,
            x.grains,
            groups.rows,
            y.array,
            y.rows.stride,
            y.grains,
            groups.centers,
            work,
            origin,
            None if exact is None else exact.view(torch.int32),
            block,
            len(groups.rows),
            undecided,
            capacity,
            x.rows.columns,
            2.0**x.exponent,
            ranks,
            keys,
            STORE=block is not None,
            COSINE=self.cosine,
            BM=rows,
            BN=columns,
            BK=32,
            **_second_factors(x, y),
            **_second_grains(x, y),
            num_warps=4,
            registers=255,
            enable_fp_fusion=False,
        )
        return undecided, int(undecided[0, 0]) if wait else 0

    def _value(self, x: TritonPoints, row: int, y: TritonPoints, center: int) -> float:
        """One decision value in rational arithmetic."""
        one, other = _values(x, row), _values(y, center)
        return float(reference.decision_values(one, other[0], self.metric, x.exponent)[0])


def _values(points: TritonPoints, row: int) -> reference.Points:
    """A row (1, d), or of outer products its factors, for the host."""
    own = points.array[row : row + 1].double().cpu().numpy()
    if points.right is None:
        return own
    return OuterProducts(own, points.right.array[row : row + 1].double().cpu().numpy())


def _second_factors(x: TritonPoints, y: TritonPoints) -> dict[str, Any]:
    """What kernels take of outer products beside the first factors."""
    if x.right is None or y.right is None:
        return {}
    return {
        "x_right": x.right.array,
        "x_right_stride": x.right.rows.stride,
        "y_right": y.right.array,
        "y_right_stride": y.right.rows.stride,
        "right_d": x.right.rows.columns,
    }


def _second_grains(x: TritonPoints, y: TritonPoints) -> dict[str, Any]:
    if x.right is None or y.right is None:
        return {}
    return {"x_right_grains": x.right.grains, "y_right_grains": y.right.grains}


def _operand(x: TritonPoints, y: TritonPoints, wide: bool) -> tl.dtype:
    """The dtype of operands on the matrix units; the interpreter has no bfloat16 arithmetic.

    ``wide``: with the exponents of float32.
    """
    dtype, other = x.array.dtype, y.array.dtype
    if dtype == other == torch.float16 and not wide:
        return tl.float16
    if dtype == other == torch.bfloat16 and not interpreted(compare):
        return tl.bfloat16
    return tl.float32


def _aligned(x: TritonPoints, y: TritonPoints, depth: int) -> bool:
    """Whether rows may be read 16 bytes and ``depth`` elements at a time, without masks."""
    return x.rows.columns % depth == 0 and all(
        points.rows.stride % 16 == 0 and points.array.data_ptr() % 16 == 0 for points in (x, y)
    )


def _processors(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 1
