"""The Triton kernel of a fused head whose rows of logits several programs hold together.

A program computes one tile of logits, ``ROWS`` rows by ``TILE`` classes, once, and keeps it in its
registers. The programs of the same rows tell each other their softmax statistics, wait until all
of them have, and fold their tiles into the state; the last one to do so writes what is kept once
per sample. Programs start in the order of their numbers, so those that a waiting program waits
for run already or start next: it suffices that ``TILES`` programs fit on the device at once.
"""

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats.triton_kernels import logits_tile
from dynal_fast.ops.pool_stats.triton_rows import (
    claim_rows,
    finish_rows,
    flag_non_finite,
    fold_tile,
    load_ids,
    load_state,
    next_count,
)

# Of a row in a tile: maximum, runner-up, sum of exponentials e, sum of e log e, label.
STATISTICS = 5
SUMS = 3  # M2, and the squared distances to the two outputs


@triton.jit
def halves(x):
    """The left and the right half of the columns of x (rows, columns)."""
    pair = tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2))
    return tl.split(tl.permute(pair, (0, 2, 1)))


@triton.jit
def eighths(x):
    """The columns of x (rows, columns) in eight pieces, from left to right."""
    left, right = halves(x)
    a, b = halves(left)
    c, d = halves(right)
    a0, a1 = halves(a)
    b0, b1 = halves(b)
    c0, c1 = halves(c)
    d0, d1 = halves(d)
    return a0, a1, b0, b1, c0, c1, d0, d1


@triton.jit
def tile_tops(pieces, WIDTH: tl.constexpr):
    """Return per row of a tile: maximum, its first column, runner-up; of finite rows."""
    columns = tl.arange(0, WIDTH)[None, :]
    tops = pieces[0]
    for i in tl.static_range(1, 8):
        tops = tl.maximum(tops, pieces[i])
    top = tl.max(tops, 1)
    labels = tl.full(tops.shape, 8 * WIDTH, tl.int32)
    for i in tl.static_range(8):
        is_top = pieces[i] == top[:, None]
        labels = tl.minimum(labels, tl.where(is_top, i * WIDTH + columns, 8 * WIDTH))
    label = tl.min(labels, 1)
    seconds = tl.full(tops.shape, -float("inf"), tl.float32)
    for i in tl.static_range(8):
        rest = tl.where(i * WIDTH + columns == label[:, None], -float("inf"), pieces[i])
        seconds = tl.maximum(seconds, rest)
    return top, label, tl.max(seconds, 1)


@triton.jit
def merge_tiles(statistics, row, stride, TILES: tl.constexpr):
    """Return a row's maximum, label, runner-up, sum of exponentials, entropy, finite."""
    top = tl.full(row.shape, -float("inf"), tl.float32)
    second = top
    total = tl.zeros(row.shape, tl.float32)
    weighted = tl.zeros(row.shape, tl.float32)
    label = tl.zeros(row.shape, tl.int32)
    finite = row >= 0
    for tile in range(TILES):
        at = statistics + tile * stride + row
        tile_top = tl.load(at)
        tile_second = tl.load(at + TILES * stride)
        tile_total = tl.load(at + 2 * TILES * stride)
        tile_weighted = tl.load(at + 3 * TILES * stride)
        tile_label = tl.load(at + 4 * TILES * stride).to(tl.int32, bitcast=True)
        second = tl.maximum(tl.maximum(second, tile_second), tl.minimum(top, tile_top))
        label = tl.where(tile_top > top, tile_label, label)
        new_top = tl.maximum(top, tile_top)
        old_scale = tl.exp(top - new_top)
        weighted = tl.where(total > 0, (weighted + (top - new_top) * total) * old_scale, 0.0)
        total = total * old_scale
        tile_scale = tl.exp(tile_top - new_top)
        weighted += (tile_weighted + (tile_top - new_top) * tile_total) * tile_scale
        total += tile_total * tile_scale
        finite = finite & (tile_total > 0)
        top = new_top
    return top, label, second, total, tl.log(total) - weighted / total, finite


