"""``pool_stats_update`` on the CPU: the compiled kernel, given addresses."""

from torch import Tensor

from dynal_fast._extension import load
from dynal_fast.ops import dtypes
from dynal_fast.ops.pool_stats.addresses import (
    head_addresses,
    row_address,
    tracker_addresses,
)
from dynal_fast.ops.pool_stats.contract import Head, Tracker
from dynal_fast.threads import kernel_threads

MAX_ELEMENTS = 2**26  # of a call, which Ctrl-C has to wait for


def update(
    sample_ids: Tensor, logits: Tensor, teacher_logits: Tensor | None, tracker: Tracker
) -> None:
    """Fold a batch of logits into the state; shapes in :mod:`dynal_fast.ops.pool_stats`."""
    classes = logits.shape[1]
    fold = load().pool_stats_update
    addresses = tracker_addresses(tracker)
    for first, rows in _slices(len(sample_ids), classes):
        fold(
            row_address(sample_ids, first),
            sample_ids.element_size(),
            rows,
            classes,
            dtypes.code(logits.dtype),
            row_address(logits, first),
            0 if teacher_logits is None else row_address(teacher_logits, first),
            addresses,
            kernel_threads(),
        )


def update_from_features(
    sample_ids: Tensor, head: Head, teacher: Head | None, tracker: Tracker
) -> None:
    """Fold a batch of features into the state through a linear head."""
    classes = len(head.weight)
    fold = load().pool_stats_update_from_features
    addresses = tracker_addresses(tracker)
    for first, rows in _slices(len(sample_ids), classes * (1 + head.features.shape[1] // 16)):
        fold(
            row_address(sample_ids, first),
            sample_ids.element_size(),
            rows,
            classes,
            dtypes.code(head.features.dtype),
            head_addresses(head, first),
            head_addresses(teacher, first),
            addresses,
            kernel_threads(),
        )


def _slices(rows: int, cost: int) -> list[tuple[int, int]]:
    """The first row and the number of rows of each call."""
    step = max(1, MAX_ELEMENTS // cost)
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]
