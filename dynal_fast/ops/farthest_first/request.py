"""What is asked of a traversal, checked, and its answer as users get it."""

import math

import torch

from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.contract import Answer, Traversal, as_distances


def as_request(
    k: object, start: int | str | None, generator: torch.Generator | None, free: torch.Tensor
) -> tuple[int, int | None]:
    """Check ``k`` and ``start``, and draw a random one; ``free`` (n,) bool: what may be picked."""
    count = contract.as_count(k, "k", int(free.sum()), "pool samples that are not labeled")
    if start is None:
        return count, None
    if isinstance(start, str):
        if start != "random":
            raise ValueError(f'start must be a pool index, "random" or None, got {start!r}')
        choices = free.nonzero().squeeze(1)
        if len(choices) == 0:
            return count, None
        return count, int(choices[torch.randint(len(choices), (), generator=generator)])
    first = contract.as_count(start, "start", len(free) - 1, "the last pool sample")
    if not free[first]:
        raise ValueError(f"start must not be a labeled sample, got {first}")
    return count, first


def as_traversal(answer: Answer, metric: str) -> Traversal:
    """The picks with distances instead of decision values."""
    if metric == "euclidean":
        distances = as_distances(answer.values, answer.exponent)
        radius = math.ldexp(math.sqrt(answer.left), -answer.exponent)
        return Traversal(answer.indices, distances, radius)
    return Traversal(answer.indices, answer.values, answer.left)
