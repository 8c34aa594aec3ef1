"""Checks of candidates, of `top_k`'s arguments and of integers; ids as text."""

import operator
from typing import Any

import torch
from torch import Tensor


def checked_top(scores: Tensor, k: int, ties: str) -> int:
    """Return ``k`` as an integer, once the arguments of `top_k` are checked."""
    if scores.ndim != 1 or not scores.is_floating_point():
        raise ValueError(
            f"scores must be (N,) floating point, got {tuple(scores.shape)} {scores.dtype}"
        )
    if ties not in ("random", "first"):
        raise ValueError(f"ties must be 'random' or 'first', got {ties!r}")
    return integer("k", k)


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
