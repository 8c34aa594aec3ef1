"""The steps that all Triton kernels of the pool statistics share: claim, fold, finish.

A program holds ``ROWS`` rows by ``TILE`` classes of logits at a time: the whole row where it fits,
else one tile of it after the other. Names and order follow ``reference.py``.
"""

from collections import namedtuple

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats import contract

State = namedtuple("State", tuple(contract.STATE))  # type: ignore[misc]

DROPPED = tl.constexpr(contract.DROPPED)
DUPLICATE = tl.constexpr(contract.DUPLICATE)
NON_FINITE = tl.constexpr(contract.NON_FINITE)
MAX_UNKNOWN_IDS = tl.constexpr(contract.MAX_UNKNOWN_IDS)


@triton.jit
def await_previous(DEPENDENT: tl.constexpr):
    """Let the next kernel start early; wait until all writes of the previous one are visible."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def load_ids(ids_ptr, rows, batch, num_samples):
    """Return ids, sample numbers (0 where an id is out of range), and which ids are in range."""
    ids = tl.load(ids_ptr + rows, mask=rows < batch, other=-1).to(tl.int64)
    in_range = (ids >= 0) & (ids < num_samples)
    return ids, tl.where(in_range, ids, 0), in_range


@triton.jit
def claim_rows(ids, samples, in_range, rows, batch, pass_stamp_ptr, stamp_ptr, unknown_ids_ptr):
    """Stamp the samples of the rows; record unknown ids and duplicates; return which rows count.

    The atomic maximum of the stamp lets exactly one row of a sample win.
    """
    current = tl.load(pass_stamp_ptr)
    old = tl.atomic_max(stamp_ptr + samples, current, mask=in_range, sem="relaxed")
    known = in_range & (old != DROPPED)
    tl.atomic_or(stamp_ptr + samples, DUPLICATE, mask=known & (old >= current), sem="relaxed")

    unknown = (rows < batch) & (known == 0)
    slot = tl.atomic_add(unknown_ids_ptr + rows * 0, 1, mask=unknown, sem="relaxed")
    tl.store(unknown_ids_ptr + 1 + slot, ids, mask=unknown & (slot < MAX_UNKNOWN_IDS))
    return known & (old < current)


@triton.jit
def flag_non_finite(stamp_ptr, samples, claimed, finite):
    """Flag claimed samples whose row is not finite; return which rows are written."""
    tl.atomic_or(stamp_ptr + samples, NON_FINITE, mask=claimed & (finite == 0), sem="relaxed")
    return claimed & finite


@triton.jit
def load_state(state, offsets, mask):
    """Load the tiles of the state that an update reads; 0.0 for what is not tracked."""
    mean = 0.0
    if state.mean is not None:
        mean = tl.load(state.mean + offsets, mask=mask, other=0.0)
    class_m2 = 0.0
    if state.class_m2 is not None:
        class_m2 = tl.load(state.class_m2 + offsets, mask=mask, other=0.0)
    logit_mean = 0.0
    if state.logit_mean is not None:
        logit_mean = tl.load(state.logit_mean + offsets, mask=mask, other=0.0)
    previous = 0.0
    if state.previous_output is not None:
        previous = tl.load(state.previous_output + offsets, mask=mask, other=0.0).to(tl.float32)
    output = 0.0
    if state.output is not None:
        output = tl.load(state.output + offsets, mask=mask, other=0.0).to(tl.float32)
    return mean, class_m2, logit_mean, previous, output


@triton.jit
def welford_update(x, mean, inverse_count):
    """Return the new mean and what M2 grows by."""
    delta = x - mean
    new_mean = mean + delta * inverse_count[:, None]
    return new_mean, delta * (x - new_mean)


@triton.jit
def fold_tile(x, p, q, loaded, state, offsets, mask, inverse_count, inverse_logit_count):
    """Write the tiles of the state; return what this tile adds to the sums of each row.

    ``x`` are logits, ``p`` probabilities and ``q`` the teacher's (0.0 without one), all 0 outside.
    The sums: M2, M2 of the logits, and the squared distances of ``p`` to the previous output, to
    the last output, and to ``q``.
    """
    mean, class_m2, logit_mean, previous, output = loaded
    m2_sum = tl.zeros(inverse_count.shape, tl.float32)
    logit_m2_sum = tl.zeros(inverse_count.shape, tl.float32)
    increase = tl.zeros(inverse_count.shape, tl.float32)
    cycle = tl.zeros(inverse_count.shape, tl.float32)
    teacher = tl.zeros(inverse_count.shape, tl.float32)
    if state.mean is not None:
        mean, m2 = welford_update(p, mean, inverse_count)
        tl.store(state.mean + offsets, mean, mask=mask)
        if state.m2 is not None:
            m2_sum = tl.sum(m2, 1)
        if state.class_m2 is not None:
            tl.store(state.class_m2 + offsets, class_m2 + m2, mask=mask)
    if state.logit_mean is not None:
        logit_mean, m2 = welford_update(x, logit_mean, inverse_logit_count)
        tl.store(state.logit_mean + offsets, logit_mean, mask=mask)
        logit_m2_sum = tl.sum(m2, 1)
    if state.previous_output is not None:
        increase = tl.sum((p - previous) * (p - previous), 1)
        tl.store(
            state.previous_output + offsets,
            p.to(state.previous_output.dtype.element_ty),
            mask=mask,
        )
    if state.output is not None:
        cycle = tl.sum((p - output) * (p - output), 1)
        stored = p.to(state.output.dtype.element_ty)
        if state.latest_output is not None:
            tl.store(state.latest_output + offsets, stored, mask=mask)
        else:
            tl.store(state.output + offsets, stored, mask=mask)
    if state.teacher_discrepancy is not None:
        teacher = tl.sum((p - q) * (p - q), 1)
    return m2_sum, logit_m2_sum, increase, cycle, teacher


@triton.jit
def next_count(count_ptr, samples, mask):
    """Return the rows' counts plus 1, without storing them; 1 where nothing is counted."""
    count = tl.full(samples.shape, 1, tl.int32)
    if count_ptr is not None:
        count += tl.load(count_ptr + samples, mask=mask, other=0)
    return count


