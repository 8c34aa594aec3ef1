"""`farthest_first` and `farthest_first_compress` of a pool in shards."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed
from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.contract import Traversal
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.request import as_traversal
from dynal_fast.ops.farthest_first.sharded.checkpoint import Checkpoint
from dynal_fast.ops.farthest_first.sharded.labeled import Labeled, union_of
from dynal_fast.ops.farthest_first.sharded.open import as_request, measure, open_pool
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
    checkpoint: Checkpoint | None = None,
) -> Traversal:
    """`farthest_first` of the ``shards`` of all ranks, in the order of the ranks."""
    with collective.session():
        pool = open_pool(collective, shards, metric, backend, k=k, start=start)
        known = union_of(collective, labeled, pool.shards, pool.firsts, pool.total)
        count, first = as_request(collective, pool, known, k, start, generator)
        shown = progress if collective.rank == 0 else False
        with Progress(count, shown, "farthest-first", "pick") as bar:
            traversal = measure(collective, pool, known).begin(collective)
            if checkpoint is not None:
                checkpoint.load(collective, traversal)

            def reached(state: Any) -> None:
                bar.reach(min(len(state.numbers), count))
                if after_round is not None:
                    after_round(state)
                if checkpoint is not None:
                    checkpoint.after_round(collective, state)

            answer = traversal.pick(count, first, reached)
        return as_traversal(answer, metric)


def compress_shards(
    collective: Collective,
    embeddings: Any,
    labels: Any,
    k: int,
    *,
    metric: str,
    generator: torch.Generator | None,
    progress: bool | None,
    backend: str | None,
) -> Tensor:
    """`farthest_first_compress` of the shards of all ranks, in the order of the ranks."""
    with collective.session():
        pool = open_pool(collective, [embeddings], metric, backend, k=k)
        classes = agreed(collective, lambda: contract.as_classes(labels, pool.shards[0].size))
        values, own = classes.unique(return_counts=True)
        told = collective.everyones(dict(zip(values.tolist(), own.tolist(), strict=True)))
        distinct = sorted({label for counts in told for label in counts})

        def checked() -> int:
            count = contract.as_count(k, "k", pool.total, "samples")
            if count < len(distinct):
                raise ValueError(
                    f"k must be at least the number of classes, {len(distinct)}, got {count}"
                )
            return count

        share = agreed(collective, checked) // max(len(distinct), 1)
        nobody = Labeled((), torch.empty(0, dtype=torch.int64))
        measured = measure(collective, pool, nobody)
        kept = [torch.empty(0, dtype=torch.int64, device=pool.shards[0].device)]
        shown = progress if collective.rank == 0 else False
        with Progress(len(distinct) * share, shown, "FF-Comp", "pick") as bar:
            for label in distinct:
                sizes = [counts.get(label, 0) for counts in told]
                members = (classes == label).nonzero().squeeze(1)
                drawn = 0
                if collective.rank == 0:
                    drawn = int(torch.randint(sum(sizes), (), generator=generator))
                (drawn,) = collective.total([drawn])
                place = drawn - sum(sizes[: collective.rank])
                mine = 0 <= place < len(members)
                (first,) = collective.total([int(members[place]) + pool.begin if mine else 0])
                traversal = measured.begin(collective, [members])
                kept.append(traversal.pick(min(share, sum(sizes)), first).indices)
                bar.reach(sum(map(len, kept)))
        return torch.cat(kept)
