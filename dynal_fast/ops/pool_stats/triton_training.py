"""Training dynamics of labeled samples in the Triton kernels: the rows of ``training``."""

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats import contract

LOGIT_LIMIT = tl.constexpr(contract.LOGIT_LIMIT)
COLUMNS = tl.constexpr(len(contract.TRAINING))


@triton.jit
def load_targets(targets_ptr, rows, in_batch):
    """Return the targets of the rows; -1 where there are none."""
    targets = tl.full(rows.shape, -1, tl.int64)
    if targets_ptr is not None:
        targets = tl.load(targets_ptr + rows, mask=in_batch, other=-1)
    return targets


@triton.jit
def target_terms(x, p, classes, targets):
    """Return of a tile the target's logit and p, and the sum of the squares of the other p."""
    own = classes[None, :] == targets[:, None]
    logit = tl.sum(tl.where(own, x, 0.0), 1)
    probability = tl.sum(tl.where(own, p, 0.0), 1)
    return logit, probability, tl.sum(tl.where(own, 0.0, p * p), 1)


@triton.jit
def training_update(
    state,
    samples,
    write,  # which rows are written, if they have a target
    targets,
    label,
    top,
    second,
    logit,
    probability,
    squares,  # of `target_terms`
):
    """Fold what the model says of labeled samples into their rows."""
    write = write & (targets >= 0)
    row = state.training + samples * COLUMNS
    target = targets.to(tl.float32)
    count = tl.load(state.training_count + samples, mask=write, other=0)
    same = write & (count > 0) & (tl.load(row + 7, mask=write, other=0.0) == target)
    count = tl.where(same, count, 0) + 1
    correct = label == targets
    counted = correct.to(tl.float32)

    mean = tl.load(row, mask=same, other=0.0)
    rate = 1.0 / count.to(tl.float32)
    delta = probability - mean
    m2 = tl.load(row + 1, mask=same, other=0.0) + delta * delta * (1.0 - rate)
    corrects = tl.load(row + 2, mask=same, other=0.0) + counted
    flips = tl.load(row + 3, mask=same, other=0.0)
    odd = flips - 2.0 * tl.floor(flips * 0.5)
    flips += tl.where(counted != odd, 1.0, 0.0)
    first = tl.load(row + 4, mask=same, other=0.0)
    first = tl.where(correct & (first == 0.0), count.to(tl.float32), first)
    margin = (logit - tl.where(correct, second, top)).to(tl.float32)
    margin = tl.minimum(tl.maximum(margin, -LOGIT_LIMIT), LOGIT_LIMIT)
    margins = tl.load(row + 5, mask=same, other=0.0) + margin
    missing = 1.0 - probability
    error = tl.sqrt(squares + missing * missing)
    errors = tl.load(row + 6, mask=same, other=0.0) + error

    tl.store(state.training_count + samples, count, mask=write)
    tl.store(row, mean + delta * rate, mask=write)
    tl.store(row + 1, m2, mask=write)
    tl.store(row + 2, corrects, mask=write)
    tl.store(row + 3, flips, mask=write)
    tl.store(row + 4, first, mask=write)
    tl.store(row + 5, margins, mask=write)
    tl.store(row + 6, errors, mask=write)
    tl.store(row + 7, target, mask=write)
