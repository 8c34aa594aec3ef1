"""Where the Triton kernels of the pool statistics get their logits: from memory, or from a head."""

from collections import namedtuple

import triton
import triton.language as tl

# Rows of logits (batch, C); or rows of features (batch, width), weight (C, width), and bias (C,) or
# None. The width is no constexpr, so that loops over it are not unrolled.
Source = namedtuple("Source", ["rows", "weight", "bias", "width"])


def logits_source(logits):  # (batch, C), or None
    return Source(logits, None, None, 0)


def head_source(head):  # contract.Head, or None
    return Source(None, None, None, 0) if head is None else Source(*head, head.features.shape[1])


@triton.jit
def add_products(
    x,  # (rows, classes) float32
    source,
    rows,
    classes,
    in_batch,
    NUM_CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return ``x`` plus features (rows, width) times weight (classes, width)."""
    feature_rows = rows[:, None] * source.width
    weight_rows = classes[None, :].to(tl.int64) * source.width
    for start in range(0, source.width, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        inside = depth < source.width
        features = tl.load(
            source.rows + feature_rows + depth[None, :],
            mask=in_batch[:, None] & inside[None, :],
            other=0.0,
        )
        weight = tl.load(
            source.weight + weight_rows + depth[:, None],
            mask=inside[:, None] & (classes < NUM_CLASSES)[None, :],
            other=0.0,
        )
        x = tl.dot(features.to(OPERAND), weight.to(OPERAND), x, input_precision=PRECISION)
    return x


@triton.jit
def logits_tile(
    source,
    rows,
    classes,
    in_batch,
    NUM_CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return logits (rows, classes), 0 outside: float64 where they are stored so, else float32."""
    valid = in_batch[:, None] & (classes < NUM_CLASSES)[None, :]
    if source.weight is None:
        offsets = rows[:, None] * NUM_CLASSES + classes[None, :]
        x = tl.load(source.rows + offsets, mask=valid, other=0.0)
        if x.dtype != tl.float64:
            x = x.to(tl.float32)
        return x
    else:
        x = tl.zeros(valid.shape, tl.float32)
        x = add_products(x, source, rows, classes, in_batch, NUM_CLASSES, DEPTH, OPERAND, PRECISION)
        if source.bias is not None:
            bias = tl.load(source.bias + classes, mask=classes < NUM_CLASSES, other=0.0)
            x += bias[None, :].to(tl.float32)
        return tl.where(valid, x, 0.0)
