"""The primitives of the exact algorithm on GPUs, as Triton kernels.

``triton_filter.py`` discards, ``triton_exact.py`` decides, ``triton_traverse.py`` picks. Nothing
here waits for the device except ``points`` (once, for bad rows), ``refresh`` and ``traverse``
(once each, for their counts).
"""

import struct
import warnings
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
import triton.language as tl

from dynal_fast.ops.farthest_first import contract, reference
from dynal_fast.ops.farthest_first.contract import Rows
from dynal_fast.ops.farthest_first.kernels import Groups
from dynal_fast.ops.farthest_first.triton_exact import decide_pairs, decide_tiles
from dynal_fast.ops.farthest_first.triton_filter import (
    BOUND,
    COLLECT,
    DISTANCES,
    compare,
    measure,
)
from dynal_fast.ops.farthest_first.triton_traverse import traverse
from dynal_fast.ops.launch import interpreted, launch

# Rows in a head. Counted: a head costs the host some 70 launches and 5 waits, about 1 ms, and its
# block 35 us at 2,048, 0.3 ms at 4,096; a pick 0.35 us at 1,024, 1 us at 4,096. With 1,024, 2,048
# or 4,096 rows, 150,000 x 512 clustered features take 11, 6 or 4 heads for 25,000 labeled and k =
# 4,000, some 15, 11 or 12 ms with routing; one start and k = 15,000 take 420, 220 or 110 heads,
# some 430, 240 or 160 ms, beside 1.4 s of a matrix-vector product and six small kernels a pick.
HEAD = 4096
SMALLEST_BLOCK = 1024  # smaller heads take its kernel too: each size would be compiled for itself
# Rows and centers of a block of the filter, and its warps.
FILTER_TILE = {
    BOUND.value: (128, 128, 8),
    DISTANCES.value: (128, 64, 8),
    COLLECT.value: (64, 64, 8),
}
SMALL_TILE = (64, 64, 8)
EXACT_TILE = (32, 32)  # and of exact decision values
PAIRS = 1 << 20  # pairs that one refresh lists; if there are more, it decides all
UNDECIDED = 4096  # pairs that rational arithmetic is expected to settle at most


class TritonPoints(NamedTuple):
    """Embeddings on the device, with what the kernels need to know of each row."""

    rows: Rows  # (n, d)
    array: torch.Tensor  # (n, d): the same
    norms: torch.Tensor  # (n,) float32: squared norms; cosine: inverse norms
    tails: torch.Tensor  # (n,) float32: what the matrix units may cut off of a row
    grains: torch.Tensor  # (n,) float32: a power of two that divides every element
    largest: float  # the largest magnitude of an element
    exponent: int = 0  # decision values are in units of 4^-exponent (reference.py)
    filter_exponent: int = 0  # the filter multiplies rows by two to the power of this