@triton.jit
def arrive(counter):
    """Count this program, which makes what it stored visible; return how many came before."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel")


@triton.jit
def update_split_rows(
    ids_ptr,  # (batch,)
    source,
    batch,
    num_samples,
    pass_stamp_ptr,  # (1,)
    stamp_ptr,  # (num_samples,)
    unknown_ids_ptr,  # (1 + MAX_UNKNOWN_IDS,)
    state,  # (num_samples,) and (num_samples, NUM_CLASSES)
    started,  # (1,) int32, zero: programs that took a number
    counters,  # (blocks, 2) int32, zero: programs that exchanged statistics, and that are done
    claims,  # (blocks * ROWS,) int32
    statistics,  # (STATISTICS, TILES, blocks * ROWS) float32
    row_sums,  # (SUMS, TILES, blocks * ROWS) float32
    stride,  # blocks * ROWS
    NUM_CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    number = tl.atomic_add(started, 1, sem="relaxed")
    block = number // TILES
    tile = number % TILES
    row = block * ROWS + tl.arange(0, ROWS)
    rows = row.to(tl.int64)
    if tile == 0:
        ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
        claimed = claim_rows(
            ids, samples, in_range, rows, batch, pass_stamp_ptr, stamp_ptr, unknown_ids_ptr
        )
        tl.store(claims + row, claimed.to(tl.int32))

    start = tile * TILE
    classes = start + tl.arange(0, TILE)
    everywhere = row >= 0
    clamped = tl.minimum(rows, batch - 1)
    x = logits_tile(source, clamped, classes, everywhere, NUM_CLASSES, DEPTH, OPERAND, PRECISION)
    finite = tl.sum(x * 0.0, 1) == 0.0
    x = tl.where((classes < NUM_CLASSES)[None, :], x, -float("inf"))
    WIDTH: tl.constexpr = TILE // 8
    pieces = eighths(x)
    top, label, second = tile_tops(pieces, WIDTH)
    at = statistics + tile * stride + row
    tl.store(at, top)
    tl.store(at + TILES * stride, second)
    tl.store(at + 4 * TILES * stride, (start + label).to(tl.float32, bitcast=True))
    exponentials = ()
    total = tl.zeros((ROWS,), tl.float32)
    weighted = total
    for i in tl.static_range(8):
        below = tl.maximum(pieces[i] - top[:, None], -200.0)  # whose exponential is 0
        e = tl.exp(below)
        exponentials = exponentials + (e,)  # type: ignore[assignment]
        total += tl.sum(e, 1)
        weighted += tl.sum(e * below, 1)
    tl.store(at + 2 * TILES * stride, tl.where(finite, total, -1.0))
    tl.store(at + 3 * TILES * stride, weighted)
    arrived = arrive(counters + 2 * block) + 1
    while arrived < TILES:
        arrived = tl.atomic_add(counters + 2 * block, 0, sem="acquire")

    ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
    row_top, _, _, total, _, finite = merge_tiles(statistics, row, stride, TILES)
    scale = tl.exp(tl.load(at) - row_top) / total
    write = finite & (tl.load(claims + row) != 0)
    inverse_count = 1.0 / next_count(state.count, samples, in_range).to(tl.float32)
    m2 = tl.zeros((ROWS,), tl.float32)
    increase, cycle = m2, m2
    for i in tl.static_range(8):
        columns = start + i * WIDTH + tl.arange(0, WIDTH)
        mask = write[:, None] & (columns < NUM_CLASSES)[None, :]
        offsets = samples[:, None] * NUM_CLASSES + columns[None, :]
        p = exponentials[i] * scale[:, None]
        loaded = load_state(state, offsets, mask)
        sums = fold_tile(p, p, 0.0, loaded, state, offsets, mask, inverse_count, inverse_count)
        m2 += sums[0]
        increase += sums[2]
        cycle += sums[3]
    at = row_sums + tile * stride + row
    tl.store(at, m2)
    tl.store(at + TILES * stride, increase)
    tl.store(at + 2 * TILES * stride, cycle)

    if arrive(counters + 2 * block + 1) == TILES - 1:
        # read again: it would take too many registers to keep all this
        ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
        top, label, second, total, entropy, finite = merge_tiles(statistics, row, stride, TILES)
        claimed = tl.load(claims + row) != 0
        write = flag_non_finite(stamp_ptr, samples, claimed, finite)
        counts = next_count(state.count, samples, in_range)
        m2 = tl.zeros(row.shape, tl.float32)
        increase, cycle = m2, m2
        for other in range(TILES):
            at = row_sums + other * stride + row
            m2 += tl.load(at)
            increase += tl.load(at + TILES * stride)
            cycle += tl.load(at + 2 * TILES * stride)
        finish_rows(
            state,
            samples,
            write,
            counts,
            counts,
            top,
            label,
            second,
            total,
            entropy,
            (m2, m2, increase, cycle, m2),
            NUM_CLASSES,
        )
