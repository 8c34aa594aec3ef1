"""Triton: what decides. Decision values of ``reference.py``, rounded once from the exact distance.

Differences, squares and sums are taken in float64. Where the result lies so near the midpoint of
two neighbouring float32 numbers that its rounding error could matter (about one pair in 10^5 at d
= 512), that pair alone is summed again in double-double arithmetic (two-sum, and Dekker's product,
which needs no fused operation: these kernels are compiled with contraction off). Ties are known to
be ties by the ``grain`` of the rows: where all elements are multiples of g and the squared
distance is below 2^53 g^2, float64 itself is exact, as on integers, pixels and lattices. What even
2^-100 leaves open goes to ``undecided`` and is settled in rational arithmetic by the caller.

Vectors are views that start anywhere, so no kernel is compiled for their alignment, and none for
sizes that change during a traversal: each would be compiled again in the middle of one. Only the
embeddings and their strides are specialised: their rows are read 16 bytes at a time.

**The floor.** ``decide_pairs``: one pair reads 2 d elements, 4 KB for d = 512 in float32: 10,000
pairs are 41 MB, some 15 us. ``decide_tiles``: float64 matrix units (67 TFLOP/s on an H200): T =
2,048 head rows are 4.3 GFLOP at d = 512, half of them spared by symmetry: 35 us. Rows are moved to
the one of smallest norm first, so that a common offset costs no precision: with ``s = |x - o|^2 +
|y - o|^2`` the error of the float64 sums is below (d + 8) 2^-52 s.
"""

import triton
import triton.language as tl

NONE = tl.constexpr(2147483647)


