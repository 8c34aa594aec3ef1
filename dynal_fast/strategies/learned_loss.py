"""LL4AL: picks the samples of the highest predicted loss.

D. Yoo, I. S. Kweon. "Learning Loss for Active Learning", CVPR 2019; a baseline of the output
discrepancy paper. `LossPredicting` has the module and the loss that it is trained with, beside the
task. In the authors' experiments the candidates are 10,000 of the pool, drawn at each selection:
``protocol.subset``.
"""

import torch
from torch import Tensor

from dynal_fast.evaluating import evaluating
from dynal_fast.models.loss_prediction import LossPredicting
from dynal_fast.pool.top import top_k
from dynal_fast.strategies.strategy import SelectionContext

RANKING = {
    "weight": 1.0,  # of the ranking loss: the paper's lambda
    "flow": 0.605,  # its gradient reaches the model in 121 of 200 epochs
}
OPTIONS = {**RANKING, "margin": 1.0}  # the paper's xi


def predicted_losses(context: SelectionContext, ids: Tensor) -> Tensor:
    """Return the losses that the model predicts for the samples ``ids``, float32 ``(ids,)``.

    Raises
    ------
    TypeError
        The model predicts none: the strategy does not declare ``needs=("loss_prediction",)``.
    """
    model = context.model
    if not isinstance(model, LossPredicting):
        raise TypeError(
            f"strategy {context.strategy.name!r} needs a LossPredicting model, got "
            f"{type(model).__name__}"
        )
    device = next(model.parameters()).device
    found = [torch.empty(0)]
    with evaluating(model), torch.no_grad():
        for _, inputs in context.batches(ids):
            found.append(model.with_losses(inputs.to(device))[1].float().cpu())
    return torch.cat(found)


def ll4al(context: SelectionContext) -> Tensor:
    """Pick the samples of the highest predicted loss."""
    scores = context.scores["ll4al"] = predicted_losses(context, context.candidates)
    best = top_k(scores, context.budget, generator=context.generator)
    return context.candidates[best]
