"""``pool_stats_update_from_features`` in CUDA C++, for heads that fit into a cluster on Hopper.

The kernel is ``csrc/cuda/pool_stats_head.cuh``; ``README.md`` counts what it costs. Other heads,
and all with sigmoid outputs or targets, go to `triton`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dynal_fast._extension import load_cuda
from dynal_fast.ops import dtypes
from dynal_fast.ops.pool_stats.addresses import native_head, native_tracker
from dynal_fast.ops.pool_stats.contract import STATE, Head, Tracker

SMALLEST = 129  # classes; rows of fewer fit in one program's registers, in Triton
MAX_ROWS = 2**31 - 64  # row numbers are int32 coordinates of tensor copies


def update_from_features(
    sample_ids: Tensor,
    head: Head,
    teacher: Head | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """``pool_stats_update_from_features`` on CUDA tensors: this kernel where it fits."""
    plain = teacher is None and targets is None and tracker.activation == "softmax"
    if plain and fits(*head, tracker.state):
        native = _extension()
        batch = native.Batch(
            len(sample_ids),
            sample_ids.data_ptr(),
            sample_ids.element_size(),
            dtypes.code(head.features.dtype),
            head=native_head(native, head),
        )
        with torch.cuda.device_of(head.features):
            native.pool_stats_update_from_features(
                native_tracker(native, len(head.weight), tracker),
                batch,
                _stream(head.features.device),
            )
        return
    from dynal_fast.ops.pool_stats import triton

    triton.update_from_features(sample_ids, head, teacher, tracker, targets)


def fits(
    features: Tensor, weight: Tensor, bias: Tensor | None, state: Mapping[str, Tensor]
) -> bool:
    """Whether the kernel takes such a batch; ``pool_stats_head.h`` says what it needs."""
    num_classes, width = weight.shape
    if features.element_size() != 2 or num_classes < SMALLEST:
        return False
    if "logit_count" in state or "latest_output" in state:
        return False
    if num_classes % 2 or width % 8 or len(features) > MAX_ROWS or not runs_on(features.device):
        return False
    per_class = [tensor for name, tensor in state.items() if STATE[name].per_class]
    aligned = all(tensor.data_ptr() % 16 == 0 for tensor in (features, weight))
    aligned &= all(tensor.data_ptr() % 8 == 0 for tensor in per_class)
    aligned &= bias is None or bias.data_ptr() % 4 == 0
    if not aligned:
        return False
    with torch.cuda.device_of(features):
        return _extension().pool_stats_head_fits(num_classes, width)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether the device is a Hopper, and the kernels for it were built."""
    if device.type != "cuda" or _extension() is None or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def _extension() -> Any:
    return load_cuda()


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream
