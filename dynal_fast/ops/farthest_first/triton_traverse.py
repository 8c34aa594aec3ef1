"""Triton: the traversal inside a head, in one program without the host.

Each thread holds the minima of a few head rows in registers. A pick takes two reductions, the
largest minimum and the lowest position that has it (positions are ordered by row number, so the
lowest index wins ties), and one row of the block of decision values.
"""

import triton
import triton.language as tl


@triton.jit(
    do_not_specialize=["T", "outside", "limit"],
    do_not_specialize_on_alignment=["picks", "values", "undecided", "count_out"],
)
def traverse(
    block,  # (T, T) float32: decision values between head rows
    head,  # (T,) int32, increasing
    T,
    outside: tl.int64,  # the key of the first row outside (highest.keys)
    exact,  # (n,) float32: the smallest decision value of each row; -inf once picked
    picks,  # (limit,) int32
    values,  # (limit,) float32
    limit,
    undecided,  # (1,) int32: unless it is 0 the block is incomplete, and nothing is picked
    count_out,  # (1,) int32
    BT: tl.constexpr,
):
    position = tl.arange(0, BT)
    inside = position < T
    row = tl.load(head + position, inside, 0)
    value = tl.load(exact + row, inside, float("-inf"))
    count = 0
    running = tl.load(undecided) == 0
    while running:
        bits = value.to(tl.int32, bitcast=True)
        largest = tl.max(bits, 0)
        at = tl.min(tl.where(bits == largest, position, BT), 0)
        pick = tl.load(head + at)
        key = (largest.to(tl.int64) << 32) + (2147483647 - pick.to(tl.int64))
        running = (largest >= 0) & (key > outside) & (count < limit)
        if running:
            line = tl.load(block + at.to(tl.int64) * T + position, inside, float("-inf"))
            tl.store(picks + count, pick)
            tl.store(values + count, largest.to(tl.float32, bitcast=True))
            value = tl.where(position == at, float("-inf"), tl.minimum(value, line))
            count += 1
    tl.store(exact + row, value, inside)
    tl.store(count_out, count)
