"""Triton: what may be discarded. Proven bounds of decision values from the matrix units.

The units see rows in float16, bfloat16 or tf32. What they cut off of a row is measured once, as
its ``tail``, and widens the bounds, which ``README.md`` derives. Nothing of size rows x centers is
written, except by ``DISTANCES``.
"""

import triton
import triton.language as tl

BOUND = tl.constexpr(0)  # lower `bound` to the least upper bound of each row
DISTANCES = tl.constexpr(1)  # store both bounds
COLLECT = tl.constexpr(2)  # list the pairs whose lower bound is within `bound`

MAX_SQUARED_NORM = tl.constexpr(2.0**252)  # contract.MAX_SQUARED_NORM
LARGEST = tl.constexpr((2.0**24 - 1) * 2.0**104)  # the largest float32


@triton.jit
def lowest_bit(v):
    """The value of the lowest set bit of each float64, +inf for 0, 0 for subnormals."""
    bits = v.to(tl.int64, bitcast=True)
    exponent = (bits >> 52) & 0x7FF
    mantissa = (bits & 0xFFFFFFFFFFFFF) | 0x10000000000000
    unit = (exponent << 52).to(tl.float64, bitcast=True) * 2.220446049250313e-16  # 2^-52
    lowest = (mantissa & -mantissa).to(tl.float64) * unit
    return tl.where(v == 0, float("inf"), lowest)


