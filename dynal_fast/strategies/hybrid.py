"""Farthest-first as a part: after a shortlist, within classes, for compression."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from dynal_fast.collective import Alone, Collective, agreed, as_collective
from dynal_fast.collective.shards import shard_of
from dynal_fast.ops.farthest_first import farthest_first, farthest_first_compress
from dynal_fast.ops.farthest_first.arrays import Array, as_array
from dynal_fast.pool.top import top_k
from dynal_fast.strategies.registry import check_selects_from
from dynal_fast.strategies.strategy import SelectionContext, Strategy

SHORTLIST = 10.0


def diversified(strategy: Strategy) -> Strategy:
    """Return a strategy that shortlists by another one and picks farthest first from the shortlist.

    The two-step hybrid of section 2 of "When Deep Learners Change Their Mind" ("Hybrid methods"):
    uncertainty makes the shortlist, diversity chooses from it, here by farthest-first traversal
    (Algorithm 2 of "Deep Active Learning over the Long Tail"). The option ``shortlist`` is the
    length of the shortlist in budgets. With 1 the picks are those of the first strategy; if all
    candidates are shortlisted, those of farthest-first.

    ``get_strategy("NAME+farthest_first")`` returns this for every registered name of a strategy
    that selects from unlabeled samples.

    Raises
    ------
    ValueError
        ``strategy`` does not select from unlabeled samples, or has an option ``shortlist`` itself.

    >>> from dynal_fast.strategies.registry import get_strategy
    >>> bald = diversified(get_strategy("bald"))
    >>> bald.name, bald.needs, dict(bald.options)
    ('bald+farthest_first', ('mc_dropout', 'embeddings'), {'shortlist': 10.0})
    """
    check_selects_from(strategy, "unlabeled")
    if "shortlist" in strategy.options:
        raise ValueError(
            f"{strategy.name}+farthest_first has an option 'shortlist' of its own; "
            f"the one of {strategy.name!r} must have another name"
        )

    def select(context: SelectionContext) -> Tensor:
        factor = context.strategy.options["shortlist"]
        if not factor >= 1:
            raise ValueError(f"{context.strategy.name}.shortlist must be at least 1, got {factor}")
        size = math.floor(min(factor * context.budget, len(context.candidates)))
        # The first step's report and scores are about the shortlist, not about the picks.
        first_step = dataclasses.replace(context, budget=size, report={}, scores={})
        shortlist = strategy.select(first_step).cpu()
        traversal = farthest_first(
            context.embeddings(shortlist),
            context.budget,
            labeled=context.embeddings(context.labeled),
        )
        return shortlist[torch.as_tensor(traversal.indices).cpu()]

    return dataclasses.replace(
        strategy,
        name=f"{strategy.name}+farthest_first",
        select=select,
        description=f"{strategy.name} to shortlist, farthest-first to choose",
        needs=tuple(dict.fromkeys((*strategy.needs, "embeddings"))),
        aliases=(),
        options={**strategy.options, "shortlist": SHORTLIST},
        selects_from=("unlabeled",),
        ranks_by=None,
    )


def shortlisted_farthest_first(
    pool: Any,
    scores: Tensor,
    budget: int,
    labeled: Any = None,
    *,
    shortlist: float = SHORTLIST,
    metric: str = "euclidean",
    generator: torch.Generator | None = None,
    ties: str = "random",
    group: Any = None,
) -> Tensor:
    """Shortlist the rows with the highest scores, and pick ``budget`` of them, farthest first.

    What `diversified` strategies do, as a function of scores and embeddings, over many processes if
    asked. Where nothing is labeled, the first pick is the row with the highest score. Of rows at
    one distance the first of the pool is picked; `diversified` strategies take that with the higher
    score.

    Parameters
    ----------
    pool, labeled
        ``(n, d)`` and ``(m, d)`` embeddings, as :func:`dynal_fast.farthest_first` takes them.
    scores
        Floating point ``(n,)``, higher is better.
    shortlist
        The length of the shortlist in budgets, at least 1.
    metric
        As for ``farthest_first``.
    generator, ties
        For equal scores at the end of the shortlist, as for :func:`dynal_fast.top_k`.
    group
        As for ``farthest_first``: the pool is the shards of all ranks, of which this is one, with
        its scores; what is labeled may be passed whole, or in parts. All ranks return the same
        indices of the whole; the generator of rank 0 draws.

    Returns
    -------
    int64 ``(budget,)``: rows of the pool, in pick order.

    Raises
    ------
    ValueError
        The lengths differ, the budget is more than n, ``shortlist`` is below 1, or ``labeled`` are
        no embeddings.

    >>> pool = torch.tensor([[0.0], [1.0], [2.0], [5.0], [50.0]])
    >>> scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 0.0])
    >>> shortlisted_farthest_first(pool, scores, 2, torch.tensor([[0.0]]), shortlist=2)
    tensor([3, 2])
    """
    ranks = Alone() if group is None else as_collective(group)
    with ranks.session():
        array = agreed(ranks, lambda: _as_matrix(pool, "pool"))
        known = agreed(ranks, lambda: None if labeled is None else _as_matrix(labeled, "labeled"))
        sizes, begin = shard_of(ranks, len(array))
        total = sum(sizes)

        def checked() -> int:
            if len(scores) != len(array) or not 0 <= budget <= total:
                raise ValueError(
                    f"each sample must have a score, and budget be between 0 and the pool; got "
                    f"{len(array)} samples with {len(scores)} scores, budget {budget} of {total}"
                )
            if not shortlist >= 1:
                raise ValueError(f"shortlist must be at least 1, got {shortlist}")
            return math.floor(min(shortlist * budget, total)) if budget else 0

        size = agreed(ranks, checked)
        together = None if ranks.size == 1 else ranks
        ids = top_k(scores, size, generator=generator, ties=ties, group=together).cpu()
        best, ids = ids[:1], ids.sort().values
        own = ids[(ids >= begin) & (ids < begin + len(array))] - begin
        rows = array[own.to(array.device)] if isinstance(array, Tensor) else array[own.numpy()]
        (covered,) = ranks.total([0 if known is None else len(known)])
        start = None if covered or not budget else int(torch.searchsorted(ids, best))
        traversal = farthest_first(rows, budget, known, metric=metric, start=start, group=together)
        return ids[torch.as_tensor(traversal.indices).cpu()]


def _as_matrix(values: Any, name: str) -> Array:
    array = as_array(values, name)
    if array.ndim != 2:
        raise ValueError(f"{name} must be embeddings (samples, d), got shape {tuple(array.shape)}")
    return array


def stratified_farthest_first(
    pool: Array,
    pseudo_labels: Tensor,
    budget: int,
    labeled: Array,
    labels: Tensor,
    group: Any = None,
) -> Tensor:
    """Pick ``budget`` rows of the pool, farthest first within each pseudo-label class.

    Sections 3 and 6 of "Deep Active Learning over the Long Tail": FF-Active stratified like FF-Comp
    (Algorithm 1), with the model's predictions instead of labels. Only the labeled samples of the
    same class count. Classes get equal shares of the budget; what a small class cannot use, and the
    remainder of the division, goes to the other classes, first ones first.

    Parameters
    ----------
    pool, labeled
        ``(n, d)`` and ``(m, d)`` embeddings.
    pseudo_labels, labels
        int64 ``(n,)`` predicted, ``(m,)`` true.
    group
        As for `farthest_first`: the pool is the shards of all ranks, of which this is one; what is
        labeled may be passed whole, or in parts. All ranks return the same indices of the whole.

    Returns
    -------
    int64 ``(budget,)``: classes in increasing order, each in pick order.

    Raises
    ------
    ValueError
        The budget is more than n or the lengths differ.

    >>> pool = torch.tensor([[1.0], [9.0], [4.0], [5.0]])
    >>> stratified_farthest_first(pool, torch.tensor([0, 0, 1, 1]), 2, torch.tensor([[0.0], [4.0]]),
    ...                           torch.tensor([0, 1]))
    tensor([1, 3])
    """
    ranks = Alone() if group is None else as_collective(group)
    with ranks.session():
        return _stratified(ranks, pool, pseudo_labels, budget, labeled, labels)


def _stratified(
    ranks: Collective,
    pool: Array,
    pseudo_labels: Tensor,
    budget: int,
    labeled: Array,
    labels: Tensor,
) -> Tensor:
    sizes, begin = shard_of(ranks, len(pool))

    def check() -> None:
        _check_lengths(sum(sizes), len(pool), pseudo_labels, budget, labeled, labels)

    agreed(ranks, check)
    values, counts = pseudo_labels.unique(return_counts=True)
    told = ranks.everyones(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    classes = sorted({label for counts in told for label in counts})
    totals = [sum(counts.get(label, 0) for counts in told) for label in classes]
    picks = [torch.empty(0, dtype=torch.int64)]
    for label, share in zip(classes, equal_shares(totals, budget), strict=True):
        if share == 0:
            continue
        members = (pseudo_labels == label).nonzero().flatten()
        known = (labels == label).nonzero().flatten()
        traversal = farthest_first(
            pool[members],
            share,
            labeled=labeled[known] if len(known) else None,
            group=None if ranks.size == 1 else ranks,
        )
        first = sum(counts.get(label, 0) for counts in told[: ranks.rank])
        places = torch.as_tensor(traversal.indices).cpu() - first
        mine = (places >= 0) & (places < len(members))
        numbers = torch.zeros(share, dtype=torch.int64)
        numbers[mine] = members.cpu()[places[mine]] + begin
        picks.append(torch.tensor(ranks.total(numbers.tolist()), dtype=torch.int64))
    return torch.cat(picks)


def _check_lengths(
    total: int, size: int, pseudo_labels: Tensor, budget: int, labeled: Array, labels: Tensor
) -> None:
    if budget > total or len(pseudo_labels) != size or len(labels) != len(labeled):
        raise ValueError(
            f"budget must be at most the pool and each sample have a label; got budget {budget}, "
            f"{total} samples with {len(pseudo_labels)} pseudo-labels, {len(labeled)} labeled "
            f"with {len(labels)} labels"
        )


def equal_shares(sizes: list[int], budget: int) -> list[int]:
    """Split ``budget`` as evenly as the sizes allow.

    >>> equal_shares([10, 1, 10], 8)
    [4, 1, 3]
    """
    shares = [0] * len(sizes)
    for _ in range(min(budget, sum(sizes))):
        open_classes = [i for i, size in enumerate(sizes) if shares[i] < size]
        shares[min(open_classes, key=shares.__getitem__)] += 1
    return shares


def select_stratified(context: SelectionContext) -> Tensor:
    """Pick the samples of `stratified_farthest_first` by the model's embeddings and predictions."""
    picks = stratified_farthest_first(
        context.embeddings(context.candidates),
        context.predicted_labels(context.candidates),
        context.budget,
        context.embeddings(context.labeled),
        context.labeled_targets,
    )
    return context.candidates[picks]


def select_compressed(context: SelectionContext) -> Tensor:
    """FF-Comp: Algorithm 1 and eq. 1 of "Deep Active Learning over the Long Tail", section 2.

    Pick ``budget // classes`` samples of each class, farthest first from a random one, by the
    embeddings of the model that was trained on all labeled samples.
    """
    kept = farthest_first_compress(
        context.embeddings(context.labeled),
        context.labeled_targets,
        context.budget,
        generator=context.generator,
        progress=False,
    )
    return context.labeled[kept.cpu()]
