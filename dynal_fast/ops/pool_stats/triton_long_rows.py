"""The Triton kernel of the pool statistics for rows that are walked twice, in tiles."""

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats.triton_activation import (
    entropy_term,
    first_entropy,
    merge_statistics,
    probabilities,
    total_of_pair,
)
from dynal_fast.ops.pool_stats.triton_kernels import VARYING
from dynal_fast.ops.pool_stats.triton_logits import logits_tile
from dynal_fast.ops.pool_stats.triton_rows import (
    await_previous,
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
from dynal_fast.ops.pool_stats.triton_training import (
    load_targets,
    target_terms,
    training_update,
)


@triton.jit
def long_row_statistics(
    source,
    logit_count,  # None where the logits may have any finite value
    rows,
    in_batch,
    num_classes,
    NUM_CLASSES: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SIGMOID: tl.constexpr,
):
    """Walk rows in tiles; return maximum, its first class, runner-up, total, whether all finite."""
    float64: tl.constexpr = source.weight is None and source.rows.dtype.element_ty == tl.float64
    dtype: tl.constexpr = tl.float64 if float64 else tl.float32
    top = tl.full(rows.shape, float("inf") if SIGMOID else -float("inf"), dtype)
    second = tl.full(rows.shape, -float("inf"), dtype)
    label = tl.full(rows.shape, 0, tl.int32)
    total = tl.full(rows.shape, 0.0, tl.float32)
    finite = in_batch
    for start in range(0, num_classes, TILE):
        classes = start + tl.arange(0, TILE)
        valid = in_batch[:, None] & (classes < NUM_CLASSES)[None, :]
        x = logits_tile(source, rows, classes, in_batch, NUM_CLASSES, DEPTH, OPERAND, PRECISION)
        top, label, second, total, tile_finite = merge_statistics(
            top, label, second, total, x, valid, start, logit_count, SIGMOID
        )
        finite = finite & tile_finite
    if SIGMOID:
        second = tl.full(rows.shape, 0.0, dtype)
        total = total_of_pair(top)
    return top, label, second, total, finite


@triton.jit(**VARYING)
def update_long_rows(
    ids_ptr,  # (batch,)
    targets_ptr,  # (batch,), or None
    source,
    teacher_source,
    batch,
    num_samples,
    num_classes,  # NUM_CLASSES, no constexpr: loops up to it are not unrolled
    pass_stamp_ptr,  # (1,)
    stamp_ptr,  # (num_samples,)
    unknown_ids_ptr,  # (1 + MAX_UNKNOWN_IDS,)
    state,  # (num_samples,) and (num_samples, NUM_CLASSES)
    NUM_CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SIGMOID: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    await_previous(DEPENDENT)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_batch = rows < batch
    ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
    counts = next_count(state.count, samples, in_range)
    logit_counts = next_count(state.logit_count, samples, in_range)
    old_sums = load_sums(state, samples, in_range)
    claimed = claim_rows(
        ids, samples, in_range, rows, batch, pass_stamp_ptr, stamp_ptr, unknown_ids_ptr
    )
    top, label, second, total, finite = long_row_statistics(
        source,
        state.logit_count,
        rows,
        in_batch,
        num_classes,
        NUM_CLASSES,
        TILE,
        DEPTH,
        OPERAND,
        PRECISION,
        SIGMOID,
    )
    inverse_total = 1.0 / total
    teacher_top = top
    teacher_inverse_total = inverse_total
    if teacher_source.rows is not None:
        teacher_top, _, _, teacher_total, teacher_finite = long_row_statistics(
            teacher_source,
            None,
            rows,
            in_batch,
            num_classes,
            NUM_CLASSES,
            TILE,
            DEPTH,
            OPERAND,
            PRECISION,
            SIGMOID,
        )
        teacher_inverse_total = 1.0 / teacher_total
        finite = finite & teacher_finite
    targets = load_targets(targets_ptr, rows, in_batch)
    finite = finite & (targets < NUM_CLASSES)
    write = flag_non_finite(stamp_ptr, samples, claimed, finite)
    label_count = load_label_count(state, samples, label, write, NUM_CLASSES)

    entropy = first_entropy(total, SIGMOID)
    m2 = total * 0.0
    logit_m2 = total * 0.0
    increase = total * 0.0
    cycle = total * 0.0
    teacher = total * 0.0
    target_logit = tl.zeros(rows.shape, top.dtype)
    target_probability = total * 0.0
    other_squares = total * 0.0
    for start in range(0, num_classes, TILE):
        classes = start + tl.arange(0, TILE)
        valid = in_batch[:, None] & (classes < NUM_CLASSES)[None, :]
        offsets = samples[:, None] * NUM_CLASSES + classes[None, :]
        mask = valid & write[:, None]
        x = logits_tile(source, rows, classes, in_batch, NUM_CLASSES, DEPTH, OPERAND, PRECISION)
        p = probabilities(x, top, inverse_total, valid, SIGMOID)
        q = 0.0
        if teacher_source.rows is not None:
            y = logits_tile(
                teacher_source,
                rows,
                classes,
                in_batch,
                NUM_CLASSES,
                DEPTH,
                OPERAND,
                PRECISION,
            )
            q = probabilities(y, teacher_top, teacher_inverse_total, valid, SIGMOID)
        entropy += entropy_term(x, p, top, valid, SIGMOID)
        if state.training is not None:
            logit, probability, squares = target_terms(x, p, classes, targets)
            target_logit += logit
            target_probability += probability
            other_squares += squares
        loaded = load_state(state, offsets, mask)
        tile_m2, tile_logit_m2, tile_increase, tile_cycle, tile_teacher = fold_tile(
            x.to(tl.float32),
            p,
            q,
            loaded,
            state,
            offsets,
            mask,
            1.0 / counts.to(tl.float32),
            1.0 / logit_counts.to(tl.float32),
        )
        m2 += tile_m2
        logit_m2 += tile_logit_m2
        increase += tile_increase
        cycle += tile_cycle
        teacher += tile_teacher
    if state.training is not None:
        training_update(
            state,
            samples,
            write,
            targets,
            label,
            top,
            second,
            target_logit,
            target_probability,
            other_squares,
        )
    finish_rows(
        state,
        samples,
        write,
        counts,
        logit_counts,
        old_sums,
        label_count,
        top,
        label,
        second,
        total,
        entropy,
        (m2, logit_m2, increase, cycle, teacher),
        NUM_CLASSES,
    )
