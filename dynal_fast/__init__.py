"""Exact, fast selection for deep active learning.

The names load when they are first used, so that the command line shows its help without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dynal_fast._version import __version__

if TYPE_CHECKING:
    from dynal_fast.embeddings.load import Embeddings, load_embeddings
    from dynal_fast.ops.farthest_first import (
        Assignment,
        FarthestFirst,
        OuterProducts,
        Traversal,
        assign_to_picks,
        farthest_first,
        farthest_first_compress,
        verify_traversal,
    )
    from dynal_fast.ops.kmeans_plusplus import Seeding, kmeans_plusplus
    from dynal_fast.pool import (
        Accelerator,
        EMATeacher,
        Epochs,
        EveryEpoch,
        FromEpoch,
        LastEpochs,
        PoolImages,
        PoolObservationError,
        PoolShardSampler,
        PoolStats,
        embedding_store,
        observe_pool,
    )
    from dynal_fast.pool.top import top_b, top_k
    from dynal_fast.strategies import (
        SelectionContext,
        Strategy,
        get_strategy,
        register_strategy,
    )
    from dynal_fast.strategies.badge import badge, gradient_embeddings

_HOMES = {
    "Accelerator": "dynal_fast.pool",
    "Assignment": "dynal_fast.ops.farthest_first",
    "EMATeacher": "dynal_fast.pool",
    "Embeddings": "dynal_fast.embeddings.load",
    "Epochs": "dynal_fast.pool",
    "EveryEpoch": "dynal_fast.pool",
    "FarthestFirst": "dynal_fast.ops.farthest_first",
    "FromEpoch": "dynal_fast.pool",
    "LastEpochs": "dynal_fast.pool",
    "OuterProducts": "dynal_fast.ops.farthest_first",
    "PoolImages": "dynal_fast.pool",
    "PoolObservationError": "dynal_fast.pool",
    "PoolShardSampler": "dynal_fast.pool",
    "PoolStats": "dynal_fast.pool",
    "Seeding": "dynal_fast.ops.kmeans_plusplus",
    "SelectionContext": "dynal_fast.strategies",
    "Strategy": "dynal_fast.strategies",
    "Traversal": "dynal_fast.ops.farthest_first",
    "assign_to_picks": "dynal_fast.ops.farthest_first",
    "badge": "dynal_fast.strategies.badge",
    "embedding_store": "dynal_fast.pool",
    "farthest_first": "dynal_fast.ops.farthest_first",
    "farthest_first_compress": "dynal_fast.ops.farthest_first",
    "get_strategy": "dynal_fast.strategies",
    "gradient_embeddings": "dynal_fast.strategies.badge",
    "kmeans_plusplus": "dynal_fast.ops.kmeans_plusplus",
    "load_embeddings": "dynal_fast.embeddings.load",
    "observe_pool": "dynal_fast.pool",
    "register_strategy": "dynal_fast.strategies",
    "top_b": "dynal_fast.pool.top",
    "top_k": "dynal_fast.pool.top",
    "verify_traversal": "dynal_fast.ops.farthest_first",
}

__all__ = [
    "Accelerator",
    "Assignment",
    "EMATeacher",
    "Embeddings",
    "Epochs",
    "EveryEpoch",
    "FarthestFirst",
    "FromEpoch",
    "LastEpochs",
    "OuterProducts",
    "PoolImages",
    "PoolObservationError",
    "PoolShardSampler",
    "PoolStats",
    "Seeding",
    "SelectionContext",
    "Strategy",
    "Traversal",
    "__version__",
    "assign_to_picks",
    "badge",
    "embedding_store",
    "farthest_first",
    "farthest_first_compress",
    "get_strategy",
    "gradient_embeddings",
    "kmeans_plusplus",
    "load_embeddings",
    "observe_pool",
    "register_strategy",
    "top_b",
    "top_k",
    "verify_traversal",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
