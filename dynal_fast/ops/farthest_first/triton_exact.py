"""Triton: what decides. Decision values as ``reference.py`` defines them, in float64.

A pair whose float64 result is too close to the midpoint of two float32 numbers is settled in
double-double arithmetic (`triton_settle`); what that leaves open goes to ``undecided``, for the
host. Ties are recognised by the ``grain`` of the rows. ``README.md`` derives the bounds.

Triton must not compile these kernels again for the alignment of a vector, which is a view that may
start anywhere, or for sizes that change during a traversal. Only the embeddings and their strides
are specialised, as rows are read 16 bytes at a time.
"""

import triton
import triton.language as tl

from dynal_fast.ops.farthest_first.triton_settle import settle
from dynal_fast.ops.farthest_first.triton_sums import pair_sums, tile_sums

NONE = tl.constexpr(2147483647)


@triton.jit
def round_both(value, slack, COSINE: tl.constexpr):
    """Return ``value - slack`` and ``value + slack``, each rounded to a decision value."""
    if COSINE:
        low = tl.floor(tl.maximum(value - slack, 0.0) * 8388608.0 + 0.5) * 1.1920928955078125e-07
        high = tl.floor(tl.maximum(value + slack, 0.0) * 8388608.0 + 0.5) * 1.1920928955078125e-07
        return tl.minimum(low, 2.0).to(tl.float32), tl.minimum(high, 2.0).to(tl.float32)
    else:
        return tl.maximum(value - slack, 0.0).to(tl.float32), (value + slack).to(tl.float32)


@triton.jit
def round_products(own, other, dots, terms, grain, scale):
    """Return bounds of the decision value of outer products, from their sums in float64.

    ``own``, ``other``: squared norms, on common axes with ``dots``; ``terms``: columns of both
    factors; ``grain``: it divides every element of the products.
    """
    total = own + other
    slack = (terms + 16).to(tl.float64) * 4.440892098500626e-16  # 2^-51
    certain = total < grain * grain * 2251799813685248.0  # 2^51
    doubt = tl.where(certain, 0.0, slack * total)
    low, high = round_both((total - 2 * dots) * scale * scale, doubt * scale * scale, False)
    return low, high


@triton.jit
def report(undecided, capacity, row, center):
    """Append an open pair to the list (1 + capacity, 2) int32, whose first entry is its length."""
    slot = tl.atomic_add(undecided, 1)
    if slot < capacity:
        tl.store(undecided + 2 + 2 * slot, row)
        tl.store(undecided + 3 + 2 * slot, center)