class TritonKernels:
    """See ``kernels.Kernels``. Under ``TRITON_INTERPRET=1`` it takes tensors on the CPU."""

    def __init__(self, metric: str) -> None:
        self.cosine = metric == "cosine"
        self.metric = metric
        self.rounding = reference.COSINE_STEP if self.cosine else 0.0

    def points(self, rows: Rows, name: str) -> TritonPoints:
        contract.check_contiguous(rows, name)
        array = rows.array
        if isinstance(array, np.ndarray):
            with warnings.catch_warnings():  # of arrays that are read only, as this only reads
                warnings.simplefilter("ignore")
                array = torch.from_numpy(array)
        measured, found = self.measure(array, rows.stride)
        row, largest = found.tolist()
        if row < len(array):
            raise contract.bad_row(name, row, float((array[row].double() ** 2).sum()))
        norms, tails, grains = measured
        return TritonPoints(rows, array, norms, tails, grains, float_of(largest))

    def scaled(self, points: TritonPoints, exponent: int) -> TritonPoints:
        # A filter in float32 needs scaled rows only where their squared norms come near its ends.
        filtered = 0 if 0 <= exponent <= 90 else exponent
        if points.filter_exponent != filtered:
            measured, _ = self.measure(points.array, points.rows.stride, filtered)
            norms, tails, _ = measured
            points = points._replace(norms=norms, tails=tails, filter_exponent=filtered)
        return points._replace(exponent=0 if self.cosine else exponent)

    def measure(
        self, array: torch.Tensor, stride: int, exponent: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Norms, tails and grains (3, n) of ``array`` (n, d) times 2^exponent, and two int64.

        They are the first bad row or n, and the bits of the largest magnitude as float64.
        """
        n, d = array.shape
        measured = torch.empty((3, n), dtype=torch.float32, device=array.device)
        found = torch.tensor([n, 0], device=array.device)
        if n:
            scale = 2.0**exponent
            grid = (-(-n // 8),)
            sizes = self.cosine, 8, 128
            launch(
                measure, grid, array, stride, n, d, *measured, found, scale, *sizes, registers=255
            )
        return measured, found

    def distances(
        self, x: TritonPoints, rows: torch.Tensor, y: TritonPoints, centers: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (len(rows), len(centers))
        lower, upper = torch.empty(2, *shape, dtype=torch.float32, device=rows.device)
        self._compare(x, y, Groups.one(rows, centers), DISTANCES.value, lower=lower, upper=upper)
        return lower, upper

    def bound(self, x: TritonPoints, y: TritonPoints, groups: Groups, bound: torch.Tensor) -> None:
        self._compare(x, y, groups, BOUND.value, bound=bound)

    def refresh(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        first: torch.Tensor | None,
        bound: torch.Tensor,
        exact: torch.Tensor,
    ) -> None:
        reach = torch.minimum(bound, exact)
        for row, center in self._decide_within(x, y, groups, reach, first=first, exact=exact):
            exact[row] = min(float(exact[row]), self._value(x, row, y, center))

    def assign(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        ranks: torch.Tensor,
        bound: torch.Tensor,
        keys: torch.Tensor,
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
        reach: torch.Tensor,
        *,
        first: torch.Tensor | None = None,
        exact: torch.Tensor | None = None,
        ranks: torch.Tensor | None = None,
        keys: torch.Tensor | None = None,
    ) -> list[list[int]]:
        """Decide pairs that may lie within ``reach``, into ``exact`` or ``keys``: those left open.

        ``reach`` (n,) float32 is lowered to the upper bounds of the filter.
        """
        device, capacity = reach.device, UNDECIDED
        self._compare(x, y, groups, BOUND.value, bound=reach)
        undecided = torch.zeros((1 + capacity, 2), dtype=torch.int32, device=device)
        pairs = torch.empty((2, PAIRS), dtype=torch.int32, device=device)
        found = undecided[0, 1:]
        self._compare(
            x, y, groups, COLLECT.value, bound=reach, first=first, found=found, pairs=pairs
        )
        launch(
            decide_pairs,
            (_processors(device) * 16,),
            x.array,
            x.rows.stride,
            x.grains,
            y.array,
            y.rows.stride,
            y.grains,
            *pairs,
            found,
            PAIRS,
            None if exact is None else exact.view(torch.int32),
            undecided,
            capacity,
            x.rows.columns,
            2.0**x.exponent,
            ranks,
            keys,
            COSINE=self.cosine,
            BP=1,
            BK=128,
            num_warps=1,
            enable_fp_fusion=False,
        )
        left, count = undecided[0].tolist()
        decide = partial(self.decide, x, y, groups, exact=exact, ranks=ranks, keys=keys)
        if count > PAIRS:
            undecided, left = decide()
        if left > capacity:
            undecided, left = decide(capacity=left)
        return undecided[1 : 1 + left].tolist()

    def traverse(
        self,
        x: TritonPoints,
        head: torch.Tensor,
        outside: int,
        exact: torch.Tensor,
        picks: torch.Tensor,
        values: torch.Tensor,
    ) -> int:
        size = len(head)
        head = head.sort().values
        block = torch.empty((size, size), dtype=torch.float32, device=head.device)
        groups = Groups.one(head, head)
        undecided, _ = self.decide(x, x, groups, block=block, wait=False)
        state = undecided[0]
        warps = 1 if size <= SMALLEST_BLOCK else 4
        for _ in range(2):
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
                BT=max(SMALLEST_BLOCK, 1 << (size - 1).bit_length()),
                num_warps=warps,
                registers=255,
            )
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
        bound: torch.Tensor | None = None,
        first: torch.Tensor | None = None,
        lower: torch.Tensor | None = None,
        upper: torch.Tensor | None = None,
        found: torch.Tensor | None = None,
        pairs: torch.Tensor | tuple[None, None] = (None, None),
    ) -> None:
        depth = 64 if x.array.element_size() == y.array.element_size() == 2 else 32
        raised = 0 if self.cosine else x.exponent - x.filter_exponent
        aligned = _aligned(x, y, depth)
        scaled = x.filter_exponent != 0  # takes registers that a large tile has not left
        rows, columns, warps = FILTER_TILE[mode] if aligned and not scaled else SMALL_TILE
        work = _work(groups, rows, columns, 2 * _processors(x.array.device))
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
            2.0**raised,
            None if bound is None else bound.view(torch.int32),
            lower,
            upper,
            len(groups.centers),
            found,
            *pairs,
            PAIRS,
            MODE=mode,
            COSINE=self.cosine,
            OPERAND=_operand(x.array.dtype, y.array.dtype),
            SCALED=scaled,
            EVEN=aligned,
            BM=rows,
            BN=columns,
            BK=depth if aligned else 32,
            num_warps=warps,
            num_stages=3,
        )

    def decide(
        self,
        x: TritonPoints,
        y: TritonPoints,
        groups: Groups,
        *,
        exact: torch.Tensor | None = None,
        block: torch.Tensor | None = None,
        ranks: torch.Tensor | None = None,
        keys: torch.Tensor | None = None,
        capacity: int = UNDECIDED,
        wait: bool = True,
    ) -> tuple[torch.Tensor, int]:
        """Decide every pair, into ``exact``, ``keys`` or ``block``: those open, and how many."""
        device = x.array.device
        rows, columns = EXACT_TILE
        if block is None:
            work = _work(groups, rows, columns, None).to(device, non_blocking=True)
        else:
            work = _upper_tiles(len(groups.rows), device)
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
            num_warps=4,
            registers=255,
            enable_fp_fusion=False,
        )
        return undecided, int(undecided[0, 0]) if wait else 0

    def _value(self, x: TritonPoints, row: int, y: TritonPoints, center: int) -> float:
        """One decision value in rational arithmetic."""
        one = x.array[row].double().cpu().numpy()
        other = y.array[center].double().cpu().numpy()
        return float(reference.decision_values(one[None], other, self.metric, x.exponent)[0])


def float_of(bits: int) -> float:
    """The float64 that has these bits."""
    return float(struct.unpack("d", struct.pack("q", bits))[0])


def _operand(dtype: torch.dtype, other: torch.dtype) -> tl.dtype:
    """What the matrix units take; the interpreter has no bfloat16 arithmetic."""
    if dtype == other == torch.float16:
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


@lru_cache(maxsize=2)  # most heads of a traversal are of one size; the host needs 1 ms for one
def _upper_tiles(size: int, device: torch.device) -> torch.Tensor:
    """The work that decides a symmetric block: its tiles on and above the diagonal."""
    rows = torch.arange(size)
    work = _work(Groups.one(rows, rows), *EXACT_TILE, None)
    return work[work[:, 3] > work[:, 0]].to(device)


def _work(groups: Groups, rows: int, columns: int, programs: int | None) -> torch.Tensor:
    """Slices of rows and of centers (programs, 4) int32 that cover every group.

    A program takes ``rows`` rows and so many times ``columns`` centers that there are about as
    many programs as asked for, or one per tile of rows if that is more; with ``None``, once.
    """
    row_ends, center_ends = groups.row_ends.numpy(), groups.center_ends.numpy()
    row_starts = np.concatenate([[0], row_ends[:-1]])
    center_starts = np.concatenate([[0], center_ends[:-1]])
    row_tiles = -(-(row_ends - row_starts) // rows)
    center_tiles = -(-(center_ends - center_starts) // columns)
    row_tiles[center_tiles == 0] = 0
    splits = center_tiles if programs is None else -(-programs // max(int(row_tiles.sum()), 1))
    run = -(-center_tiles // np.maximum(splits, 1)) * columns  # centers of one program
    runs = -(-(center_ends - center_starts) // np.maximum(run, 1))
    count = row_tiles * runs
    group = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    row = row_starts[group] + place // runs[group] * rows
    center = center_starts[group] + place % runs[group] * run[group]
    work = np.stack(
        [
            row,
            np.minimum(row + rows, row_ends[group]),
            center,
            np.minimum(center + run[group], center_ends[group]),
        ],
        axis=1,
    )
    return torch.from_numpy(work.astype(np.int32))
