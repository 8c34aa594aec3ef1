"""The k highest scores, exactly, with ties broken fairly."""

import warnings
from typing import Any

import torch
from torch import Tensor

from dynal_fast.collective import as_collective
from dynal_fast.pool.candidates import candidate_ids, checked_top, first_ids, shuffled
from dynal_fast.pool.sharded.top import top_k_of_shards


def top_k(
    scores: Tensor,
    k: int,
    candidates: Tensor | None = None,
    generator: torch.Generator | None = None,
    ties: str = "random",
    group: Any = None,
) -> Tensor:
    """Return the indices of the ``k`` highest scores.

    Scores that take few values tie often (label dispersion has at most T), and data sets are often
    sorted by class. So by default ties are broken at random: each set of tied samples is equally
    likely to be taken.

    Parameters
    ----------
    scores
        Floating point ``(N,)``, higher is better. Candidates must not score NaN.
    k
        How many, at most the number of candidates.
    candidates
        Which samples may be taken: int ``(m,)`` distinct indices, or a bool ``(N,)`` mask; all by
        default.
    generator
        For ties at random; torch's global one by default. On the device of ``scores`` or the CPU.
    ties
        ``"random"``, or ``"first"``: the lowest index wins.
    group
        A process group of ``torch.distributed`` whose ranks hold the scores together. ``scores``
        are those of this rank's samples then; indices count through those of all ranks, in their
        order. Each rank may give all candidates or only those that it knows of; a mask has an entry
        for each of its scores. The result is that of one process, the same on every rank; what the
        generator of rank 0 draws counts.

    Returns
    -------
    Tensor
        int64 ``(k,)``, best first. Tied samples come in random order, or lowest index first. The
        result does not depend on the order of ``candidates``.

    Raises
    ------
    ValueError
        ``k`` is negative or more than there are candidates; a candidate is unknown, repeated or
        scores NaN; or ``ties`` is neither of the two.
    TypeError
        ``k`` is not an integer.

    Examples
    --------
    >>> scores = torch.tensor([0.1, 0.9, 0.5, 0.9])
    >>> top_k(scores, 3, ties="first").tolist()
    [1, 3, 2]
    >>> top_k(scores, 1, candidates=torch.tensor([0, 2])).tolist()
    [2]
    """
    if group is not None:
        return top_k_of_shards(scores, k, candidates, generator, ties, as_collective(group))
    k = checked_top(scores, k, ties)
    pool = candidate_ids(candidates, len(scores), scores.device)
    if not 0 <= k <= len(pool):
        raise ValueError(f"k must be between 0 and the {len(pool)} candidates, got {k}")
    values = scores.detach()[pool]
    if bool(values.isnan().any()):
        bad = pool[values.isnan()]
        raise ValueError(f"{len(bad)} candidates score NaN: {first_ids(bad)}")
    if k == 0:
        return pool[:0]

    threshold = values.topk(k).values[-1]
    above = (values > threshold).nonzero().squeeze(1)
    tied = (values == threshold).nonzero().squeeze(1)
    if ties == "random":
        above = above[shuffled(len(above), generator, above.device)]
        tied = tied[shuffled(len(tied), generator, tied.device)]
    above = above[values[above].argsort(descending=True, stable=True)]
    return pool[torch.cat([above, tied[: k - len(above)]])]


def top_b(
    scores: Tensor,
    b: int,
    candidates: Tensor | None = None,
    generator: torch.Generator | None = None,
    ties: str = "random",
) -> Tensor:
    """Return what `top_k` returns: its earlier name, deprecated."""
    warnings.warn("top_b is called top_k now", DeprecationWarning, stacklevel=2)
    return top_k(scores, b, candidates, generator, ties)