@triton.jit(
    do_not_specialize=["d", "capacity", "undecided_capacity", "right_d"],
    do_not_specialize_on_alignment=[
        "x_grains",
        "y_grains",
        "pair_rows",
        "pair_centers",
        "found",
        "exact",
        "undecided",
        "values",
        "x_right_grains",
        "y_right_grains",
    ],
)
def decide_pairs(
    x,  # (n, d)
    x_stride,
    x_grains,  # (n,) float32
    y,  # (m, d)
    y_stride,
    y_grains,  # (m,) float32
    pair_rows,  # (capacity,) int32
    pair_centers,  # (capacity,) int32
    found,  # (1,) int32: how many pairs there are
    capacity,
    exact,  # (n,) float32 as int32 bits, lowered to the decision values
    undecided,  # (1 + undecided_capacity, 2) int32
    undecided_capacity,
    d,
    scale,  # squared distances are multiplied by its square
    ranks,  # (m,) int32 or None
    keys,  # (n,) int64 or None: instead of `exact`, (bits of the value << 32) + rank
    COSINE: tl.constexpr,
    BP: tl.constexpr,
    BK: tl.constexpr,
    values=None,  # (capacity,) float32 or None: instead of `exact`, the value of each pair
    x_right=None,  # (n, right_d): of outer products, the second factors
    x_right_stride=None,
    x_right_grains=None,
    y_right=None,  # (m, right_d)
    y_right_stride=None,
    y_right_grains=None,
    right_d=None,
):
    count = tl.minimum(tl.load(found), capacity)
    lane = tl.arange(0, BP)
    for block in range(tl.program_id(0) * BP, count, tl.num_programs(0) * BP):
        inside = block + lane < count
        row = tl.load(pair_rows + block + lane, inside, 0).to(tl.int64)
        center = tl.load(pair_centers + block + lane, inside, 0).to(tl.int64)
        value, own, other = pair_sums(
            x, x_stride, row, y, y_stride, center, d, inside, COSINE or x_right is not None, BP, BK
        )
        slack = (d + 8).to(tl.float64) * 2.220446049250313e-16  # 2^-52
        grain = tl.minimum(
            tl.load(x_grains + row, inside, 1), tl.load(y_grains + center, inside, 1)
        ).to(tl.float64)
        if COSINE:
            lengths = tl.sqrt(tl.where(inside, own, 1.0)) * tl.sqrt(tl.where(inside, other, 1.0))
            value = 1 - value / lengths
            low, high = round_both(value, slack, COSINE)
        elif x_right is not None:
            dots, own_right, other_right = pair_sums(
                x_right,
                x_right_stride,
                row,
                y_right,
                y_right_stride,
                center,
                right_d,
                inside,
                True,
                BP,
                BK,
            )
            grain *= tl.minimum(
                tl.load(x_right_grains + row, inside, 1),
                tl.load(y_right_grains + center, inside, 1),
            ).to(tl.float64)
            low, high = round_products(
                own * own_right, other * other_right, value * dots, d + right_d, grain, scale
            )
        else:
            certain = value < grain * grain * 9007199254740992.0  # 2^53
            doubt = tl.where(certain, 0.0, slack * value)
            low, high = round_both(value * scale * scale, doubt * scale * scale, COSINE)
        left = tl.where(inside & (low != high), lane, NONE)
        at = tl.min(left, 0)
        while at < NONE:
            row_at = tl.sum(tl.where(lane == at, row, 0), 0)
            center_at = tl.sum(tl.where(lane == at, center, 0), 0)
            settled, open_ = settle(
                x,
                x_stride,
                x_grains,
                row_at,
                y,
                y_stride,
                y_grains,
                center_at,
                d,
                scale,
                x_right,
                x_right_stride,
                y_right,
                y_right_stride,
                right_d,
                COSINE,
            )
            if open_:
                report(undecided, undecided_capacity, row_at.to(tl.int32), center_at.to(tl.int32))
                settled = float("inf")
            low = tl.where(lane == at, settled, low)
            left = tl.where(lane == at, NONE, left)
            at = tl.min(left, 0)
        bits = low.to(tl.int32, bitcast=True)
        if values is not None:
            tl.store(values + block + lane, low, inside)
        elif keys is None:
            tl.atomic_min(exact + row, bits, mask=inside)
        else:
            rank = tl.load(ranks + center, inside, 0)
            tl.atomic_min(keys + row, (bits.to(tl.int64) << 32) + rank, mask=inside)


