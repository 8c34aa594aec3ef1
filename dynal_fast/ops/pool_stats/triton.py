"""``pool_stats_update`` and ``pool_stats_update_from_features`` in Triton: one launch a batch.

Floor. A row of C classes moves C logits in, each tracked (N, C) float32 tensor in and out (8 C
bytes; ``label_counts`` one element), 8 bytes of id and 8 of each scalar: 12 C bytes for float32
logits with the mean tracked, 98 MB for 8,192 rows of 1,000 classes. The arithmetic, about 30
instructions an element, takes half the time of these bytes on an H200 and overlaps with them.

Up to ``WHOLE_ROW`` classes the row stays in registers, several rows a program where C is small.
Beyond, a program walks its row in tiles twice, first for maximum and sum (online softmax), then for
the update. The second reading of the logits comes from L2: a row of 21,841 float32 logits is 87 KB,
and some hundred rows are in flight, 23 MB of an H200's 60 MB.

From features of width d the logits are products on the matrix units, 2 C d operations a row; the
bytes are those of the features and the state. B = 8,192, d = 768 in bf16 on an H200 (4.3 TB/s, 790
TFLOP/s): at C = 100, 20 MB, 4.7 us, and up to ``WHOLE_HEAD_ROW`` classes a program has its rows'
logits in registers. At C = 1,000, 79 MB, 18.3 us, and 12.6 GFLOP, 16 us; but the logits, 33 MB,
are as much as all registers of the device. Two ways without storing them:

- Hopper, 16-bit features, up to ``MAX_TILES`` tiles, one or two tensors of the state per class:
  `triton_split`. 512 programs hold 128 x 128 logits each, two on a multiprocessor (with Triton 3.9
  one, which takes more registers), so that one multiplies while the other waits or folds. A
  multiprocessor has four of them: 20 us of products at 85% of the rate, 15 us of other instructions
  (50 an element), 18 us of bytes, and, the bottleneck, 230 MB from L2 (each program reads 200 KB
  of features and 200 KB of weights), 31 us at 7.5 TB/s. With the first and last tile, which nothing
  overlaps, and the clearing of the counters, 34 to 40 us: 46 to 54% of the bound, and less than a
  cuBLAS head (23 us) followed by `update` (22 us). To come nearer to the bound, the weights would
  have to be multicast in clusters of blocks, which Triton does not offer.
- Any other that fits in no registers: each tile of logits is computed twice, first for the sums of
  the softmax; 4 C d operations, and some 600 MB from L2: about 80 us for C = 1,000.

Nothing of size batch x C is stored in any of them: peak memory is the state, and 32 bytes for each
row and tile of the first.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dynal_fast.ops.launch import dot_operand, is_hopper, launch, multiplies_64_rows
from dynal_fast.ops.pool_stats.contract import STATE
from dynal_fast.ops.pool_stats.triton_kernels import Source, update_long_rows, update_whole_rows
from dynal_fast.ops.pool_stats.triton_rows import State
from dynal_fast.ops.pool_stats.triton_split import STATISTICS, SUMS, update_split_rows

WHOLE_ROW = 4096
TILE_OF_LONG_ROW = 2048
WHOLE_HEAD_ROW = 128
SPLIT_ROWS, SPLIT_TILE = 128, 128
MAX_TILES = 16  # programs that wait for each other
# So that two programs share a multiprocessor; Triton 3.9 would spill some, and gets all it wants.
SPLIT_REGISTERS = 128 if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9) else None


def update(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    pass_stamp: Tensor,
    stamp: Tensor,
    unknown_ids: Tensor,
    state: Mapping[str, Tensor],
) -> None:
    """``pool_stats_update`` on CUDA tensors, or on CPU tensors under Triton's interpreter."""
    num_classes = logits.shape[1]
    if num_classes <= WHOLE_ROW:
        kernel, tile = update_whole_rows, triton.next_power_of_2(num_classes)
        rows = max(1, (512 if tile < 64 else 1024) // tile)
    else:
        kernel, tile, rows = update_long_rows, TILE_OF_LONG_ROW, 1
    _launch(
        kernel,
        sample_ids,
        Source(logits, None, None, 0),
        Source(teacher_logits, None, None, 0),
        (pass_stamp, stamp, unknown_ids),
        state,
        NUM_CLASSES=num_classes,
        ROWS=rows,
        TILE=tile,
        DEPTH=0,
        OPERAND=tl.float32,
        PRECISION="ieee",
        num_warps=max(4, rows * tile // 256),
    )


def update_from_features(
    sample_ids: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_features: Tensor | None,
    teacher_weight: Tensor | None,
    teacher_bias: Tensor | None,
    pass_stamp: Tensor,
    stamp: Tensor,
    unknown_ids: Tensor,
    state: Mapping[str, Tensor],
) -> None:
    """``pool_stats_update_from_features`` on CUDA tensors, or CPU ones under the interpreter."""
    num_classes, width = weight.shape
    tracker = (pass_stamp, stamp, unknown_ids)
    if _splits(features, num_classes, teacher_features, state):
        _update_split(sample_ids, Source(features, weight, bias, width), tracker, state)
        return
    teacher_width = 0 if teacher_features is None else teacher_features.shape[1]
    # A row's logits, their softmax and the tiles of the state share the registers.
    light = (
        teacher_features is None
        and "logit_mean" not in state
        and sum(STATE[name].per_class for name in state) <= 2
    )
    depth, stages = 64 if features.element_size() == 2 else 32, 3
    if num_classes <= WHOLE_HEAD_ROW:
        kernel, tile = update_whole_rows, max(16, triton.next_power_of_2(num_classes))
        rows, warps = (32, 4) if light else (16, 8)
    elif light and multiplies_64_rows(update_long_rows):
        kernel, tile, rows, warps = update_long_rows, 128, 64, 8
    else:
        kernel, warps = update_long_rows, 4
        rows, tile = (32, 64) if light else (16, 32)
        depth, stages = 16, 1
    operand, precision = dot_operand(features.dtype, kernel)
    _launch(
        kernel,
        sample_ids,
        Source(features, weight, bias, width),
        Source(teacher_features, teacher_weight, teacher_bias, teacher_width),
        (pass_stamp, stamp, unknown_ids),
        state,
        NUM_CLASSES=num_classes,
        ROWS=rows,
        TILE=tile,
        DEPTH=depth,
        OPERAND=operand,
        PRECISION=precision,
        num_warps=warps,
        num_stages=stages,
    )


def _splits(
    features: Tensor, num_classes: int, teacher_features: Tensor | None, state: Mapping[str, Tensor]
) -> bool:
    """Whether several programs share a row: what they hold of it must fit in their registers."""
    light = teacher_features is None and "logit_mean" not in state
    light &= sum(STATE[name].per_class for name in state) <= 2 and features.element_size() == 2
    tiled = WHOLE_HEAD_ROW < num_classes <= MAX_TILES * SPLIT_TILE
    return light and tiled and is_hopper(update_split_rows)


def _update_split(
    sample_ids: Tensor,
    source: Source,
    tracker: tuple[Tensor, Tensor, Tensor],
    state: Mapping[str, Tensor],
) -> None:
    batch, num_classes = len(sample_ids), len(source.weight)
    if batch == 0:
        return
    operand, precision = dot_operand(source.rows.dtype, update_split_rows)
    blocks, tiles = triton.cdiv(batch, SPLIT_ROWS), triton.cdiv(num_classes, SPLIT_TILE)
    padded = blocks * SPLIT_ROWS
    device = sample_ids.device
    counters = torch.zeros(1 + 2 * blocks, dtype=torch.int32, device=device)
    claims = torch.empty(padded, dtype=torch.int32, device=device)
    scratch = torch.empty((STATISTICS + SUMS, tiles, padded), dtype=torch.float32, device=device)
    launch(
        update_split_rows,
        (blocks * tiles,),
        sample_ids,
        source,
        batch,
        len(tracker[1]),
        *tracker,
        State(*(state.get(name) for name in STATE)),
        counters[:1],
        counters[1:],
        claims,
        scratch[:STATISTICS],
        scratch[STATISTICS:],
        padded,
        NUM_CLASSES=num_classes,
        ROWS=SPLIT_ROWS,
        TILE=SPLIT_TILE,
        TILES=tiles,
        DEPTH=64,
        OPERAND=operand,
        PRECISION=precision,
        num_warps=8,
        registers=SPLIT_REGISTERS,
        num_stages=3,
    )


def _launch(
    kernel: Any,
    sample_ids: Tensor,
    source: Source,
    teacher_source: Source,
    tracker: tuple[Tensor, Tensor, Tensor],
    state: Mapping[str, Tensor],
    **options: Any,
) -> None:
    batch = len(sample_ids)
    if batch == 0:
        return
    launch(
        kernel,
        (triton.cdiv(batch, options["ROWS"]),),
        sample_ids,
        source,
        teacher_source,
        batch,
        len(tracker[1]),
        options["NUM_CLASSES"],
        *tracker,
        State(*(state.get(name) for name in STATE)),
        **options,
    )
