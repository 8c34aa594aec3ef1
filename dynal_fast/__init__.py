"""Exact, fast selection for deep active learning."""

from dynal_fast._version import __version__
from dynal_fast.acquisition.top import top_b
from dynal_fast.ops.farthest_first import (
    Traversal,
    farthest_first,
    farthest_first_compress,
    verify_traversal,
)
from dynal_fast.pool import (
    EMATeacher,
    Epochs,
    EveryEpoch,
    LastEpochs,
    PoolImages,
    PoolObservationError,
    PoolStats,
    observe_pool,
)

__all__ = [
    "EMATeacher",
    "Epochs",
    "EveryEpoch",
    "LastEpochs",
    "PoolImages",
    "PoolObservationError",
    "PoolStats",
    "Traversal",
    "__version__",
    "farthest_first",
    "farthest_first_compress",
    "observe_pool",
    "verify_traversal",
    "top_b",
]