@triton.jit(
    do_not_specialize=["d", "size", "undecided_capacity", "right_d"],
    do_not_specialize_on_alignment=[
        "x_grains",
        "rows",
        "y_grains",
        "centers",
        "work",
        "origin",
        "exact",
        "block",
        "undecided",
        "x_right_grains",
        "y_right_grains",
    ],
)
def decide_tiles(
    x,  # (n, d)
    x_stride,
    x_grains,  # (n,) float32
    rows,  # (R,) int32
    y,  # (m, d)
    y_stride,
    y_grains,  # (m,) float32
    centers,  # (C,) int32
    work,  # (programs, 4) int32: slices of up to BM rows and up to BN centers
    origin,  # (1,) int32: the row of y that is subtracted from all rows
    exact,  # (n,) float32 as int32 bits, lowered to the decision values
    block,  # (R, R) float32: with STORE, rows and centers are the same
    size,  # R
    undecided,  # (1 + undecided_capacity, 2) int32
    undecided_capacity,
    d,
    scale,  # squared distances are multiplied by its square
    ranks,  # (m,) int32 or None
    keys,  # (n,) int64 or None: instead of `exact`, (bits of the value << 32) + rank
    STORE: tl.constexpr,
    COSINE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    x_right=None,  # (n, right_d): of outer products, the second factors
    x_right_stride=None,
    x_right_grains=None,
    y_right=None,  # (m, right_d)
    y_right_stride=None,
    y_right_grains=None,
    right_d=None,
):
    job = work + tl.program_id(0).to(tl.int64) * 4
    row_start, row_end = tl.load(job), tl.load(job + 1)
    center_start, center_end = tl.load(job + 2), tl.load(job + 3)
    position = row_start + tl.arange(0, BM)
    inside = position < row_end
    row = tl.load(rows + tl.minimum(position, row_end - 1)).to(tl.int64)
    middle = tl.load(origin).to(tl.int64)
    place = center_start + tl.arange(0, BN)
    there = place < center_end
    center = tl.load(centers + tl.minimum(place, center_end - 1)).to(tl.int64)
    dots, own, other = tile_sums(
        x,
        x_stride,
        row,
        y,
        y_stride,
        center,
        y + middle * y_stride,
        d,
        not COSINE and x_right is None,
        BM,
        BN,
        BK,
    )
    slack = (d + 8).to(tl.float64) * 2.220446049250313e-16  # 2^-52
    if COSINE:
        value = 1 - dots * (1 / tl.sqrt(own))[:, None] * (1 / tl.sqrt(other))[None, :]
        low, high = round_both(value, slack, COSINE)
    elif x_right is not None:
        right_dots, own_right, other_right = tile_sums(
            x_right,
            x_right_stride,
            row,
            y_right,
            y_right_stride,
            center,
            y_right,
            right_d,
            False,
            BM,
            BN,
            BK,
        )
        x_grain, y_grain = tl.load(x_grains + row), tl.load(y_grains + center)
        grain = tl.minimum(x_grain[:, None], y_grain[None, :]).to(tl.float64)
        x_grain, y_grain = tl.load(x_right_grains + row), tl.load(y_right_grains + center)
        grain *= tl.minimum(x_grain[:, None], y_grain[None, :]).to(tl.float64)
        own, other = own * own_right, other * other_right
        low, high = round_products(
            own[:, None], other[None, :], dots * right_dots, d + right_d, grain, scale
        )
    else:
        x_grain = tl.minimum(tl.load(x_grains + row), tl.load(y_grains + middle))
        grain = tl.minimum(x_grain[:, None], tl.load(y_grains + center)[None, :]).to(tl.float64)
        total = own[:, None] + other[None, :]
        certain = total < grain * grain * 2251799813685248.0  # 2^51
        doubt = tl.where(certain, 0.0, slack * total)
        value = (total - 2 * dots) * scale * scale
        low, high = round_both(value, doubt * scale * scale, COSINE)
    if STORE:  # the distance of a row to itself
        same = row[:, None] == center[None, :]
        low, high = tl.where(same, 0.0, low), tl.where(same, 0.0, high)
    kept = inside[:, None] & there[None, :]
    flat = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    left = tl.where(kept & (low != high), flat, NONE)
    at = tl.min(tl.min(left, 1), 0)
    while at < NONE:
        row_at = tl.load(rows + row_start + at // BN).to(tl.int64)
        center_at = tl.load(centers + center_start + at % BN).to(tl.int64)
        settled, open_ = settle(
            x,
            x_stride,
            x_grains,
            row_at,
            y,
            y_stride,
            y_grains,
            center_at,
            d,
            scale,
            x_right,
            x_right_stride,
            y_right,
            y_right_stride,
            right_d,
            COSINE,
        )
        if open_:
            report(undecided, undecided_capacity, row_at.to(tl.int32), center_at.to(tl.int32))
            settled = float("inf")
        low = tl.where(flat == at, settled, low)
        left = tl.where(flat == at, NONE, left)
        at = tl.min(tl.min(left, 1), 0)
    if STORE:
        place, position = place.to(tl.int64), position.to(tl.int64)
        tl.store(block + position[:, None] * size + place[None, :], low, kept)
        tl.store(block + place[None, :] * size + position[:, None], low, kept)
    else:
        bits = tl.where(kept, low, float("inf")).to(tl.int32, bitcast=True)
        if keys is None:
            tl.atomic_min(exact + row, tl.min(bits, 1), mask=inside)
        else:
            key = (bits.to(tl.int64) << 32) + tl.load(ranks + center)[None, :]
            tl.atomic_min(keys + row, tl.min(key, 1), mask=inside)
