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
bytes are those of the features and the state, and weights are read through L2 by each program. Up
to ``WHOLE_HEAD_ROW`` classes a program has its rows' logits in registers, and the bytes are the
floor (B = 8,192, C = 100, d = 768 in bf16: 20 MB, 4.7 us at 4.3 TB/s). Beyond, softmax needs sums
over tiles that do not fit, and each tile of logits is computed twice: 4 C d operations, 32 us at
790 TFLOP/s for C = 1,000, where the bytes would take 18 us and one product 16 us. That is the
price of never storing them: peak memory is the state alone, whatever C is.
"""

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from dynal_fast.ops.launch import dot_operand, launch, multiplies_64_rows
from dynal_fast.ops.pool_stats.contract import STATE
from dynal_fast.ops.pool_stats.triton_kernels import Source, update_long_rows, update_whole_rows
from dynal_fast.ops.pool_stats.triton_rows import State

WHOLE_ROW = 4096
TILE_OF_LONG_ROW = 2048
WHOLE_HEAD_ROW = 128


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
    teacher_width = 0 if teacher_features is None else teacher_features.shape[1]
    # A row's logits, their softmax and the tiles of the state share the registers.
    light = teacher_features is None and sum(STATE[name].per_class for name in state) <= 2
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
