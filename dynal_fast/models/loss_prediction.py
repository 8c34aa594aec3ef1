"""A model with a second head that predicts the loss of each sample, and how that is trained.

D. Yoo, I. S. Kweon. "Learning Loss for Active Learning", CVPR 2019 (LL4AL); the ranking by
cross-entropy is that of K. Kim, D. Park, K. I. Kim, S. Y. Chun. "Task-Aware Variational Adversarial
Active Learning", CVPR 2021 (TA-VAAL).
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 128


def feature_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose outputs are the intermediate features of a model, in order.

    The children of its ``stages``, as a residual network has; else its max-pooling layers, if there
    are several; else its activations. At most the last four.

    Raises
    ------
    ValueError
        The model has none of them as modules.

    >>> feature_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    [ReLU()]
    """
    stages = getattr(model, "stages", None)
    if isinstance(stages, nn.Sequential):
        return list(stages)[-4:]
    found = _instances(model, nn.MaxPool2d)
    if len(found) < 2:
        found = _instances(model, nn.ReLU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Tanh)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no intermediate features to predict a loss from: neither "
            "`stages`, nor pooling layers, nor activations that are modules"
        )
    return found[-4:]


def _instances(model: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, kinds)]


def pairs(predicted: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences of sample k and sample B - 1 - k, each ``(B // 2,)``.

    The first sample is compared with the last, the second with the last but one, and so on; of an
    odd number the one in the middle is left out. The losses are constants.
    """
    half = len(predicted) // 2
    first, last = slice(half), torch.arange(len(predicted) - 1, len(predicted) - 1 - half, -1)
    losses = losses.detach()
    return predicted[first] - predicted[last], losses[first] - losses[last]


def margin_ranking_loss(predicted: Tensor, losses: Tensor, margin: float = 1.0) -> Tensor:
    """Return the mean over pairs of ``max(0, margin - sign * (predicted difference))`` (LL4AL).

    The sign is that of the true difference, -1 of a tie.

    Parameters
    ----------
    predicted, losses
        ``(batch,)``: predicted losses and true ones.

    >>> predicted, losses = torch.tensor([0.2, 1.0, 0.5, -0.3]), torch.tensor([2.0, 0.5, 0.9, 1.0])
    >>> margin_ranking_loss(predicted, losses)
    tensor(1.)
    """
    predicted, true = pairs(predicted, losses)
    sign = torch.where(true > 0, 1.0, -1.0)
    return _mean(functional.relu(margin - sign * predicted))


def ranking_cross_entropy(predicted: Tensor, losses: Tensor) -> Tensor:
    """Return the mean over pairs of the cross-entropy of which loss is the larger (TA-VAAL).

    ``BCE(sigmoid(predicted difference), true difference > 0)``.

    >>> predicted, losses = torch.tensor([0.2, 1.0, 0.5, -0.3]), torch.tensor([2.0, 0.5, 0.9, 1.0])
    >>> round(ranking_cross_entropy(predicted, losses).item(), 6)
    0.724077
    """
    predicted, true = pairs(predicted, losses)
    larger = (true > 0).to(predicted.dtype)
    return _mean(functional.binary_cross_entropy_with_logits(predicted, larger, reduction="none"))


def _mean(terms: Tensor) -> Tensor:
    return terms.mean() if len(terms) else terms.sum()  # no pair in a batch of one


class LossPredictor(nn.Module):
    """Features of several layers to one predicted loss a sample.

    Each feature is averaged over the image and goes through a linear layer of 128 units and ReLU;
    all of them together go through one more linear layer.

    >>> LossPredictor([64, 128])([torch.zeros(5, 64, 4, 4), torch.zeros(5, 128)]).shape
    torch.Size([5])
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(count, WIDTH) for count in channels)
        self.last = nn.Linear(WIDTH * len(channels), 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(batch,)`` of features ``(batch, channels, ...)``."""
        pooled = [each.flatten(2).mean(2) if each.ndim > 2 else each for each in features]
        hidden = [
            functional.relu(layer(each)) for layer, each in zip(self.first, pooled, strict=True)
        ]
        return self.last(torch.cat(hidden, 1))[:, 0]


class LossPredicting(nn.Module):
    """Any model with a `LossPredictor` on its intermediate features.

    Called, it returns the model's logits, so that evaluation, observation and embeddings are those
    of the model alone.

    Parameters
    ----------
    model
        It has `feature_layers`.
    input_shape
        Shape of one input; a copy of the model is run once to learn the width of the features.
    weight
        Of the ranking loss.
    margin
        That of `margin_ranking_loss`; None takes `ranking_cross_entropy`.
    flow
        The share of the epochs in which the gradient of the ranking loss reaches the model.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> predicting = LossPredicting(model, (4,))
    >>> logits, losses = predicting.with_losses(torch.ones(5, 4))
    >>> logits.shape, losses.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        weight: float = 1.0,
        margin: float | None = 1.0,
        flow: float = 0.605,
    ) -> None:
        super().__init__()
        self.model = model
        self.weight, self.margin, self.flow = weight, margin, flow
        with torch.no_grad():  # a copy: batch statistics and modes of the model must not change
            _, features = _features(copy.deepcopy(model).eval(), torch.zeros(1, *input_shape))
        self.predictor = LossPredictor([each.shape[1] for each in features])

    def forward(self, inputs: Any) -> Tensor:
        """Return the model's logits."""
        return self.model(inputs)

    def with_losses(self, inputs: Any, flows: bool = True) -> tuple[Tensor, Tensor]:
        """Return logits and predicted losses ``(batch,)``.

        Parameters
        ----------
        flows
            Whether the gradient of the predictions reaches the model.
        """
        logits, features = _features(self.model, inputs)
        return logits, self.predictor(features if flows else [each.detach() for each in features])

    def loss(self, inputs: Any, targets: Tensor, progress: float) -> Tensor:
        """Return the mean cross-entropy plus ``weight`` times the ranking loss.

        Parameters
        ----------
        inputs, targets
            A batch and its labels, int64 ``(batch,)``.
        progress
            The share of the epochs that are done, 0 in the first.
        """
        logits, predicted = self.with_losses(inputs, progress < self.flow)
        losses = functional.cross_entropy(logits, targets, reduction="none")
        if self.margin is None:
            ranking = ranking_cross_entropy(predicted, losses)
        else:
            ranking = margin_ranking_loss(predicted, losses, self.margin)
        return losses.mean() + self.weight * ranking


def _features(model: nn.Module, inputs: Any) -> tuple[Tensor, list[Tensor]]:
    """Run a model and return its logits and the outputs of its `feature_layers`."""
    layers = feature_layers(model)
    outputs: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, at=at: outputs.__setitem__(at, output))
        for at, layer in enumerate(layers)
    ]
    try:
        logits = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, [outputs[at] for at in range(len(layers))]
