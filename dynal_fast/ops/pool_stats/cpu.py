"""``pool_stats_update`` on the CPU: the compiled kernel, given addresses."""

from torch import Tensor

from dynal_fast._extension import load
from dynal_fast.ops import dtypes
from dynal_fast.ops.pool_stats.addresses import (
    native_head,
    native_tracker,
    row_address,
)
from dynal_fast.ops.pool_stats.contract import Head, Tracker
from dynal_fast.ops.pool_stats.dropout import Dropout, native_dropout
from dynal_fast.threads import kernel_threads

MAX_ELEMENTS = 2**26  # in one call: Ctrl-C is seen between calls
# Each thread has so many logits at least, about 0.1 ms of work. With less, threads wait more than
# they work: milliseconds where the cores are busy, as with the workers of a DataLoader.
ELEMENTS_PER_THREAD = 2**15


def update(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """Fold a batch of logits into the state; shapes in :mod:`dynal_fast.ops.pool_stats`."""
    native, classes = load().pool_stats, logits.shape[1]
    native_state = native_tracker(native, classes, tracker)
    for first, rows in _slices(len(sample_ids), classes):
        batch = native.Batch(
            rows,
            row_address(sample_ids, first),
            sample_ids.element_size(),
            dtypes.code(logits.dtype),
            row_address(logits, first),
            0 if teacher_logits is None else row_address(teacher_logits, first),
            None,
            None,
            0 if targets is None else row_address(targets, first),
        )
        native.update(native_state, batch, _threads(rows * classes))


def update_from_features(
    sample_ids: Tensor,
    head: Head,
    teacher: Head | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """Fold a batch of features into the state through a linear head."""
    update_from_store(sample_ids, head, teacher, tracker, targets, by_id=False)


def update_from_store(
    sample_ids: Tensor,
    head: Head,
    teacher: Head | None,
    tracker: Tracker,
    targets: Tensor | None,
    by_id: bool,
    dropout: Dropout | None = None,
) -> None:
    """Fold a batch of features into the state through a linear head.

    With ``by_id`` row i of the features is that of sample i. Features may be float16 or bfloat16
    where the weights are float32. With ``dropout`` some of those of the head are dropped.
    """
    native, classes = load().pool_stats, len(head.weight)
    native_state = native_tracker(native, classes, tracker)
    masks = native_dropout(native, dropout, tracker.pass_stamp)
    cost = classes * (1 + head.features.shape[1] // 16)
    for first, rows in _slices(len(sample_ids), cost):
        batch = native.Batch(
            rows,
            row_address(sample_ids, first),
            sample_ids.element_size(),
            dtypes.code(head.weight.dtype),
            head=native_head(native, head, first, by_id, masks),
            teacher_head=native_head(native, teacher, first, by_id),
            targets=0 if targets is None else row_address(targets, first),
        )
        native.update(native_state, batch, _threads(rows * cost))


def _threads(elements: int) -> int:
    return max(1, min(kernel_threads(), elements // ELEMENTS_PER_THREAD))


def _slices(rows: int, cost: int) -> list[tuple[int, int]]:
    """The first row and the number of rows of each call."""
    step = max(1, MAX_ELEMENTS // cost)
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]