@triton.jit
def load_sums(state, samples, mask):
    """Load the per-sample sums that an update adds to; 0 for what is not tracked.

    M2, entropy, M2 of the logits, the number of increases and their sum. They are loaded here and
    not in `finish_rows`, where each load would wait for the stores before it.
    """
    m2 = 0.0
    if state.m2 is not None:
        m2 = tl.load(state.m2 + samples, mask=mask, other=0.0)
    entropy_sum = 0.0
    if state.entropy_sum is not None:
        entropy_sum = tl.load(state.entropy_sum + samples, mask=mask, other=0.0)
    logit_m2 = 0.0
    if state.logit_m2 is not None:
        logit_m2 = tl.load(state.logit_m2 + samples, mask=mask, other=0.0)
    increases = 0
    increase_sum = 0.0
    if state.increase_count is not None:
        increases = tl.load(state.increase_count + samples, mask=mask, other=0)
        increase_sum = tl.load(state.increase_sum + samples, mask=mask, other=0.0)
    return m2, entropy_sum, logit_m2, increases, increase_sum


@triton.jit
def load_label_count(state, samples, label, mask, NUM_CLASSES: tl.constexpr):
    """Load how often each row's label was predicted before; 0 where that is not tracked."""
    label_count = 0
    if state.label_counts is not None:
        pointers = state.label_counts + samples * NUM_CLASSES + label
        label_count = tl.load(pointers, mask=mask, other=0)
    return label_count


@triton.jit
def finish_rows(
    state,
    samples,
    write,
    counts,
    logit_counts,
    old_sums,  # of `load_sums`
    label_count,  # of `load_label_count`
    top,
    label,
    second,
    total,
    entropy,
    sums,
    NUM_CLASSES: tl.constexpr,
):
    """Store what is kept once per sample."""
    m2, logit_m2, increase, cycle, teacher = sums
    old_m2, old_entropy_sum, old_logit_m2, increases, old_increase_sum = old_sums
    if state.count is not None:
        tl.store(state.count + samples, counts, mask=write)
    if state.m2 is not None:
        tl.store(state.m2 + samples, old_m2 + m2, mask=write)
    if state.entropy_sum is not None:
        tl.store(state.entropy_sum + samples, old_entropy_sum + entropy, mask=write)
    if state.logit_m2 is not None:
        tl.store(state.logit_count + samples, logit_counts, mask=write)
        tl.store(state.logit_m2 + samples, old_logit_m2 + logit_m2, mask=write)
    if state.label_counts is not None:
        pointers = state.label_counts + samples * NUM_CLASSES + label
        new = (label_count + 1).to(state.label_counts.dtype.element_ty)
        tl.store(pointers, new, mask=write)
    if state.increase_count is not None:
        growth = tl.where(increases == 0, 0.0, tl.sqrt(increase))
        tl.store(state.increase_sum + samples, old_increase_sum + growth, mask=write)
        tl.store(state.increase_count + samples, increases + 1, mask=write)
    if state.cycle_discrepancy is not None:
        tl.store(state.cycle_discrepancy + samples, cycle, mask=write)
    if state.teacher_discrepancy is not None:
        tl.store(state.teacher_discrepancy + samples, teacher, mask=write)
    if state.last_entropy is not None:
        tl.store(state.last_entropy + samples, entropy, mask=write)
    if state.last_top is not None:
        tl.store(state.last_top + samples, 1.0 / total, mask=write)
    if state.last_margin is not None:
        runner_up = tl.exp((second - top).to(tl.float32))
        tl.store(state.last_margin + samples, (1.0 - runner_up) / total, mask=write)
