"""The Triton kernel of a fused head whose rows of logits are shared by several programs.

A program computes one tile of logits, ``ROWS`` rows by ``TILE`` classes, once, and keeps it in
registers. The programs of the same rows exchange their softmax statistics through memory, wait for
each other, and fold their tiles into the state; the last one writes what is kept once per sample.
Programs draw their numbers as they start, so those that one waits for are running or next: there
is no deadlock as long as ``TILES`` programs fit on the device at once.
"""

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats.triton_activation import (
    label_entropy,
    sigmoid,
    total_of_pair,
)
from dynal_fast.ops.pool_stats.triton_kernels import VARYING
from dynal_fast.ops.pool_stats.triton_logits import add_products
from dynal_fast.ops.pool_stats.triton_rows import (
    claim_rows,
    finish_rows,
    flag_non_finite,
    fold_tile,
    load_ids,
    load_label_count,
    load_state,
    load_sums,
    next_count,
)

# Per row of a tile: maximum, runner-up, sum of exponentials e, sum of e log e, label. Of sigmoids:
# |x| of the least sure label, nothing, 1, the labels' entropies, nothing. The third is -1 where a
# logit is not finite.
STATISTICS = 5
SUMS = 3  # M2, and the squared distances to the two outputs

NO_LABEL = tl.constexpr(2147483647)
# The logit of a column beyond the classes: finite, and its exponential is 0. Rows whose logits are
# all below it count as not finite.
NO_CLASS = tl.constexpr(-1e38)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def halves(x):
    """The left and the right half of the columns of x (rows, columns)."""
    pair = tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2))
    return tl.split(tl.permute(pair, (0, 2, 1)))


@triton.jit
def eighths(x):
    """The columns of x (rows, columns) as eight pieces, from left to right."""
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
    """Return per row of a tile: maximum, its first column, runner-up. Rows must be finite."""
    tops = pieces[0]
    seconds = tl.full(tops.shape, -float("inf"), tl.float32)
    labels = tl.zeros(tops.shape, tl.int32)
    for i in tl.static_range(1, 8):
        seconds = tl.maximum(seconds, tl.minimum(tops, pieces[i]))
        labels = tl.where(pieces[i] > tops, i, labels)
        tops = tl.maximum(tops, pieces[i])
    top = tl.max(tops, 1)
    labels = labels * WIDTH + tl.arange(0, WIDTH)[None, :]
    label = tl.min(tl.where(tops == top[:, None], labels, 8 * WIDTH), 1)
    second = tl.max(tl.where(labels == label[:, None], seconds, tops), 1)
    return top, label, second


@triton.jit
def load_tiles(pointer, row, TILES: tl.constexpr, MISSING: tl.constexpr):
    """Load what all programs of these rows stored in ``pointer`` (padded, TILES): (rows, tiles)."""
    tile = tl.arange(0, triton.next_power_of_2(TILES))[None, :]
    return tl.load(pointer + row[:, None] * TILES + tile, mask=tile < TILES, other=MISSING)


@triton.jit
def merge_tiles(statistics, row, padded, TILES: tl.constexpr, SIGMOID: tl.constexpr):
    """Return per row: maximum, label, runner-up, sum of exponentials, entropy, whether finite."""
    size = padded * TILES
    tops = load_tiles(statistics, row, TILES, -NO_CLASS if SIGMOID else NO_CLASS)
    totals = load_tiles(statistics + 2 * size, row, TILES, 0.0)
    weighted = load_tiles(statistics + 3 * size, row, TILES, 0.0)
    finite = tl.min(totals, 1) >= 0.0
    if SIGMOID:
        top = tl.min(tops, 1)
        label = tl.full(top.shape, 0, tl.int32)
        second = tl.full(top.shape, 0.0, tl.float32)
        total = total_of_pair(top)
        entropy = tl.sum(weighted, 1)
    else:
        seconds = load_tiles(statistics + size, row, TILES, NO_CLASS)
        labels = load_tiles(statistics + 4 * size, row, TILES, 0.0).to(tl.int32, bitcast=True)
        top = tl.max(tops, 1)
        label = tl.min(tl.where(tops == top[:, None], labels, NO_LABEL), 1)
        second = tl.max(tl.where(labels == label[:, None], seconds, tops), 1)
        below = tl.maximum(tops - top[:, None], -1000.0)  # whose exponential is 0
        scale = tl.exp2(below * LOG2_E)
        total = tl.sum(totals * scale, 1)
        entropy = tl.log(total) - tl.sum((weighted + below * totals) * scale, 1) / total
    return top, label, second, total, entropy, finite


