"""``pool_stats_update`` and ``pool_stats_update_from_features`` in Triton: one launch a batch.

Floor. A row of C classes moves C logits in, each tracked (N, C) float32 tensor in and out (8 C
bytes; ``label_counts`` one element), 8 bytes of id and 8 of each scalar: 12 C bytes for float32
logits with the mean tracked, 98 MB for 8,192 rows of 1,000 classes. The arithmetic, about 30
instructions an element, takes half the time of these bytes on an H200 and overlaps with them.

Up to ``WHOLE_ROW`` classes the row stays in registers, several rows a program where C is small.
Beyond, a program walks its row in tiles twice, first for maximum and sum (online softmax), then for
the update. The second reading of the logits comes from L2: a row of 21,841 float32 logits is 87 KB,
and some hundred rows are in flight, 23 MB of an H200's 60 MB.

At C = 100 a batch of 8,192 is 2.4 us of bytes, less than a launch and less than the Python in
front of it. So passes of many small batches are to be captured in a CUDA graph (nothing here
synchronises). There the chain is three latencies, 2 us: the id; its stamp, counts, logits and mean;
and, once the label is known, the label count and the other sums, before the rows are folded (after
it, they were two more latencies, 1 us). The bytes move beside it if all programs are there at once:
two warps each, 1,024 of 1,056 that fit on 132 multiprocessors (with four, 924 fit, and a second
wave would wait as long again). The start of a kernel takes another 1 to 1.5 us; from Hopper on the
next one is there already, waiting for this one to end (`await_previous`). That is 3.2 to 3.9 us a
batch, 62 to 75% of copy bandwidth, of which 60% are wanted (counted, not measured).

From features of width d the logits are products on the matrix units, 2 C d operations a row; the
bytes are those of the features and the state. B = 8,192, d = 768 in bf16 on an H200 (4.3 TB/s, 790
TFLOP/s): at C = 100, 20 MB, 4.7 us, and up to ``WHOLE_HEAD_ROW`` classes a program has its rows'
logits in registers. At C = 1,000, 79 MB, 18.3 us, and 12.6 GFLOP, 16 us; but the logits, 33 MB,
are as much as all registers of the device. Two ways without storing them:

- Hopper, 16-bit features, up to ``MAX_TILES`` tiles, one or two tensors of the state per class:
  `triton_split`. 512 programs hold 128 x 128 logits each, in 128 registers a thread (without a
  spill, under Triton 3.6 and 3.9), so that two share a multiprocessor and one multiplies while the
  other waits or folds. A multiprocessor has four of them: 20 us of products at 85% of the rate, 15
  us of other instructions (2,500 a thread and tile, 38 an element), 18 us of bytes. The bottleneck
  is what L2 hands out, 267 MB: 200 KB of features and 200 KB of weights a program, and the state
  both ways; 36 us at 7.5 TB/s, 47 us at 5.7. With the first and last tile, which nothing overlaps,
  and the clearing of the counters, 36 to 50 us (counted, not measured). With two tensors per class
  a program takes more registers and has a multiprocessor to itself. Nearer to the bound the weights
  have to stay in shared memory and the features to be multicast in clusters of blocks, for which
  Triton 3.6 has no operation: that is `cuda`, for the heads that fit there.
- Any other that fits in no registers: each tile of logits is computed twice, first for the sums of
  the softmax; 4 C d operations, and some 600 MB from L2: about 80 us for C = 1,000.

Nothing of size batch x C is stored in any of them: peak memory is the state, and 32 bytes for each
row and tile of the first: 2 MB at C = 1,000, 39 MB if all 150,000 rows come in one call.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dynal_fast.ops.launch import dot_operand, interpreted, is_hopper, launch, multiplies_64_rows
from dynal_fast.ops.pool_stats.contract import STATE, Head, Tracker
from dynal_fast.ops.pool_stats.triton_kernels import update_long_rows, update_whole_rows
from dynal_fast.ops.pool_stats.triton_logits import Source, head_source, logits_source
from dynal_fast.ops.pool_stats.triton_rows import State
from dynal_fast.ops.pool_stats.triton_split import STATISTICS, SUMS, update_split_rows

WHOLE_ROW = 4096
TILE_OF_LONG_ROW = 2048
ONE_WAVE_REGISTERS = 128  # so that 8 programs of 2 warps share a multiprocessor
WHOLE_HEAD_ROW = 128
SPLIT_ROWS, SPLIT_TILE = 128, 128
SPLIT_REGISTERS = 128  # so that two programs share a multiprocessor; more tensors need more
MAX_TILES = 16  # programs that wait for each other


def update(
    sample_ids: Tensor, logits: Tensor, teacher_logits: Tensor | None, tracker: Tracker
) -> None:
    """``pool_stats_update`` on CUDA tensors, or on CPU tensors under Triton's interpreter."""
    num_classes = logits.shape[1]
    if num_classes <= WHOLE_ROW:
        kernel, tile = update_whole_rows, 1 << (num_classes - 1).bit_length()
        rows = max(1, (512 if tile < 64 else 1024) // tile)
    else:
        kernel, tile, rows = update_long_rows, TILE_OF_LONG_ROW, 1
    one_wave = tile == 128 and _dense(tracker.state) <= 1
    # Rows that are read 16 bytes at a time, and no teacher's: the others would spill.
    light = teacher_logits is None and logits.element_size() <= 4 and num_classes % 4 == 0
    _launch(
        kernel,
        sample_ids,
        logits_source(logits),
        logits_source(teacher_logits),
        tracker,
        NUM_CLASSES=num_classes,
        ROWS=rows,
        TILE=tile,
        DEPTH=0,
        OPERAND=tl.float32,
        PRECISION="ieee",
        num_warps=2 if one_wave else max(4, rows * tile // 256),
        registers=ONE_WAVE_REGISTERS if one_wave and light else None,
    )


def update_from_features(
    sample_ids: Tensor, head: Head, teacher: Head | None, tracker: Tracker
) -> None:
    """``pool_stats_update_from_features`` on CUDA tensors, or CPU ones under the interpreter."""
    num_classes = len(head.weight)
    if _splits(head.features, num_classes, teacher, tracker.state):
        _update_split(sample_ids, head_source(head), tracker)
        return
    features, state = head.features, tracker.state
    # A row's logits, their softmax and the tiles of the state share the registers.
    light = teacher is None and "logit_count" not in state and _dense(state) <= 2
    depth, stages, registers = 64 if features.element_size() == 2 else 32, 3, None
    if num_classes <= WHOLE_HEAD_ROW:
        kernel, tile = update_whole_rows, max(16, triton.next_power_of_2(num_classes))
        rows, warps = (32, 4) if light else (16, 8)
    elif light and multiplies_64_rows(update_long_rows, features.device):
        kernel, tile, rows, warps = update_long_rows, 128, 64, 8
    else:
        kernel, warps = update_long_rows, 4
        rows, tile = (32, 64) if light else (16, 32)
        depth, stages, registers = 16, 1, 255
    operand, precision = dot_operand(features.dtype, kernel, features.device)
    _launch(
        kernel,
        sample_ids,
        head_source(head),
        head_source(teacher),
        tracker,
        NUM_CLASSES=num_classes,
        ROWS=rows,
        TILE=tile,
        DEPTH=depth,
        OPERAND=operand,
        PRECISION=precision,
        num_warps=warps,
        registers=registers,
        num_stages=stages,
    )


def _splits(
    features: Tensor, num_classes: int, teacher: Head | None, state: Mapping[str, Tensor]
) -> bool:
    """Whether several programs share a row: what they hold of it must fit in their registers."""
    light = teacher is None and "logit_count" not in state
    light &= _dense(state) <= 2 and features.element_size() == 2
    tiled = WHOLE_HEAD_ROW < num_classes <= MAX_TILES * SPLIT_TILE
    return light and tiled and is_hopper(update_split_rows, features.device)


def _dense(state: Mapping[str, Tensor]) -> int:
    """How many tensors of the state have a number per class that every update reads."""
    unread = ("label_counts", "latest_output")
    return sum(STATE[name].per_class and name not in unread for name in state)


def _update_split(sample_ids: Tensor, source: Source, tracker: Tracker) -> None:
    batch, num_classes = len(sample_ids), len(source.weight)
    if batch == 0:
        return
    operand, precision = dot_operand(source.rows.dtype, update_split_rows, sample_ids.device)
    blocks, tiles = triton.cdiv(batch, SPLIT_ROWS), triton.cdiv(num_classes, SPLIT_TILE)
    padded = blocks * SPLIT_ROWS
    device = sample_ids.device
    counters = torch.zeros(1 + 2 * blocks, dtype=torch.int32, device=device)
    claims = torch.empty(padded, dtype=torch.int32, device=device)
    scratch = torch.empty((STATISTICS + SUMS, padded, tiles), dtype=torch.float32, device=device)
    launch(
        update_split_rows,
        (blocks * tiles,),
        sample_ids,
        source,
        batch,
        len(tracker.stamp),
        tracker.pass_stamp,
        tracker.stamp,
        tracker.unknown_ids,
        State(*map(tracker.state.get, STATE)),
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
        registers=SPLIT_REGISTERS if _dense(tracker.state) <= 1 else None,
        PREFETCH=not interpreted(update_split_rows),
        num_stages=3,
    )


def _launch(
    kernel: Any,
    sample_ids: Tensor,
    source: Source,
    teacher_source: Source,
    tracker: Tracker,
    **options: Any,
) -> None:
    batch = sample_ids.shape[0]
    if batch == 0:
        return
    launch(
        kernel,
        (-(-batch // options["ROWS"]),),
        sample_ids,
        source,
        teacher_source,
        batch,
        tracker.stamp.shape[0],
        options["NUM_CLASSES"],
        tracker.pass_stamp,
        tracker.stamp,
        tracker.unknown_ids,
        State(*map(tracker.state.get, STATE)),
        dependent=True,
        **options,
    )
