"""``pool_stats_update`` on the CPU: the compiled kernel, given addresses."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dynal_fast._extension import load
from dynal_fast.ops.pool_stats.contract import STATE

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


MAX_ELEMENTS = 2**26  # of a call, which Ctrl-C has to wait for


def update_tensors(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    pass_stamp: Tensor,
    stamp: Tensor,
    unknown_ids: Tensor,
    state: Mapping[str, Tensor],
) -> None:
    """Fold a batch of logits into the state; shapes in :mod:`dynal_fast.ops.pool_stats`."""
    classes = logits.shape[1]
    update = load().pool_stats_update
    tracker = _tracker(pass_stamp, stamp, unknown_ids, state)
    for first, rows in _slices(len(sample_ids), classes):
        update(
            _row(sample_ids, first),
            sample_ids.element_size(),
            rows,
            classes,
            DTYPE_CODES[logits.dtype],
            _row(logits, first),
            0 if teacher_logits is None else _row(teacher_logits, first),
            tracker,
            torch.get_num_threads(),
        )


def update_tensors_from_features(
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
    """Fold a batch of features into the state through a linear head."""
    classes = len(weight)
    update = load().pool_stats_update_from_features
    tracker = _tracker(pass_stamp, stamp, unknown_ids, state)
    for first, rows in _slices(len(sample_ids), classes * (1 + features.shape[1] // 16)):
        update(
            _row(sample_ids, first),
            sample_ids.element_size(),
            rows,
            classes,
            DTYPE_CODES[features.dtype],
            _head(features, weight, bias, first),
            _head(teacher_features, teacher_weight, teacher_bias, first),
            tracker,
            torch.get_num_threads(),
        )


def _slices(rows: int, cost: int) -> list[tuple[int, int]]:
    """The first row and the number of rows of each call."""
    step = max(1, MAX_ELEMENTS // cost)
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]


def _row(tensor: Tensor, row: int) -> int:
    """The address of a row of a contiguous tensor; no slice is made, which takes longer."""
    return tensor.data_ptr() + row * tensor.stride(0) * tensor.element_size()


def _head(
    features: Tensor | None, weight: Tensor | None, bias: Tensor | None, first: int
) -> tuple[int, int, int, int]:
    if features is None or weight is None:
        return 0, 0, 0, 0
    address = 0 if bias is None else bias.data_ptr()
    return _row(features, first), weight.data_ptr(), address, features.shape[1]


def _tracker(
    pass_stamp: Tensor, stamp: Tensor, unknown_ids: Tensor, state: Mapping[str, Tensor]
) -> tuple[object, ...]:
    outputs = [state[name] for name in ("output", "previous_output") if name in state]
    return (
        pass_stamp.data_ptr(),
        stamp.data_ptr(),
        len(stamp),
        unknown_ids.data_ptr(),
        [state[name].data_ptr() if name in state else 0 for name in STATE],
        state["label_counts"].element_size() if "label_counts" in state else 0,
        outputs[0].element_size() if outputs else 0,
    )
