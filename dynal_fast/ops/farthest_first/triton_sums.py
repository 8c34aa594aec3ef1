"""Triton: squared distances and dot products in float64, of pairs and of tiles of rows."""

import triton
import triton.language as tl


@triton.jit
def pair_sums(
    x,
    x_stride,
    row,
    y,
    y_stride,
    center,
    d,
    inside,
    DOTS: tl.constexpr,
    BP: tl.constexpr,
    BK: tl.constexpr,
):
    """Squared distances (BP,) of pairs of rows; with DOTS, dot products and both squared norms."""
    value = tl.zeros((BP,), tl.float64)
    own, other = tl.zeros((BP,), tl.float64), tl.zeros((BP,), tl.float64)
    for k in range(0, d, BK):
        column = k + tl.arange(0, BK)
        kept = inside[:, None] & (column < d)[None, :]
        a = tl.load(x + row[:, None] * x_stride + column, kept, 0).to(tl.float64)
        b = tl.load(y + center[:, None] * y_stride + column, kept, 0).to(tl.float64)
        if DOTS:
            value += tl.sum(a * b, 1)
            own += tl.sum(a * a, 1)
            other += tl.sum(b * b, 1)
        else:
            value += tl.sum((a - b) * (a - b), 1)
    return value, own, other


@triton.jit
def tile_of_rows(x, stride, row, origin, column, d, CENTERED: tl.constexpr):
    """Load columns of rows as float64, 0 beyond the last; CENTERED: minus ``origin``."""
    value = tl.load(x + row[:, None] * stride + column[None, :], (column < d)[None, :], 0)
    value = value.to(tl.float64)
    if CENTERED:
        value -= tl.load(origin + column, column < d, 0).to(tl.float64)[None, :]
    return value


@triton.jit
def tile_sums(
    x,
    x_stride,
    row,
    y,
    y_stride,
    center,
    origin,
    d,
    CENTERED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Dot products (BM, BN) of rows and centers, and the squared norms of both."""
    dots = tl.zeros((BM, BN), tl.float64)
    own, other = tl.zeros((BM,), tl.float64), tl.zeros((BN,), tl.float64)
    column = tl.arange(0, BK)
    a = tile_of_rows(x, x_stride, row, origin, column, d, CENTERED)
    b = tile_of_rows(y, y_stride, center, origin, column, d, CENTERED)
    for _ in range(0, d, BK):
        own += tl.sum(a * a, 1)
        other += tl.sum(b * b, 1)
        dots = tl.dot(a, tl.trans(b), dots, out_dtype=tl.float64)
        column += BK
        a = tile_of_rows(x, x_stride, row, origin, column, d, CENTERED)
        b = tile_of_rows(y, y_stride, center, origin, column, d, CENTERED)
    return dots, own, other