@triton.jit(
    do_not_specialize=["n", "d"],
    do_not_specialize_on_alignment=["norms", "tails", "grains", "bad"],
)
def measure(
    x,  # (n, d)
    stride,
    n,
    d,
    norms,  # (n,) float32: |x|^2; cosine: 1 / |x|
    tails,  # (n,) float32: |x - x'|; cosine: |x - x'| / |x|
    grains,  # (n,) float32: every element is an integer times this power of two, or 0
    found,  # (2,) int64: the first row that cannot be compared, the bits of the largest magnitude
    scale,  # rows are multiplied by this first
    COSINE: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = row < n
    start = x + row.to(tl.int64)[:, None] * stride
    squares = tl.zeros((BM,), tl.float64)
    residues = tl.zeros((BM,), tl.float64)
    grain = tl.full((BM,), float("inf"), tl.float64)
    largest = tl.zeros((BM,), tl.int64)
    for k in range(0, d, BK):
        column = k + tl.arange(0, BK)
        value = tl.load(start + column, inside[:, None] & (column < d), 0)
        exact = value.to(tl.float64) * scale
        largest = tl.maximum(largest, tl.max(tl.abs(exact).to(tl.int64, bitcast=True), 1))
        squares += tl.sum(exact * exact, 1)
        if value.dtype != tl.float16 and value.dtype != tl.bfloat16:
            seen = exact.to(tl.float32).to(tl.int32, bitcast=True) & -8192
            residue = exact - seen.to(tl.float32, bitcast=True).to(tl.float64)
            residues += tl.sum(residue * residue, 1)
        grain = tl.minimum(grain, tl.min(lowest_bit(exact), 1))
    unusable = (squares <= MAX_SQUARED_NORM) == 0
    if COSINE:
        unusable = unusable | (squares < 1e-280)  # contract.MIN_COSINE_SQUARED_NORM
    none = tl.zeros((BM,), tl.int32)
    tl.atomic_min(found + none, row.to(tl.int64), mask=inside & unusable)
    tl.atomic_max(found + 1, tl.max(tl.where(inside, largest, 0), 0))
    # Rounded up by 2^-20 for its own rounding errors, and by what hardware may flush to zero.
    length = tl.sqrt(squares)
    tail = tl.sqrt(residues) * (1 + 9.5367431640625e-07) + d * 1.1754943508222875e-38
    if COSINE:
        short = length < 8.881784197001252e-16  # 2^-50
        inverse = tl.where(short, 0.0, 1 / tl.where(short, 1.0, length))
        tl.store(norms + row, inverse.to(tl.float32), inside)
        share = tl.where(short, 4.0, tail * inverse * (1 + 9.5367431640625e-07))
        tl.store(tails + row, share.to(tl.float32), inside)
    else:
        tl.store(norms + row, squares.to(tl.float32), inside)
        tl.store(tails + row, tail.to(tl.float32), inside)
    tl.store(grains + row, grain.to(tl.float32), inside)


@triton.jit
def operand(value, scale, OPERAND: tl.constexpr, SCALED: tl.constexpr):
    """Elements as the matrix units see them."""
    if SCALED:
        if value.dtype != tl.float64:
            value = value.to(tl.float32)
        value = value * scale
    return value.to(OPERAND)


@triton.jit
def dot_products(
    x,  # (BM, 1) pointers to rows
    y,  # (BN, 1) pointers to rows
    d,
    x_scale,
    y_scale,
    OPERAND: tl.constexpr,
    SCALED: tl.constexpr,
    EVEN: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Dot products (BM, BN) float32 of rows, as the matrix units see them."""
    column = tl.arange(0, BK)
    dots = tl.zeros((BM, BN), tl.float32)
    for k in range(0, d, BK):
        if EVEN:
            a = tl.load(x + (k + column))
            b = tl.load(y + (k + column))
        else:
            a = tl.load(x + (k + column), (k + column < d)[None, :], 0)
            b = tl.load(y + (k + column), (k + column < d)[None, :], 0)
        a, b = operand(a, x_scale, OPERAND, SCALED), operand(b, y_scale, OPERAND, SCALED)
        dots = tl.dot(a, tl.trans(b), dots, input_precision="tf32")
    return dots


@triton.jit(
    do_not_specialize=["d", "columns", "capacity", "right_d"],
    do_not_specialize_on_alignment=[
        "x_norms",
        "x_tails",
        "rows",
        "y_norms",
        "y_tails",
        "centers",
        "work",
        "first",
        "bound",
        "lower_out",
        "upper_out",
        "found",
        "pair_rows",
        "pair_centers",
    ],
)
def compare(
    x,  # (n, d)
    x_stride,
    x_norms,  # (n,) float32
    x_tails,  # (n,) float32
    rows,  # (R,) int32
    y,  # (m, d)
    y_stride,
    y_norms,  # (m,) float32
    y_tails,  # (m,) float32
    centers,  # (C,) int32
    work,  # (programs, 4) int32: the slice of rows and the slice of centers of each program
    first,  # (R,) int32 or None: COLLECT skips the centers before this position
    d,
    scale,  # with SCALED, rows are multiplied by this; norms and tails are of the product
    raised,  # distances are multiplied by its square
    bound,  # (n,) float32 as int32 bits
    lower_out,  # (R, C) float32
    upper_out,  # (R, C) float32
    columns,  # C
    found,  # (1,) int32: pairs found so far
    pair_rows,  # (capacity,) int32
    pair_centers,  # (capacity,) int32
    capacity,
    MODE: tl.constexpr,
    COSINE: tl.constexpr,
    OPERAND: tl.constexpr,  # what the matrix units take
    SCALED: tl.constexpr,
    EVEN: tl.constexpr,  # d is a multiple of BK
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    RIGHT_OPERAND: tl.constexpr,
    RIGHT_EVEN: tl.constexpr,
    y_scale,  # of outer products, as all that follows: x and y may differ
    y_raised,
    x_right_scale,
    y_right_scale,
    x_right=None,  # (n, right_d): the second factors
    x_right_stride=None,
    y_right=None,  # (m, right_d)
    y_right_stride=None,
    right_d=None,
):
    job = work + tl.program_id(0).to(tl.int64) * 4
    row_start, row_end = tl.load(job), tl.load(job + 1)
    center_start, center_end = tl.load(job + 2), tl.load(job + 3)
    position = row_start + tl.arange(0, BM)
    inside = position < row_end
    position = tl.minimum(position, row_end - 1)
    row = tl.load(rows + position)
    start = x + row.to(tl.int64)[:, None] * x_stride
    norm, tail = tl.load(x_norms + row), tl.load(x_tails + row)
    length = tl.sqrt(norm) * (1 + 9.5367431640625e-07) + 2.168404344971009e-19
    low_work = center_start
    if MODE == COLLECT:
        reach = tl.load(bound + row).to(tl.float32, bitcast=True)
        if first is not None:
            since = tl.load(first + position)
            low_work = tl.maximum(low_work, tl.load(first + row_start))
    best = tl.full((BM,), LARGEST, tl.float32)
    for c in range(low_work, center_end, BN):
        place = c + tl.arange(0, BN)
        there = place < center_end
        place = tl.minimum(place, center_end - 1)
        center = tl.load(centers + place)
        center_at = y + center.to(tl.int64)[:, None] * y_stride
        dots = dot_products(start, center_at, d, scale, y_scale, OPERAND, SCALED, EVEN, BM, BN, BK)
        other, other_tail = tl.load(y_norms + center), tl.load(y_tails + center)
        if COSINE:
            middle = 1 - dots * norm[:, None] * other[None, :]
            error = (tail[:, None] + other_tail[None, :]) + (d + 64) * 4.76837158203125e-07
        elif x_right is not None:
            right = dot_products(
                x_right + row.to(tl.int64)[:, None] * x_right_stride,
                y_right + center.to(tl.int64)[:, None] * y_right_stride,
                right_d,
                x_right_scale,
                y_right_scale,
                RIGHT_OPERAND,
                SCALED,
                RIGHT_EVEN,
                BM,
                BN,
                BK,
            )
            total = norm[:, None] + other[None, :]
            middle = total - 2 * (dots * right * raised * y_raised)
            terms = d + right_d + 64
            share = (tail[:, None] + other_tail[None, :]) + terms * 2.384185791015625e-07
            error = (share + share * share) * total
            error += terms * 8.673617379884035e-19 * raised * y_raised  # 2^-60
        else:
            reach_of = tl.sqrt(other) * (1 + 9.5367431640625e-07) + 2.168404344971009e-19
            total = norm[:, None] + other[None, :]
            middle = total - 2 * dots
            error = 2.001953125 * (tail[:, None] * reach_of[None, :] + length[:, None] * other_tail)
            error += (d + 16) * 2.384185791015625e-07 * total + (d + 16) * 4.70197740328915e-38
            middle, error = middle * raised * raised, error * raised * raised
        if MODE == BOUND:
            upper = tl.where(there[None, :], tl.maximum(middle + error, 0), LARGEST)
            best = tl.minimum(best, tl.min(upper, 1))
        else:
            lower = tl.minimum(tl.maximum(middle - error, 0), LARGEST)
            kept = inside[:, None] & there[None, :]
            if MODE == DISTANCES:
                at = position.to(tl.int64)[:, None] * columns + place[None, :]
                tl.store(lower_out + at, lower, kept)
                tl.store(upper_out + at, tl.maximum(middle + error, 0), kept)
            else:
                kept = kept & (lower <= reach[:, None])
                if first is not None:
                    kept = kept & (place[None, :] >= since[:, None])
                # Masks and no branch, as warps may read different counts. Once `found` exceeds
                # `capacity` nothing is added, so that it cannot overflow.
                limit = tl.where(tl.load(found) <= capacity, center_end, 0)
                kept = kept & (place < limit)[None, :]
                zeros = tl.zeros((BM, BN), tl.int32)
                slot = tl.atomic_add(found + zeros, 1, mask=kept)
                kept = kept & (slot < capacity)
                tl.store(pair_rows + slot, row[:, None] + zeros, kept)
                tl.store(pair_centers + slot, center[None, :] + zeros, kept)
    if MODE == BOUND:
        tl.atomic_min(bound + row, best.to(tl.int32, bitcast=True), mask=inside)
