"""Triton: one pair of rows in double-double arithmetic, for `triton_exact`.

A double-double number is an unevaluated sum of two float64 numbers, value and error. Two-sum and
Dekker's product are exact only if nothing is contracted to a fused multiply-add, so these kernels
are compiled with contraction off.
"""

import triton
import triton.language as tl


@triton.jit
def two_sum(a, b):
    """Return the float64 sum and its exact rounding error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def split(a):
    """Return two halves of 26 bits that add up to the float64."""
    scaled = 134217728.0 * a + a
    high = scaled - (scaled - a)
    return high, a - high


@triton.jit
def two_product(a, b):
    """Return the float64 product and its rounding error, exact unless something underflows."""
    product = a * b
    a_high, a_low = split(a)
    b_high, b_low = split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


@triton.jit
def fold(total, error):
    """Return the sum of up to 128 double-double numbers.

    The totals are cut into slices on common grids, coarse enough for each slice to add up exactly.
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
    """Return a double-double number plus the product of two float64 numbers."""
    product, rest = two_product(a, b)
    total, carry = two_sum(total, product)
    return total, error + (carry + rest)


@triton.jit
def long_product(a, a_error, b, b_error):
    """Return the product of two double-double numbers."""
    product, rest = two_product(a, b)
    return product, rest + (a * b_error + a_error * b)


@triton.jit
def round_once(value, rest, slack, exact):
    """Return value + rest, at least 0, rounded once to float32, and whether that is open.

    It may be off by ``slack`` unless it is ``exact``.
    """
    nearest = value.to(tl.float32)
    bits = nearest.to(tl.int32, bitcast=True)
    above = (bits + 1).to(tl.float32, bitcast=True).to(tl.float64)
    below = tl.maximum(bits - 1, 0).to(tl.float32, bitcast=True).to(tl.float64)
    over = (value - (nearest.to(tl.float64) + above) * 0.5) + rest
    under = (value - (nearest.to(tl.float64) + below) * 0.5) + rest
    open_ = ((tl.abs(over) <= slack) | ((tl.abs(under) <= slack) & (bits > 0))) & (exact == 0)
    bits = tl.where(exact, bits, tl.where(over > slack, bits + 1, bits))
    bits = tl.where((exact == 0) & (under < -slack) & (bits > 0), bits - 1, bits)
    return bits.to(tl.float32, bitcast=True), open_


@triton.jit
def settle_euclidean(x, y, d, grain, scale, BK: tl.constexpr):
    """Return the squared distance of two rows, rounded once to float32, and whether it is open."""
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
    size = (d + 8).to(tl.float64)
    slack = size * size * 4.930380657631324e-32 * value  # 2^-104
    return round_once(value, rest, slack, tie)


@triton.jit
def cosine_excess(dot, dot_error, scale, scale_error, limit):
    """Return ``limit - similarity`` with both sides squared and signed, to need no square root."""
    sign = tl.where(dot < 0, -1, 1)
    square, square_error = long_product(dot, dot_error, sign * dot, sign * dot_error)
    other, other_error = long_product(scale, scale_error, limit * tl.abs(limit), 0 * limit)
    return (other - square) + (other_error - square_error)


@triton.jit
def settle_cosine(x, y, d, BK: tl.constexpr):
    """Return the cosine distance of two rows, rounded once to 2^-23, and whether it is open."""
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
def long_dot(x, y, d, BK: tl.constexpr):
    """Return the dot product of two rows as a double-double number."""
    total, error = tl.zeros((BK,), tl.float64), tl.zeros((BK,), tl.float64)
    for k in range(0, d, BK):
        column = k + tl.arange(0, BK)
        a = tl.load(x + column, column < d, 0).to(tl.float64)
        b = tl.load(y + column, column < d, 0).to(tl.float64)
        total, error = add_product(total, error, a, b)
    value, rest = fold(total, error)
    return value, rest


@triton.jit
def differing(x, y, d, BK: tl.constexpr):
    """Return in how many columns two rows differ."""
    count = 0
    for k in range(0, d, BK):
        column = k + tl.arange(0, BK)
        a, b = tl.load(x + column, column < d, 0), tl.load(y + column, column < d, 0)
        count += tl.sum((a.to(tl.float64) != b.to(tl.float64)).to(tl.int32), 0)
    return count


@triton.jit
def settle_products(u, v, w, z, d, right_d, scale, BK: tl.constexpr):
    """The same of two outer products u v and w z of rows, which cancels where they are close."""
    uu, uu_error = long_dot(u, u, d, BK)
    vv, vv_error = long_dot(v, v, right_d, BK)
    own, own_error = long_product(uu, uu_error, vv, vv_error)
    ww, ww_error = long_dot(w, w, d, BK)
    zz, zz_error = long_dot(z, z, right_d, BK)
    other, other_error = long_product(ww, ww_error, zz, zz_error)
    uw, uw_error = long_dot(u, w, d, BK)
    vz, vz_error = long_dot(v, z, right_d, BK)
    cross, cross_error = long_product(uw, uw_error, vz, vz_error)
    norms, rest = two_sum(own, other)
    value, more = two_sum(norms, -2 * cross)
    rest = (rest + more) + ((own_error + other_error) - 2 * cross_error)
    value, rest = two_sum(value, rest)  # which may be of one size, as the sum cancels
    size = (d + right_d + 16).to(tl.float64)
    slack = size * size * 3.1554436208840472e-30 * norms + 1.9010698e-211  # 2^-98, 2^-700
    equal = differing(u, w, d, BK) + differing(v, z, right_d, BK) == 0
    none = equal | (value < 0)  # it is at least 0, and off by `slack` at most
    value, rest = tl.where(none, 0.0, value), tl.where(none, 0.0, rest)
    value, rest, slack = value * scale * scale, rest * scale * scale, slack * scale * scale
    result, open_ = round_once(value, rest, slack, equal)
    return result, open_


@triton.jit
def settle(
    x,
    x_stride,
    x_grains,
    row,
    y,
    y_stride,
    y_grains,
    center,
    d,
    scale,
    x_right,
    x_right_stride,
    y_right,
    y_right_stride,
    right_d,
    COSINE: tl.constexpr,
):
    """Return the decision value of a row and a center, and whether it is still open."""
    one, other = x + row * x_stride, y + center * y_stride
    if COSINE:
        value, open_ = settle_cosine(one, other, d, 128)
    elif x_right is not None:
        second, other_second = x_right + row * x_right_stride, y_right + center * y_right_stride
        value, open_ = settle_products(one, second, other, other_second, d, right_d, scale, 128)
    else:
        grain = tl.minimum(tl.load(x_grains + row), tl.load(y_grains + center)).to(tl.float64)
        value, open_ = settle_euclidean(one, other, d, grain, scale, 128)
    return value, open_
