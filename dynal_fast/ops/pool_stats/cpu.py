"""``pool_stats_update`` on the CPU: the compiled kernel, given addresses."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dynal_fast._extension import load
from dynal_fast.ops.pool_stats.contract import STATE

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


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
    load().pool_stats_update(
        sample_ids.data_ptr(),
        sample_ids.element_size(),
        len(sample_ids),
        logits.data_ptr(),
        0 if teacher_logits is None else teacher_logits.data_ptr(),
        DTYPE_CODES[logits.dtype],
        logits.shape[1],
        *_tracker(pass_stamp, stamp, unknown_ids, state),
    )


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
        torch.get_num_threads(),
    )
