"""A tracker and a head as the compiled kernels take them: structs of addresses and sizes.

``native`` is the module that has the structs of ``csrc/pool_stats/structs.h``: ``_C.pool_stats`` or
``_cuda``. They are made once a call, without keywords, which would take twice as long.
"""

from typing import Any

from torch import Tensor

from dynal_fast.ops import dtypes
from dynal_fast.ops.pool_stats.contract import Head, Tracker


def row_address(tensor: Tensor, row: int) -> int:
    """The address of a row of a contiguous tensor, without the cost of a slice."""
    return tensor.data_ptr() + row * tensor.stride(0) * tensor.element_size()


def native_head(
    native: Any,
    head: Head | None,
    first: int = 0,
    by_id: bool = False,
    dropout: Any = None,
) -> Any:
    """The head that is applied to the features from row ``first`` on, None without a head.

    With ``by_id`` it is applied to the rows that the sample ids name; ``dropout`` is a native one.
    """
    if head is None:
        return None
    features, weight, bias = head
    bias_address = 0 if bias is None else bias.data_ptr()
    return native.Head(
        row_address(features, 0 if by_id else first),
        weight.data_ptr(),
        bias_address,
        features.shape[1],
        dtypes.code(features.dtype),
        by_id,
        dropout,
    )


def native_tracker(native: Any, classes: int, tracker: Tracker) -> Any:
    pass_stamp, stamp, unknown_ids, state, activation = tracker
    outputs = [state[name] for name in ("output", "previous_output") if name in state]
    return native.Tracker(
        stamp.shape[0],
        classes,
        pass_stamp.data_ptr(),
        stamp.data_ptr(),
        unknown_ids.data_ptr(),
        {name: tensor.data_ptr() for name, tensor in state.items()},
        state["label_counts"].element_size() if "label_counts" in state else 0,
        outputs[0].element_size() if outputs else 0,
        activation == "sigmoid",
    )
