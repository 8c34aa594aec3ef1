"""Tensors of an update as the compiled kernels take them: addresses and sizes."""

from torch import Tensor

from dynal_fast.ops.pool_stats.contract import STATE, Head, Tracker


def row_address(tensor: Tensor, row: int) -> int:
    """The address of a row of a contiguous tensor; no slice is made, which takes longer."""
    return tensor.data_ptr() + row * tensor.stride(0) * tensor.element_size()


def head_addresses(head: Head | None, first: int = 0) -> tuple[int, int, int, int]:
    """The addresses of features from row ``first`` on, of weight and bias, and the width."""
    if head is None:
        return 0, 0, 0, 0
    features, weight, bias = head
    address = 0 if bias is None else bias.data_ptr()
    return row_address(features, first), weight.data_ptr(), address, features.shape[1]


def tracker_addresses(tracker: Tracker) -> tuple[object, ...]:
    """The addresses of a tracker's tensors in the order of `STATE`, and their element sizes."""
    pass_stamp, stamp, unknown_ids, state = tracker
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
