"""From logits to probabilities in the Triton kernels: softmax, or sigmoids of single labels.

With ``SIGMOID`` the largest and the second largest probability are those of the label that is least
sure. It is one of two classes, whose logits are taken as ``top`` = |x| and ``second`` = 0.
"""

import triton
import triton.language as tl

from dynal_fast.ops.pool_stats import contract

LOGIT_LIMIT = tl.constexpr(contract.LOGIT_LIMIT)
NO_EXPONENTIAL = tl.constexpr(-1000.0)  # exp of it is 0; a finite stand-in for -inf


@triton.jit
def tile_statistics(x, valid, logit_count, SIGMOID: tl.constexpr):
    """Return per row of a tile: maximum, its first class, runner-up, whether all are finite.

    ``x`` are logits (rows, classes), ``valid`` says where there are any. With ``logit_count``
    tracked, logits beyond ``LOGIT_LIMIT`` count as not finite.
    """
    if logit_count is None:
        usable = valid & (tl.abs(x) < float("inf"))
    else:
        usable = valid & (tl.abs(x) <= LOGIT_LIMIT)
    finite = tl.max((valid & (usable == 0)).to(tl.int32), 1) == 0
    if SIGMOID:
        top = tl.min(tl.where(usable, tl.abs(x), float("inf")), 1)
        label = tl.full(top.shape, 0, tl.int32)
        second = tl.full(top.shape, 0.0, top.dtype)
    else:
        masked = tl.where(usable, x, -float("inf"))
        top, label = tl.max(masked, 1, return_indices=True)
        classes = tl.arange(0, x.shape[1])
        second = tl.max(tl.where(classes[None, :] == label[:, None], -float("inf"), masked), 1)
    return top, label, second, finite


@triton.jit
def merge_statistics(
    top, label, second, total, x, valid, start, logit_count, SIGMOID: tl.constexpr
):
    """Fold a tile whose first class is ``start`` into the running statistics of its rows."""
    tile_top, tile_label, tile_second, finite = tile_statistics(x, valid, logit_count, SIGMOID)
    if SIGMOID:
        new_top = tl.minimum(top, tile_top)
    else:
        new_top = tl.maximum(top, tile_top)
        second = tl.maximum(tl.maximum(second, tile_second), tl.minimum(top, tile_top))
        label = tl.where(tile_top > top, start + tile_label, label)
        total = total * tl.exp((top - new_top).to(tl.float32))
        total += tl.sum(exponentials(x, new_top, valid), 1)
    return new_top, label, second, total, finite


@triton.jit
def exponentials(x, top, valid):
    """Return ``exp(x - top)``, 0 outside; the difference is taken in the dtype of the logits."""
    return tl.where(valid, tl.exp((x - top[:, None]).to(tl.float32)), 0.0)


@triton.jit
def probabilities(x, top, inverse_total, valid, SIGMOID: tl.constexpr):
    """Return p (rows, classes), 0 outside."""
    if SIGMOID:
        p = tl.where(valid, sigmoid(x, magnitude(x)), 0.0)
    else:
        p = exponentials(x, top, valid) * inverse_total[:, None]
    return p


@triton.jit
def whole_row_probabilities(x, top, valid, SIGMOID: tl.constexpr):
    """Return p of whole rows (rows, classes), 0 outside, and 1 / the largest probability."""
    if SIGMOID:
        total = total_of_pair(top)
        p = probabilities(x, top, total, valid, SIGMOID)
    else:
        p = exponentials(x, top, valid)
        total = tl.sum(p, 1)
        p = p * (1.0 / total)[:, None]
    return p, total


@triton.jit
def total_of_pair(top):
    """Return the sum of ``exp(x - top)`` of the least sure label's two classes."""
    return 1.0 + tl.exp(-top.to(tl.float32))


@triton.jit
def magnitude(x):
    """Return ``|x|`` in float32, limited to where its exponential is 0."""
    return tl.minimum(tl.abs(x), -NO_EXPONENTIAL).to(tl.float32)


@triton.jit
def sigmoid(x, size):  # size = |x|, float32
    e = tl.exp(-size)
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def label_entropy(size):
    """Return the entropies, in nats, of labels whose logits are ``size`` or ``-size``."""
    e = tl.exp(-size)
    rounded = 1.0 + e
    over = rounded - 1.0  # log(1 + e) = log(rounded) * e / over, but for a rounding
    log_total = tl.where(over == 0.0, e, tl.log(rounded) * (e / tl.where(over == 0.0, 1.0, over)))
    return log_total + size * e / rounded


@triton.jit
def first_entropy(total, SIGMOID: tl.constexpr):
    """Return what the entropy of rows starts from before the terms of their tiles are added."""
    return total * 0.0 if SIGMOID else tl.log(total)


@triton.jit
def entropy_term(x, p, top, valid, SIGMOID: tl.constexpr):
    """Return what a tile adds to the entropies of its rows: ``- sum_c p_c (x_c - top)``."""
    if SIGMOID:
        term = tl.sum(tl.where(valid, label_entropy(magnitude(x)), 0.0), 1)
    else:
        below = tl.maximum((x - top[:, None]).to(tl.float32), NO_EXPONENTIAL)  # it may be -inf
        term = -tl.sum(tl.where(valid, p * below, 0.0), 1)
    return term
