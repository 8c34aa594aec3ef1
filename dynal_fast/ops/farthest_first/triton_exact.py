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
def report(undecided, capacity, row, center):
    """Append an open pair to the list (1 + capacity, 2) int32, whose first entry is its length."""
    slot = tl.atomic_add(undecided, 1)
    if slot < capacity:
        tl.store(undecided + 2 + 2 * slot, row)
        tl.store(undecided + 3 + 2 * slot, center)


@triton.jit(
    do_not_specialize=["d", "capacity", "undecided_capacity"],
    do_not_specialize_on_alignment=[
        "x_grains",
        "y_grains",
        "pair_rows",
        "pair_centers",
        "found",
        "exact",
        "undecided",
        "values",
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
):
    count = tl.minimum(tl.load(found), capacity)
    lane = tl.arange(0, BP)
    for block in range(tl.program_id(0) * BP, count, tl.num_programs(0) * BP):
        inside = block + lane < count
        row = tl.load(pair_rows + block + lane, inside, 0).to(tl.int64)
        center = tl.load(pair_centers + block + lane, inside, 0).to(tl.int64)
        value = tl.zeros((BP,), tl.float64)
        own, other = tl.zeros((BP,), tl.float64), tl.zeros((BP,), tl.float64)
        for k in range(0, d, BK):
            column = k + tl.arange(0, BK)
            kept = inside[:, None] & (column < d)[None, :]
            a = tl.load(x + row[:, None] * x_stride + column, kept, 0).to(tl.float64)
            b = tl.load(y + center[:, None] * y_stride + column, kept, 0).to(tl.float64)
            if COSINE:
                value += tl.sum(a * b, 1)
                own += tl.sum(a * a, 1)
                other += tl.sum(b * b, 1)
            else:
                value += tl.sum((a - b) * (a - b), 1)
        slack = (d + 8).to(tl.float64) * 2.220446049250313e-16  # 2^-52
        grain = tl.minimum(
            tl.load(x_grains + row, inside, 1), tl.load(y_grains + center, inside, 1)
        ).to(tl.float64)
        if COSINE:
            lengths = tl.sqrt(tl.where(inside, own, 1.0)) * tl.sqrt(tl.where(inside, other, 1.0))
            value = 1 - value / lengths
            low, high = round_both(value, slack, COSINE)
        else:
            certain = value < grain * grain * 9007199254740992.0  # 2^53
            doubt = tl.where(certain, 0.0, slack * value)
            low, high = round_both(value * scale * scale, doubt * scale * scale, COSINE)
        left = tl.where(inside & (low != high), lane, NONE)
        at = tl.min(left, 0)
        while at < NONE:
            row_at = tl.sum(tl.where(lane == at, row, 0), 0)
            center_at = tl.sum(tl.where(lane == at, center, 0), 0)
            grain_at = tl.sum(tl.where(lane == at, grain, 0.0), 0)
            settled, open_ = settle(
                x + row_at * x_stride, y + center_at * y_stride, d, grain_at, scale, COSINE
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


@triton.jit
def tile_of_rows(x, stride, row, origin, column, d, COSINE: tl.constexpr):
    """Load columns of rows as float64, 0 beyond the last; minus ``origin`` unless COSINE."""
    value = tl.load(x + row[:, None] * stride + column[None, :], (column < d)[None, :], 0)
    value = value.to(tl.float64)
    if not COSINE:
        value -= tl.load(origin + column, column < d, 0).to(tl.float64)[None, :]
    return value


@triton.jit(
    do_not_specialize=["d", "size", "undecided_capacity"],
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
    dots = tl.zeros((BM, BN), tl.float64)
    own, other = tl.zeros((BM,), tl.float64), tl.zeros((BN,), tl.float64)
    column = tl.arange(0, BK)
    a = tile_of_rows(x, x_stride, row, y + middle * y_stride, column, d, COSINE)
    b = tile_of_rows(y, y_stride, center, y + middle * y_stride, column, d, COSINE)
    for _ in range(0, d, BK):
        own += tl.sum(a * a, 1)
        other += tl.sum(b * b, 1)
        dots = tl.dot(a, tl.trans(b), dots, out_dtype=tl.float64)
        column += BK
        a = tile_of_rows(x, x_stride, row, y + middle * y_stride, column, d, COSINE)
        b = tile_of_rows(y, y_stride, center, y + middle * y_stride, column, d, COSINE)
    slack = (d + 8).to(tl.float64) * 2.220446049250313e-16  # 2^-52
    if COSINE:
        value = 1 - dots * (1 / tl.sqrt(own))[:, None] * (1 / tl.sqrt(other))[None, :]
        low, high = round_both(value, slack, COSINE)
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
        grain_at = tl.minimum(tl.load(x_grains + row_at), tl.load(y_grains + center_at))
        settled, open_ = settle(
            x + row_at * x_stride,
            y + center_at * y_stride,
            d,
            grain_at.to(tl.float64),
            scale,
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
