"""Models by name, the papers' and small ones, and the embedding of any model."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from dynal_fast.models.drn import DRND22
from dynal_fast.models.embed import embed
from dynal_fast.models.lenet import LeNet
from dynal_fast.models.resnet import ResNet18, ResNet20
from dynal_fast.models.small import cnn, cnn_bn, linear, linear_head, mlp
from dynal_fast.models.vgg import VGG16
from dynal_fast.penultimate import penultimate

MODELS: dict[str, Callable[[Any, int], nn.Module]] = {
    "cnn": cnn,
    "cnn-bn": cnn_bn,
    "drn-d-22": DRND22,
    "drn-d-22-dropout": partial(DRND22, dropout=0.2),
    "lenet": LeNet,
    "linear": linear,
    "mlp": mlp,
    "resnet18": ResNet18,
    "resnet18-dropout": partial(ResNet18, dropout=0.5),
    "resnet20": ResNet20,
    "vgg16": VGG16,
}
# The smallest side of an image, of which pooling leaves one pixel. mlp and linear take any input.
SMALLEST_SIDE = {
    "cnn": 2,
    "cnn-bn": 1,
    "drn-d-22": 8,
    "drn-d-22-dropout": 8,
    "lenet": 4,
    "resnet18": 1,
    "resnet18-dropout": 1,
    "resnet20": 1,
    "vgg16": 32,
}
# Models with logits for every pixel, and the layer whose input is the embedding.
SEGMENTATION = {"drn-d-22": "classifier", "drn-d-22-dropout": "classifier"}


def build_model(name: str, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return a model by its name, with weights from torch's global generator.

    Parameters
    ----------
    name
        One of ``MODELS``.
    input_shape
        ``(channels, height, width)``; any shape for ``mlp`` and ``linear``.
    num_classes
        Number of logits.

    Raises
    ------
    ValueError
        The name is unknown, or the shape does not fit the model.

    >>> sum(weight.numel() for weight in build_model("lenet", (1, 28, 28), 10).parameters())
    1663370
    """
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    smallest = SMALLEST_SIDE.get(name)
    if smallest is not None and (len(input_shape) != 3 or min(input_shape[1:]) < smallest):
        raise ValueError(
            f"{name} takes images (channels, height, width) with sides of at least {smallest}, "
            f"got {tuple(input_shape)}"
        )
    return MODELS[name](input_shape, num_classes)


__all__ = [
    "MODELS",
    "SEGMENTATION",
    "DRND22",
    "LeNet",
    "ResNet18",
    "ResNet20",
    "VGG16",
    "build_model",
    "embed",
    "linear_head",
    "penultimate",
]