@triton.jit
def prefetch(pointer, samples, start, NUM_CLASSES: tl.constexpr, TILE: tl.constexpr):
    """Prefetch the tile (samples, TILE) of a tensor of the state into L2."""
    if pointer is not None:
        STEP: tl.constexpr = 64 // (pointer.dtype.element_ty.primitive_bitwidth // 8)
        columns = tl.minimum(start + tl.arange(0, TILE // STEP) * STEP, NUM_CLASSES - 1)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;",
            "=r,l",
            [pointer + samples[:, None] * NUM_CLASSES + columns[None, :]],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def arrive(counter):
    """Publish this program's stores and count it; return how many came before."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel")


@triton.jit(**VARYING)
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
    counters,  # (blocks, 2) int32, zero: programs that stored statistics; that are done
    claims,  # (padded,) int32
    statistics,  # (STATISTICS, padded, TILES) float32
    row_sums,  # (SUMS, padded, TILES) float32
    padded,  # blocks * ROWS
    NUM_CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SIGMOID: tl.constexpr,
    PREFETCH: tl.constexpr,  # not under the interpreter
):
    number = tl.atomic_add(started, 1, sem="relaxed")
    block = number // TILES
    tile = number % TILES
    start = tile * TILE
    row = block * ROWS + tl.arange(0, ROWS)
    rows = row.to(tl.int64)
    ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
    if PREFETCH:
        prefetch(state.mean, samples, start, NUM_CLASSES, TILE)
        prefetch(state.class_m2, samples, start, NUM_CLASSES, TILE)
        prefetch(state.previous_output, samples, start, NUM_CLASSES, TILE)
        prefetch(state.output, samples, start, NUM_CLASSES, TILE)
    if tile == 0:
        claimed = claim_rows(
            ids, samples, in_range, rows, batch, pass_stamp_ptr, stamp_ptr, unknown_ids_ptr
        )
        tl.store(claims + row, claimed.to(tl.int32))

    classes = start + tl.arange(0, TILE)
    bias = tl.zeros((TILE,), tl.float32)
    if source.bias is not None:
        bias = tl.load(source.bias + classes, mask=classes < NUM_CLASSES, other=0.0).to(tl.float32)
    bias = tl.where(classes < NUM_CLASSES, bias, NO_CLASS)
    x = tl.zeros((ROWS, TILE), tl.float32) + bias[None, :]
    everywhere = row >= 0
    clamped = tl.minimum(rows, batch - 1)
    x = add_products(
        x, source, clamped, classes, everywhere, NUM_CLASSES, DEPTH, OPERAND, PRECISION
    )
    WIDTH: tl.constexpr = TILE // 8
    pieces = eighths(x)
    at = statistics + row * TILES + tile
    exponentials = ()
    totals = tl.zeros(pieces[0].shape, tl.float32)
    weighted = totals
    if SIGMOID:
        least = totals - NO_CLASS
        for i in tl.static_range(8):
            certainty = tl.abs(pieces[i])
            p = sigmoid(pieces[i], certainty)
            exponentials = exponentials + (p,)  # type: ignore[assignment]
            least = tl.minimum(least, certainty)
            weighted += label_entropy(certainty)  # not finite where a logit is not
        top = tl.min(least, 1)
        total = tl.full(top.shape, 1.0, tl.float32)
        weighted = tl.sum(weighted, 1)
        usable = weighted == weighted
    else:
        top, label, second = tile_tops(pieces, WIDTH)
        tl.store(at + padded * TILES, second)
        tl.store(at + 4 * padded * TILES, (start + label).to(tl.float32, bitcast=True))
        for i in tl.static_range(8):
            below = pieces[i] - top[:, None]
            e = tl.exp2(below * LOG2_E)
            exponentials = exponentials + (e,)  # type: ignore[assignment]
            totals += e
            weighted += e * below  # not finite where a logit is not
        total = tl.sum(totals, 1)
        weighted = tl.sum(weighted, 1)
        usable = (weighted == weighted) & (top > NO_CLASS)
    tl.store(at, top)
    tl.store(at + 2 * padded * TILES, tl.where(usable, total, -1.0))
    tl.store(at + 3 * padded * TILES, weighted)
    arrived = arrive(counters + 2 * block) + 1
    while arrived < TILES:
        arrived = tl.atomic_add(counters + 2 * block, 0, sem="acquire")

    ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
    row_top, _, _, total, _, finite = merge_tiles(statistics, row, padded, TILES, SIGMOID)
    scale = total * 0.0 + 1.0 if SIGMOID else tl.exp2((tl.load(at) - row_top) * LOG2_E) / total
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
        piece_m2, _, piece_increase, piece_cycle, _ = fold_tile(
            p, p, 0.0, loaded, state, offsets, mask, inverse_count, inverse_count
        )
        m2 += piece_m2
        increase += piece_increase
        cycle += piece_cycle
    at = row_sums + row * TILES + tile
    tl.store(at, m2)
    tl.store(at + padded * TILES, increase)
    tl.store(at + 2 * padded * TILES, cycle)

    if arrive(counters + 2 * block + 1) == TILES - 1:
        # loaded again: keeping all this would take too many registers
        ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
        top, label, second, total, entropy, finite = merge_tiles(
            statistics, row, padded, TILES, SIGMOID
        )
        claimed = tl.load(claims + row) != 0
        write = flag_non_finite(stamp_ptr, samples, claimed, finite)
        counts = next_count(state.count, samples, in_range)
        old_sums = load_sums(state, samples, in_range)
        label_count = load_label_count(state, samples, label, write, NUM_CLASSES)
        size = padded * TILES
        m2 = tl.sum(load_tiles(row_sums, row, TILES, 0.0), 1)
        increase = tl.sum(load_tiles(row_sums + size, row, TILES, 0.0), 1)
        cycle = tl.sum(load_tiles(row_sums + 2 * size, row, TILES, 0.0), 1)
        finish_rows(
            state,
            samples,
            write,
            counts,
            counts,
            old_sums,
            label_count,
            top,
            label,
            second,
            total,
            entropy,
            (m2, m2, increase, cycle, m2),
            NUM_CLASSES,
        )
