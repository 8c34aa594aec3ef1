"""The two kernels: pixels whose classes fit in registers, and longer ones, in tiles."""

import triton
import triton.language as tl


@triton.jit
def load_tile(pointer, classes, pixels_at, pixels, NUM_CLASSES: tl.constexpr):
    """Return logits (classes, pixels) in float32, 0 outside, and which lie inside."""
    valid = (classes < NUM_CLASSES)[:, None] & (pixels_at < pixels)[None, :]
    offsets = classes[:, None].to(tl.int64) * pixels + pixels_at[None, :]
    return tl.load(pointer + offsets, mask=valid, other=0.0).to(tl.float32), valid


@triton.jit
def softmax_columns(x, valid):
    exponentials = tl.exp(x - tl.max(tl.where(valid, x, -float("inf")), 0)[None, :])
    exponentials = tl.where(valid, exponentials, 0.0)
    return exponentials / tl.sum(exponentials, 0)[None, :]


@triton.jit
def whole_columns(
    logits_ptr,  # (batch, NUM_CLASSES, pixels)
    other_ptr,  # (batch, NUM_CLASSES, pixels)
    partial_ptr,  # (batch, programs)
    pixels,
    num_classes,  # NUM_CLASSES, no constexpr: loops up to it are not unrolled
    NUM_CLASSES: tl.constexpr,
    TILE: tl.constexpr,  # at least NUM_CLASSES
    PIXELS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    classes = tl.arange(0, TILE)
    total = tl.zeros((PIXELS,), tl.float32)
    for block in range(BLOCKS):
        start = (tl.program_id(0).to(tl.int64) * BLOCKS + block) * PIXELS
        pixels_at = start + tl.arange(0, PIXELS)
        offset = image * NUM_CLASSES * pixels
        x, valid = load_tile(logits_ptr + offset, classes, pixels_at, pixels, NUM_CLASSES)
        y, _ = load_tile(other_ptr + offset, classes, pixels_at, pixels, NUM_CLASSES)
        difference = softmax_columns(x, valid) - softmax_columns(y, valid)
        # x * 0 is NaN for minus infinity, which softmax would turn into 0
        column = tl.sum(tl.where(valid, difference * difference + (x * 0.0 + y * 0.0), 0.0), 0)
        total += tl.where(pixels_at < pixels, column, 0.0)
    tl.store(partial_ptr + image * tl.num_programs(0) + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def merge_columns(top, total, x, valid):
    """Fold a tile of classes into the running maximum and sum of exponentials of its pixels."""
    new_top = tl.maximum(top, tl.max(tl.where(valid, x, -float("inf")), 0))
    total = total * tl.exp(top - new_top)
    return new_top, total + tl.sum(tl.where(valid, tl.exp(x - new_top[None, :]), 0.0), 0)


@triton.jit
def long_columns(
    logits_ptr,  # (batch, NUM_CLASSES, pixels)
    other_ptr,  # (batch, NUM_CLASSES, pixels)
    partial_ptr,  # (batch, programs)
    pixels,
    num_classes,  # NUM_CLASSES, no constexpr: loops up to it are not unrolled
    NUM_CLASSES: tl.constexpr,
    TILE: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    offset = image * NUM_CLASSES * pixels
    total = tl.zeros((PIXELS,), tl.float32)
    for block in range(BLOCKS):
        start = (tl.program_id(0).to(tl.int64) * BLOCKS + block) * PIXELS
        pixels_at = start + tl.arange(0, PIXELS)
        x_top = tl.full((PIXELS,), -float("inf"), tl.float32)
        y_top = tl.full((PIXELS,), -float("inf"), tl.float32)
        x_total = tl.zeros((PIXELS,), tl.float32)
        y_total = tl.zeros((PIXELS,), tl.float32)
        for first in range(0, num_classes, TILE):
            classes = first + tl.arange(0, TILE)
            x, valid = load_tile(logits_ptr + offset, classes, pixels_at, pixels, NUM_CLASSES)
            y, _ = load_tile(other_ptr + offset, classes, pixels_at, pixels, NUM_CLASSES)
            x_top, x_total = merge_columns(x_top, x_total, x, valid)
            y_top, y_total = merge_columns(y_top, y_total, y, valid)
        for first in range(0, num_classes, TILE):
            classes = first + tl.arange(0, TILE)
            x, valid = load_tile(logits_ptr + offset, classes, pixels_at, pixels, NUM_CLASSES)
            y, _ = load_tile(other_ptr + offset, classes, pixels_at, pixels, NUM_CLASSES)
            p = tl.exp(x - x_top[None, :]) / x_total[None, :]
            q = tl.exp(y - y_top[None, :]) / y_total[None, :]
            column = (p - q) * (p - q) + (x * 0.0 + y * 0.0)
            total += tl.sum(tl.where(valid, column, 0.0), 0)
    tl.store(partial_ptr + image * tl.num_programs(0) + tl.program_id(0), tl.sum(total, 0))
