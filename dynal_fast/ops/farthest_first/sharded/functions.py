"""`farthest_first` and `farthest_first_compress` of a pool in shards."""

from collections.abc import Sequence
from typing import Any

import torch

from dynal_fast.collective import Collective
from dynal_fast.ops.farthest_first.contract import Traversal
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.request import as_traversal
from dynal_fast.ops.farthest_first.sharded.labeled import union_of
from dynal_fast.ops.farthest_first.sharded.open import as_request, open_pool, open_traversal
from dynal_fast.ops.farthest_first.sharded.traversal import AfterRound


def farthest_first_of_shards(
    collective: Collective,
    shards: Sequence[Any],
    k: int,
    labeled: Any = None,
    *,
    metric: str = "euclidean",
    start: int | str | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    backend: str | None = None,
    after_round: AfterRound | None = None,
) -> Traversal:
    """`farthest_first` of the ``shards`` of all ranks, in the order of the ranks."""
    with collective.session():
        pool = open_pool(collective, shards, metric, backend, k=k, start=start)
        known = union_of(collective, labeled, pool.shards, pool.begin, pool.total)
        count, first = as_request(collective, pool, known, k, start, generator)
        shown = progress if collective.rank == 0 else False
        with Progress(count, shown, "farthest-first", "pick") as bar:
            traversal = open_traversal(collective, pool, known)

            def reached(state: Any) -> None:
                bar.reach(min(len(state.numbers), count))
                if after_round is not None:
                    after_round(state)

            answer = traversal.pick(count, first, reached)
        return as_traversal(answer, metric)
