"""``pool_stats_update`` and ``pool_stats_update_from_features`` in Triton: which kernel runs, how.

Up to ``WHOLE_ROW`` classes a row of logits stays in registers; a longer one is walked twice, in
tiles. From features the limit is ``WHOLE_HEAD_ROW``; beyond it several programs share a row on
Hopper (`triton_split`), elsewhere each tile of logits is computed twice. The figures behind these
choices are in ``README.md``.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dynal_fast.ops.launch import dot_operand, interpreted, is_hopper, launch, multiplies_64_rows
from dynal_fast.ops.pool_stats.contract import STATE, Head, Tracker
from dynal_fast.ops.pool_stats.triton_kernels import update_whole_rows
from dynal_fast.ops.pool_stats.triton_logits import Source, head_source, logits_source
from dynal_fast.ops.pool_stats.triton_long_rows import update_long_rows
from dynal_fast.ops.pool_stats.triton_rows import State
from dynal_fast.ops.pool_stats.triton_split import STATISTICS, SUMS, update_split_rows

WHOLE_ROW = 4096
TILE_OF_LONG_ROW = 2048
ONE_WAVE_REGISTERS = 128  # a thread, so that 8 programs of 2 warps share a multiprocessor
WHOLE_HEAD_ROW = 128
SPLIT_ROWS, SPLIT_TILE = 128, 128
SPLIT_REGISTERS = 128  # a thread, so that 2 programs share a multiprocessor
MAX_TILES = 16  # of a row, whose programs wait for each other


def update(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """``pool_stats_update`` on CUDA tensors, or on CPU tensors under Triton's interpreter."""
    num_classes = logits.shape[1]
    if num_classes <= WHOLE_ROW:
        kernel, tile = update_whole_rows, 1 << (num_classes - 1).bit_length()
        rows = max(1, (512 if tile < 64 else 1024) // tile)
    else:
        kernel, tile, rows = update_long_rows, TILE_OF_LONG_ROW, 1
    one_wave = tile == 128 and _dense(tracker.state) <= 1
    sigmoid = tracker.activation == "sigmoid"
    # These need more registers, and with the limit they would spill: unaligned rows, a teacher's,
    # targets, and sigmoids, each with an entropy of its own.
    light = teacher_logits is None and logits.element_size() <= 4 and num_classes % 4 == 0
    light &= targets is None and not sigmoid
    _launch(
        kernel,
        sample_ids,
        targets,
        logits_source(logits),
        logits_source(teacher_logits),
        tracker,
        NUM_CLASSES=num_classes,
        ROWS=rows,
        TILE=tile,
        DEPTH=0,
        OPERAND=tl.float32,
        PRECISION="ieee",
        SIGMOID=sigmoid,
        num_warps=2 if one_wave else max(4, rows * tile // 256),
        registers=ONE_WAVE_REGISTERS if one_wave and light else None,
    )


def update_from_features(
    sample_ids: Tensor,
    head: Head,
    teacher: Head | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """``pool_stats_update_from_features`` on CUDA tensors, or CPU ones under the interpreter."""
    num_classes = len(head.weight)
    if targets is None and _splits(head.features, num_classes, teacher, tracker.state):
        _update_split(sample_ids, head_source(head), tracker)
        return
    features, state, sigmoid = head.features, tracker.state, tracker.activation == "sigmoid"
    # A row's logits, their softmax and the tiles of the state share the registers.
    light = teacher is None and "logit_count" not in state and _dense(state) <= 2
    light &= targets is None
    depth, stages, registers = 64 if features.element_size() == 2 else 32, 3, None
    if num_classes <= WHOLE_HEAD_ROW:
        kernel, tile = update_whole_rows, max(16, triton.next_power_of_2(num_classes))
        rows, warps = (32, 4) if light and not sigmoid else (16, 8)
    elif light and multiplies_64_rows(update_long_rows, features.device):
        # A sigmoid's entropy takes registers, too: with larger tiles it spills on sm_100.
        tile = 128 // features.element_size() if sigmoid else 128
        kernel, rows, warps = update_long_rows, 64, 8
    else:
        kernel, warps = update_long_rows, 4
        rows, tile = (32, 64) if light else (16, 32)
        depth, stages, registers = 16, 1, 255
    operand, precision = dot_operand(features.dtype, kernel, features.device)
    _launch(
        kernel,
        sample_ids,
        targets,
        head_source(head),
        head_source(teacher),
        tracker,
        NUM_CLASSES=num_classes,
        ROWS=rows,
        TILE=tile,
        DEPTH=depth,
        OPERAND=operand,
        PRECISION=precision,
        SIGMOID=sigmoid,
        num_warps=warps,
        registers=registers,
        num_stages=stages,
    )


def _splits(
    features: Tensor, num_classes: int, teacher: Head | None, state: Mapping[str, Tensor]
) -> bool:
    """Whether several programs share a row: a Hopper, and tiles that fit in registers."""
    light = teacher is None and "logit_count" not in state
    light &= _dense(state) <= 2 and features.element_size() == 2
    tiled = WHOLE_HEAD_ROW < num_classes <= MAX_TILES * SPLIT_TILE
    return light and tiled and is_hopper(update_split_rows, features.device)


def _dense(state: Mapping[str, Tensor]) -> int:
    """How many tensors with a class axis every update reads."""
    unread = ("label_counts", "latest_output")
    return sum(STATE[name].per_class and name not in unread for name in state)


def _update_split(sample_ids: Tensor, source: Source, tracker: Tracker) -> None:
    batch, num_classes = len(sample_ids), len(source.weight)
    if batch == 0:
        return
    sigmoid = tracker.activation == "sigmoid"
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
        _state(tracker, None),
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
        SIGMOID=sigmoid,
        num_warps=8,
        registers=SPLIT_REGISTERS if _dense(tracker.state) <= 1 and not sigmoid else None,
        PREFETCH=not interpreted(update_split_rows),
        num_stages=3,
    )


def _state(tracker: Tracker, targets: Tensor | None) -> State:
    """The tensors as the kernels take them: those of labeled samples only beside targets."""
    skipped = "training" if targets is None else None
    return State(
        *(None if spec.part == skipped else tracker.state.get(name) for name, spec in STATE.items())
    )


def _launch(
    kernel: Any,
    sample_ids: Tensor,
    targets: Tensor | None,
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
        targets,
        source,
        teacher_source,
        batch,
        tracker.stamp.shape[0],
        options["NUM_CLASSES"],
        tracker.pass_stamp,
        tracker.stamp,
        tracker.unknown_ids,
        _state(tracker, targets),
        dependent=True,
        **options,
    )
