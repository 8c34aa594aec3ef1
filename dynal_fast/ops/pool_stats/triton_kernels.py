"""The Triton kernel of the pool statistics for rows that fit in registers."""

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats.triton_activation import (
    entropy_term,
    first_entropy,
    tile_statistics,
    whole_row_probabilities,
)
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

# A row of so many classes fills the registers: per-sample sums are then loaded after the fold.
FULL_TILE = tl.constexpr(4096)

# Arguments that change within a pass (the last batch is smaller, ids are views): Triton must not
# compile a kernel again for another value or alignment.
VARYING = {
    "do_not_specialize": ["batch", "num_samples"],
    "do_not_specialize_on_alignment": [
        "ids_ptr",
        "targets_ptr",
        "pass_stamp_ptr",
        "stamp_ptr",
        "unknown_ids_ptr",
    ],
}


@triton.jit(**VARYING)
def update_whole_rows(
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
    TILE: tl.constexpr,  # at least NUM_CLASSES
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SIGMOID: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    await_previous(DEPENDENT)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_batch = rows < batch
    classes = tl.arange(0, TILE)
    valid = in_batch[:, None] & (classes < NUM_CLASSES)[None, :]
    ids, samples, in_range = load_ids(ids_ptr, rows, batch, num_samples)
    x = logits_tile(source, rows, classes, in_batch, NUM_CLASSES, DEPTH, OPERAND, PRECISION)
    offsets = samples[:, None] * NUM_CLASSES + classes[None, :]
    if source.weight is None:  # loaded together with the logits
        loaded = load_state(state, offsets, valid & in_range[:, None])
    counts = next_count(state.count, samples, in_range)
    logit_counts = next_count(state.logit_count, samples, in_range)
    claimed = claim_rows(
        ids, samples, in_range, rows, batch, pass_stamp_ptr, stamp_ptr, unknown_ids_ptr
    )

    top, label, second, finite = tile_statistics(x, valid, state.logit_count, SIGMOID)
    if TILE < FULL_TILE:
        label_count = load_label_count(state, samples, label, in_range, NUM_CLASSES)
        old_sums = load_sums(state, samples, in_range)
    p, total = whole_row_probabilities(x, top, valid, SIGMOID)
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
        teacher_top, _, _, teacher_finite = tile_statistics(y, valid, None, SIGMOID)
        q, _ = whole_row_probabilities(y, teacher_top, valid, SIGMOID)
        finite = finite & teacher_finite
    targets = load_targets(targets_ptr, rows, in_batch)
    finite = finite & (targets < NUM_CLASSES)
    write = flag_non_finite(stamp_ptr, samples, claimed, finite)

    entropy = first_entropy(total, SIGMOID) + entropy_term(x, p, top, valid, SIGMOID)
    if state.training is not None:
        logit, probability, squares = target_terms(x, p, classes, targets)
        training_update(
            state, samples, write, targets, label, top, second, logit, probability, squares
        )
    if source.weight is not None:  # loaded after the products, which need the registers
        loaded = load_state(state, offsets, valid & write[:, None])
    sums = fold_tile(
        x.to(tl.float32),
        p,
        q,
        loaded,
        state,
        offsets,
        valid & write[:, None],
        1.0 / counts.to(tl.float32),
        1.0 / logit_counts.to(tl.float32),
    )
    if TILE >= FULL_TILE:
        label_count = load_label_count(state, samples, label, write, NUM_CLASSES)
        old_sums = load_sums(state, samples, write)
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
        sums,
        NUM_CLASSES,
    )
