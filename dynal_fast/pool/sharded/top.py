"""The k highest scores of all ranks: the tops of each, merged."""

import torch
from torch import Tensor

from dynal_fast.collective import Collective, agreed, check_alike, on_all_ranks
from dynal_fast.collective.packing import as_bytes, from_bytes
from dynal_fast.collective.shards import rows_at, shard_of
from dynal_fast.pool.candidates import candidate_ids, checked_top, first_ids, shuffled
from dynal_fast.pool.sharded.shard import ids_of_ranks


def top_k_of_shards(
    scores: Tensor,
    k: int,
    candidates: Tensor | None,
    generator: torch.Generator | None,
    ties: str,
    ranks: Collective,
) -> Tensor:
    """Return what `top_k_of_ranks` does; candidates count through the scores of all ranks.

    Each rank gives all of them, some, or a mask of its own scores.
    """
    with ranks.session():
        sizes, begin = shard_of(ranks, len(scores))
        own = candidates
        check_alike(ranks, "candidates, given or not,", [int(candidates is None)])
        if candidates is not None:

            def checked() -> Tensor:
                given = torch.as_tensor(candidates, device=scores.device)
                if given.dtype == torch.bool and given.shape == scores.shape:
                    return begin + given.nonzero().squeeze(1)
                return candidate_ids(given, sum(sizes), scores.device)

            ids = ids_of_ranks(ranks, agreed(ranks, checked))
            own = ids[(ids >= begin) & (ids < begin + len(scores))] - begin
        return top_k_of_ranks(scores, k, own, generator, ties, ranks)


def top_k_of_ranks(
    scores: Tensor,
    k: int,
    candidates: Tensor | None,
    generator: torch.Generator | None,
    ties: str,
    ranks: Collective,
) -> Tensor:
    """Return what `top_k` returns of the scores of all ranks, one behind the other.

    Each rank gives the scores and candidates of its own samples, counted from its first. Ranks tell
    each other their k highest; of ties, so many as are taken. Random ties are those that rank 0
    draws, as one process would; the generators of the others move on as far.

    Returns
    -------
    Tensor
        int64 (k,), the same on every rank: numbers of samples in the order of the ranks.
    """
    with ranks.session():
        _, begin = shard_of(ranks, len(scores))

        def checked() -> tuple[int, Tensor]:
            number = checked_top(scores, k, ties)
            return number, candidate_ids(candidates, len(scores), scores.device)

        k, pool = agreed(ranks, checked)
        check_alike(ranks, "k and ties", [k, int(ties == "random")])
        values = scores.detach()[pool]
        bad = begin + pool[values.isnan()]
        counts = ranks.counts([len(pool), len(bad)])
        available = sum(own for own, _ in counts)
        if not 0 <= k <= available:
            raise on_all_ranks(
                ValueError(f"k must be between 0 and the {available} candidates, got {k}")
            )
        if any(nan for _, nan in counts):
            all_bad = _gathered(ranks, bad, [nan for _, nan in counts])
            raise on_all_ranks(
                ValueError(f"{len(all_bad)} candidates score NaN: {first_ids(all_bad)}")
            )
        if k == 0:
            return pool[:0]
        return _merged(values, begin + pool, k, generator, ties, [own for own, _ in counts], ranks)


def _merged(
    values: Tensor,
    ids: Tensor,
    k: int,
    generator: torch.Generator | None,
    ties: str,
    sizes: list[int],
    ranks: Collective,
) -> Tensor:
    most = [min(k, size) for size in sizes]
    own = values.topk(most[ranks.rank]).indices.sort().values
    highest = _gathered(ranks, values[own], most)
    numbers = _gathered(ranks, ids[own], most)
    threshold = highest.topk(k).values[-1]
    over = highest > threshold  # all of them are among the highest of their rank
    above, of_above = numbers[over], highest[over]
    tied = ids[values == threshold]
    counts, _ = shard_of(ranks, len(tied))
    wanted = torch.arange(k - len(above))
    if ties == "random":
        drawn = shuffled(len(above), generator, torch.device("cpu"))
        wanted = shuffled(sum(counts), generator, torch.device("cpu"))[: k - len(above)]
        firsts = torch.cat([drawn, wanted])
        sent = [len(firsts) if rank == 0 else 0 for rank in range(ranks.size)]
        firsts = _gathered(ranks, firsts if ranks.rank == 0 else firsts[:0], sent)
        drawn, wanted = firsts.split([len(above), k - len(above)])
        drawn = drawn.to(above.device)
        above, of_above = above[drawn], of_above[drawn]
    above = above[of_above.argsort(descending=True, stable=True)]
    return torch.cat([above, rows_at(ranks, tied, wanted, counts)])


def _gathered(ranks: Collective, own: Tensor, counts: list[int]) -> Tensor:
    return from_bytes(ranks.rows(as_bytes(own), counts), own)
