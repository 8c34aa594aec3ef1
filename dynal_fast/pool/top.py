"""The k highest scores, exactly, with ties broken fairly."""

import operator
import warnings
from typing import Any

import torch
from torch import Tensor


def top_k(
    scores: Tensor,
    k: int,
    candidates: Tensor | None = None,
    generator: torch.Generator | None = None,
    ties: str = "random",
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


def checked_top(scores: Tensor, k: int, ties: str) -> int:
    """Return ``k`` as an integer, once the arguments of `top_k` are checked."""
    if scores.ndim != 1 or not scores.is_floating_point():
        raise ValueError(
            f"scores must be (N,) floating point, got {tuple(scores.shape)} {scores.dtype}"
        )
    if ties not in ("random", "first"):
        raise ValueError(f"ties must be 'random' or 'first', got {ties!r}")
    return integer("k", k)


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


def candidate_ids(candidates: Tensor | None, n: int, device: torch.device) -> Tensor:
    """Return candidates, given as indices or as a mask, as sorted int64 indices."""
    if candidates is None:
        return torch.arange(n, device=device)
    candidates = torch.as_tensor(candidates, device=device)
    if candidates.dtype == torch.bool:
        if candidates.shape != (n,):
            raise ValueError(f"a mask of candidates must be ({n},), got {tuple(candidates.shape)}")
        return candidates.nonzero().squeeze(1)
    if candidates.shape == (0,):
        return candidates.long()
    if candidates.ndim != 1 or candidates.is_floating_point() or candidates.is_complex():
        raise ValueError(
            f"candidates must be (m,) integers or ({n},) bool, "
            f"got {tuple(candidates.shape)} {candidates.dtype}"
        )
    ids = candidates.long().sort().values
    if int(ids[0]) < 0 or int(ids[-1]) >= n:
        raise ValueError(f"candidates must be in [0, {n}), got {int(ids[0])} to {int(ids[-1])}")
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise ValueError(f"candidates must be distinct, got {first_ids(repeated)} repeatedly")
    return ids


def integer(name: str, value: Any) -> int:
    """Return ``value``, of any integer type but bool, as an int.

    >>> integer("k", torch.tensor(3))
    3
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def first_ids(ids: Tensor, most: int = 10) -> str:
    """Return the first few ids as text for a message.

    >>> first_ids(torch.arange(12))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    shown = ", ".join(str(i) for i in ids[:most].tolist())
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"


def shuffled(n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return the numbers below ``n`` in random order, drawn as `top_k` draws them."""
    source = generator.device if generator is not None else torch.device("cpu")
    return torch.randperm(n, generator=generator, device=source).to(device)