@triton.jit
def two_sum(a, b):
    """The float64 sum and its rounding error, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def split(a):
    """Two halves of 26 bits whose sum is the float64."""
    scaled = 134217728.0 * a + a
    high = scaled - (scaled - a)
    return high, a - high


@triton.jit
def two_product(a, b):
    """The float64 product and its rounding error, exactly where nothing underflows."""
    product = a * b
    a_high, a_low = split(a)
    b_high, b_low = split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


@triton.jit
def fold(total, error):
    """The sum of up to 128 unevaluated sums, as one.

    The totals are cut in slices on common grids, coarse enough that each slice adds up exactly.
    """
    largest = tl.max(tl.abs(total), 0)
    power = (largest.to(tl.int64, bitcast=True) & 0x7FF0000000000000).to(tl.float64, bitcast=True)
    grid = 512 * power
    first = (total + grid) - grid
    total -= first
    grid *= 5.684341886080802e-14  # 2^-44
    second = (total + grid) - grid
    value, rest = two_sum(tl.sum(first, 0), tl.sum(second, 0))
    return two_sum(value, rest + (tl.sum(total - second, 0) + tl.sum(error, 0)))


@triton.jit
def add_product(total, error, a, b):
    """Add a product to an unevaluated sum."""
    product, rest = two_product(a, b)
    total, carry = two_sum(total, product)
    return total, error + (carry + rest)


@triton.jit
def long_product(a, a_error, b, b_error):
    """The product of two unevaluated sums."""
    product, rest = two_product(a, b)
    return product, rest + (a * b_error + a_error * b)


@triton.jit
def settle_euclidean(x, y, d, grain, scale, BK: tl.constexpr):
    """The squared distance of two rows, rounded once to float32, and whether that is certain."""
    total, error = tl.zeros((BK,), tl.float64), tl.zeros((BK,), tl.float64)
    for k in range(0, d, BK):
        column = k + tl.arange(0, BK)
        a = tl.load(x + column, column < d, 0).to(tl.float64)
        b = tl.load(y + column, column < d, 0).to(tl.float64)
        gap, gap_error = two_sum(a, -b)
        total, error = add_product(total, error, gap, gap)
        error += 2 * gap * gap_error
    value, rest = fold(total, error)
    tie = value < grain * grain * 9007199254740992.0
    value, rest = value * scale * scale, rest * scale * scale
    nearest = value.to(tl.float32)
    bits = nearest.to(tl.int32, bitcast=True)
    above = (bits + 1).to(tl.float32, bitcast=True).to(tl.float64)
    below = tl.maximum(bits - 1, 0).to(tl.float32, bitcast=True).to(tl.float64)
    over = (value - (nearest.to(tl.float64) + above) * 0.5) + rest
    under = (value - (nearest.to(tl.float64) + below) * 0.5) + rest
    size = (d + 8).to(tl.float64)
    slack = size * size * 4.930380657631324e-32 * value  # 2^-104
    open_ = ((tl.abs(over) <= slack) | ((tl.abs(under) <= slack) & (bits > 0))) & (tie == 0)
    bits = tl.where(tie, bits, tl.where(over > slack, bits + 1, bits))
    bits = tl.where((tie == 0) & (under < -slack) & (bits > 0), bits - 1, bits)
    return bits.to(tl.float32, bitcast=True), open_


@triton.jit
def cosine_excess(dot, dot_error, scale, scale_error, limit):
    """The sign and size of (limit - similarity), in squares: no square root."""
    sign = tl.where(dot < 0, -1, 1)
    square, square_error = long_product(dot, dot_error, sign * dot, sign * dot_error)
    other, other_error = long_product(scale, scale_error, limit * tl.abs(limit), 0 * limit)
    return (other - square) + (other_error - square_error)


@triton.jit
def settle_cosine(x, y, d, BK: tl.constexpr):
    """The cosine distance of two rows, rounded once to 2^-23, and whether that is certain."""
    dot, dot_error = tl.zeros((BK,), tl.float64), tl.zeros((BK,), tl.float64)
    own, own_error = tl.zeros((BK,), tl.float64), tl.zeros((BK,), tl.float64)
    other, other_error = tl.zeros((BK,), tl.float64), tl.zeros((BK,), tl.float64)
    for k in range(0, d, BK):
        column = k + tl.arange(0, BK)
        a = tl.load(x + column, column < d, 0).to(tl.float64)
        b = tl.load(y + column, column < d, 0).to(tl.float64)
        dot, dot_error = add_product(dot, dot_error, a, b)
        own, own_error = add_product(own, own_error, a, a)
        other, other_error = add_product(other, other_error, b, b)
    dot, dot_error = fold(dot, dot_error)
    own, own_error = fold(own, own_error)
    other, other_error = fold(other, other_error)
    scale, scale_error = long_product(own, own_error, other, other_error)
    steps = tl.floor((1 - dot / tl.sqrt(scale)) * 8388608.0 + 0.5)  # of 2^-23
    steps = tl.minimum(tl.maximum(steps, 0.0), 16777216.0)
    up = 1 - (steps + 0.5) * 1.1920928955078125e-07
    down = 1 - (steps - 0.5) * 1.1920928955078125e-07
    size = (d + 8).to(tl.float64)
    slack = size * size * 9.860761315262648e-32 * scale  # 2^-103
    over = cosine_excess(dot, dot_error, scale, scale_error, up)
    under = cosine_excess(dot, dot_error, scale, scale_error, down)
    open_ = (tl.abs(over) <= slack) | (tl.abs(under) <= slack)
    open_ = open_ | (scale < 1.1829462e-271)  # 2^-900: its error underflows
    steps = tl.where(over > slack, steps + 1, tl.where(under < -slack, steps - 1, steps))
    return (steps * 1.1920928955078125e-07).to(tl.float32), open_


@triton.jit
def settle(x, y, d, grain, scale, COSINE: tl.constexpr):
    """The decision value of two rows, and whether it is still open."""
    if COSINE:
        value, open_ = settle_cosine(x, y, d, 128)
    else:
        value, open_ = settle_euclidean(x, y, d, grain, scale, 128)
    return value, open_


@triton.jit
def round_both(value, slack, COSINE: tl.constexpr):
    """The decision values of value - slack and value + slack."""
    if COSINE:
        low = tl.floor(tl.maximum(value - slack, 0.0) * 8388608.0 + 0.5) * 1.1920928955078125e-07
        high = tl.floor(tl.maximum(value + slack, 0.0) * 8388608.0 + 0.5) * 1.1920928955078125e-07
        return tl.minimum(low, 2.0).to(tl.float32), tl.minimum(high, 2.0).to(tl.float32)
    else:
        return tl.maximum(value - slack, 0.0).to(tl.float32), (value + slack).to(tl.float32)


@triton.jit
def report(undecided, capacity, row, center):
    """Add an open pair to the list (1 + capacity, 2) int32, which starts with its length."""
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
    found,  # (1,) int32: how many of them there are
    capacity,
    exact,  # (n,) float32 bits, lowered to the decision values
    undecided,  # (1 + undecided_capacity, 2) int32
    undecided_capacity,
    d,
    scale,  # its square multiplies squared distances
    ranks,  # (m,) int32 or None
    keys,  # (n,) int64 or None: instead of `exact`, (bits of the value << 32) + rank
    COSINE: tl.constexpr,
    BP: tl.constexpr,
    BK: tl.constexpr,
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
        if keys is None:
            tl.atomic_min(exact + row, bits, mask=inside)
        else:
            rank = tl.load(ranks + center, inside, 0)
            tl.atomic_min(keys + row, (bits.to(tl.int64) << 32) + rank, mask=inside)


@triton.jit
def tile_of_rows(x, stride, row, origin, column, d, COSINE: tl.constexpr):
    """Columns of rows in float64, 0 beyond the last, relative to ``origin`` unless COSINE."""
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
    work,  # (programs, 4) int32: up to BM rows and up to BN centers of each program
    origin,  # (1,) int32: the row of y that is moved to zero
    exact,  # (n,) float32 bits, lowered to the decision values
    block,  # (R, R) float32: with STORE, rows and centers are the same
    size,  # R
    undecided,  # (1 + undecided_capacity, 2) int32
    undecided_capacity,
    d,
    scale,  # its square multiplies squared distances
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
    if STORE:  # a row is no neighbour of itself
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
