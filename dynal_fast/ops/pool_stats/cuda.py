"""``pool_stats_update_from_features`` in CUDA C++, for heads that fit into a cluster on Hopper.

Floor. B = 8,192 rows, d = 768, C = 1,000 in bfloat16, the mean tracked, on an H200 (4.3 TB/s, 790
TFLOP/s, 132 multiprocessors): 79 MB, 18.3 us, and 12.6 GFLOP, 16 us.

What the kernel (``csrc/cuda/pool_stats_head.cuh``) does about it: C = 1,000 takes a cluster of
eight blocks, each with the weights of 128 classes in its shared memory (192 KB); 16 clusters fill
128 multiprocessors. Each folds eight tiles of 64 rows, whose features one copy brings to all eight
blocks. Counted at 1.755 GHz, not measured:

- L2 hands out 26 MB of weights, 13 MB of features and the state both ways, 66 MB: 105 MB, where
  tiles of 128 x 128 logits without clusters take 267 MB. 14 us at 7.5 TB/s, 18 us at 5.7.
- The products of a tile are 48 instructions of 64 cycles, 3,100 cycles. Those between them are some
  95 for every 256 cycles of products, all beside them.
- The rest of a tile is some 2,500 instructions of each warp, 5,000 cycles, and 3,800 cycles of
  waiting: for two meetings of the cluster, and for L2. Three groups take turns, so that it runs
  beside the products of the next two tiles: a tile may take 4,400 cycles.
- The place of a piece of features is free again when all eight blocks are done with it, and seven
  places fit beside the weights. If a piece comes out of L2, where the tile before had it brought,
  750 cycles after its place was free, a tile takes 4,200 cycles; if after 900, 4,750.
- The first tile waits for the weights and is done after 5 us, the seven others take 2.5 to 2.7 us
  each, the last is folded beside nothing, 5 us, and a launch takes 1.5 us: 29 to 30.5 us, 60 to 63%
  of the bound, of which 60% are wanted. At 1.98 GHz, an H200's highest clock, it is 26 to 27 us.
- A device whose processors do not lie in groups of 16 runs 15 clusters at once, on 120 of 132
  multiprocessors, and some fold nine tiles: 31.5 to 33 us, 55 to 58%.
- More rows in a call share its 11.5 us of beginning and end. 50,000 rows are 112 us of bytes, and
  take 15 clusters 53 tiles, 141 to 152 us, 74 to 79%; 16 clusters 49 tiles, 79 to 85%. So rows
  should come in one call, not in batches: nothing is stored for a row.

Clusters of four would fill 124 to 128 multiprocessors, but hold the weights of 512 classes of 768
features. For 1,000 classes they would stream them: 100 MB for tiles of 128 rows, 180 MB in all, 24
to 32 us at 7.5 to 5.7 TB/s, and 35 to 43 us with beginning and end. So a cluster has as many blocks
as the weights need: four up to 512 classes.

What a device has to show first: how long a piece takes, and how many clusters run at once.

A cuBLAS head and `update` take 45 us. Where a head does not fit, or on another device, `triton` has
the kernels.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dynal_fast._extension import load_cuda
from dynal_fast.ops import dtypes
from dynal_fast.ops.pool_stats.addresses import head_addresses, tracker_addresses
from dynal_fast.ops.pool_stats.contract import STATE, Head, Tracker

SMALLEST = 129  # classes: fewer are one block's, and a row then fits in one program's registers
MAX_ROWS = 2**31 - 64  # their numbers are coordinates of copies


def update_from_features(
    sample_ids: Tensor, head: Head, teacher: Head | None, tracker: Tracker
) -> None:
    """``pool_stats_update_from_features`` on CUDA tensors, by the kernel that is made for them."""
    if teacher is None and fits(*head, tracker.state):
        with torch.cuda.device_of(head.features):
            _extension().pool_stats_update_from_features(
                sample_ids.data_ptr(),
                sample_ids.element_size(),
                len(sample_ids),
                len(head.weight),
                dtypes.code(head.features.dtype),
                head_addresses(head),
                tracker_addresses(tracker),
                _stream(head.features.device),
            )
        return
    from dynal_fast.ops.pool_stats import triton

    triton.update_from_features(sample_ids, head, teacher, tracker)


def fits(
    features: Tensor, weight: Tensor, bias: Tensor | None, state: Mapping[str, Tensor]
) -> bool:
    """Whether the kernel takes such a batch: what it asks for is in ``pool_stats_head.h``."""
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
