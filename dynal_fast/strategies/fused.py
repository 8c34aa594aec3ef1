"""Prediction stability fused with an uncertainty score.

The future work of "Sequential-based active learning: prediction stability" (section 5): "fusing our
proposed method with uncertainty-based AL methods, because the information extracted by two kinds of
methods are complementary". The paper does not say how; here are the two ways that need no weight.
"""

from collections.abc import Callable

from torch import Tensor

from dynal_fast.pool.top import top_k
from dynal_fast.strategies.strategy import Select, SelectionContext

STABILITY = "prediction_stability"
UNCERTAINTIES = ("entropy", "least_confidence", "margin")


def product(stability: Tensor, uncertainty: Tensor) -> Tensor:
    """Return the product of two scores of at least 0: high only where both are.

    >>> import torch
    >>> product(torch.tensor([0.5, 0.25]), torch.tensor([0.5, 2.0]))
    tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    return stability.double() * uncertainty.double()


def rank_sum(stability: Tensor, uncertainty: Tensor) -> Tensor:
    """Return the sum of both ranks among the candidates, equal scores sharing their mean rank.

    It does not depend on the scale of either score.

    >>> import torch
    >>> rank_sum(torch.tensor([0.1, 0.3, 0.2]), torch.tensor([5.0, 5.0, 9.0]))
    tensor([2.5000, 4.5000, 5.0000], dtype=torch.float64)
    """
    return ranks(stability) + ranks(uncertainty)


def ranks(scores: Tensor) -> Tensor:
    """Return the ranks from 1 for the lowest, equal ones sharing their mean, float64 ``(n,)``.

    >>> import torch
    >>> ranks(torch.tensor([3.0, 1.0, 3.0]))
    tensor([2.5000, 1.0000, 2.5000], dtype=torch.float64)
    """
    _, of_value, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[of_value]


def fused(uncertainty: str, fuse: Callable[[Tensor, Tensor], Tensor]) -> Select:
    """Return the strategy that picks the highest of both scores fused.

    The margin, 0 where two classes are as likely, counts as ``1 - (p1 - p2)`` in a product. Ranks
    are among the candidates.
    """

    def select(context: SelectionContext) -> Tensor:
        ids = context.candidates
        first, second = (context.stats.score(name).cpu()[ids] for name in (STABILITY, uncertainty))
        if uncertainty == "margin" and fuse is product:
            second = 1 + second
        scores = fuse(first, second).float()
        context.scores[context.strategy.name] = scores
        return ids[top_k(scores, context.budget, generator=context.generator)]

    return select
