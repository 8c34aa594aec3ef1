"""``pool_stats_update`` on the CPU: the compiled kernel, given addresses."""

from collections.abc import Mapping

from torch import Tensor

from dynal_fast._extension import load
from dynal_fast.ops import dtypes
from dynal_fast.ops.pool_stats.addresses import (
    head_addresses,
    row_address,
    tracker_addresses,
)
from dynal_fast.threads import kernel_threads

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
    tracker = tracker_addresses(pass_stamp, stamp, unknown_ids, state)
    for first, rows in _slices(len(sample_ids), classes):
        update(
            row_address(sample_ids, first),
            sample_ids.element_size(),
            rows,
            classes,
            dtypes.code(logits.dtype),
            row_address(logits, first),
            0 if teacher_logits is None else row_address(teacher_logits, first),
            tracker,
            kernel_threads(),
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
    tracker = tracker_addresses(pass_stamp, stamp, unknown_ids, state)
    for first, rows in _slices(len(sample_ids), classes * (1 + features.shape[1] // 16)):
        update(
            row_address(sample_ids, first),
            sample_ids.element_size(),
            rows,
            classes,
            dtypes.code(features.dtype),
            head_addresses(features, weight, bias, first),
            head_addresses(teacher_features, teacher_weight, teacher_bias, first),
            tracker,
            kernel_threads(),
        )


def _slices(rows: int, cost: int) -> list[tuple[int, int]]:
    """The first row and the number of rows of each call."""
    step = max(1, MAX_ELEMENTS // cost)
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]
