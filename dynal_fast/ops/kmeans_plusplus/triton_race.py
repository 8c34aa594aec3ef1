"""Triton: rows that catch up with picks, and the race inside a head, in one program.

Firing times are float64, and rounded as ``reference.py`` says: the kernels are compiled without
contraction to fused multiply-adds.
"""

import triton
import triton.language as tl


@triton.jit
def slowed(firing, time, rate, lower):
    """Return when rows fire whose rates drop to ``lower`` at ``time``: at infinity if to 0."""
    left = (firing - time) * rate.to(tl.float64)
    after = time + left / tl.where(lower > 0, lower, 1.0).to(tl.float64)
    return tl.where(lower > 0, after, float("inf"))


@triton.jit(
    do_not_specialize=["size"],
    do_not_specialize_on_alignment=["rows", "starts", "ends", "places", "values", "times"],
)
def walk(
    rows,  # (R,) int32
    starts,  # (R,) int64: the pairs of each row, in the order of the picks, are
    ends,  # (R,) int64: starts <= pair < ends
    places,  # (pairs,) int64: the position of a pair's pick in `times`
    values,  # (pairs,) float32: decision values
    times,  # (k,) float64: when picks fired
    rates,  # (n,) float32
    firing,  # (n,) float64
    size,  # R
    BR: tl.constexpr,
):
    lane = tl.program_id(0) * BR + tl.arange(0, BR)
    inside = lane < size
    row = tl.load(rows + lane, inside, 0)
    pair = tl.load(starts + lane, inside, 0)
    end = tl.load(ends + lane, inside, 0)
    rate = tl.load(rates + row, inside, 0)
    when = tl.load(firing + row, inside, 0)
    longest = tl.max(end - pair, 0)
    for _ in range(0, longest):
        there = pair < end
        place = tl.load(places + pair, there, 0)
        value = tl.load(values + pair, there, float("inf"))
        time = tl.load(times + place, there, 0)
        lower = value < rate
        when = tl.where(lower, slowed(when, time, rate, value), when)
        rate = tl.where(lower, value, rate)
        pair += 1
    tl.store(rates + row, rate, inside)
    tl.store(firing + row, when, inside)


@triton.jit(
    do_not_specialize=["T", "limit"],
    do_not_specialize_on_alignment=[
        "head",
        "picks",
        "values",
        "times",
        "undecided",
        "count_out",
    ],
)
def race(
    block,  # (T, T) float32: decision values between head rows
    head,  # (T,) int32, increasing
    T,
    outside,  # (1,) float64: when the first row outside may fire
    rates,  # (n,) float32; 0 once picked
    firing,  # (n,) float64; infinity once picked
    picks,  # (limit,) int32
    values,  # (limit,) float32
    times,  # (limit,) float64
    limit,
    undecided,  # (1,) int32: unless it is 0 the block is incomplete, and nothing is picked
    count_out,  # (1,) int32
    BT: tl.constexpr,
):
    position = tl.arange(0, BT)
    inside = position < T
    row = tl.load(head + position, inside, 0)
    rate = tl.load(rates + row, inside, 0)
    when = tl.load(firing + row, inside, float("inf"))
    end = tl.load(outside)
    count = 0
    running = tl.load(undecided) == 0
    while running:
        time = tl.min(when, 0)
        at = tl.min(tl.where(when == time, position, BT), 0)
        running = (time < end) & (count < limit)
        if running:
            line = tl.load(block + at.to(tl.int64) * T + position, inside, float("inf"))
            tl.store(picks + count, tl.load(head + at))
            tl.store(values + count, tl.sum(tl.where(position == at, rate, 0.0), 0))
            tl.store(times + count, time)
            lower = line < rate
            when = tl.where(lower, slowed(when, time, rate, line), when)
            rate = tl.where(lower, line, rate)
            when = tl.where(position == at, float("inf"), when)
            rate = tl.where(position == at, 0.0, rate)
            count += 1
    tl.store(rates + row, rate, inside)
    tl.store(firing + row, when, inside)
    tl.store(count_out, count)
