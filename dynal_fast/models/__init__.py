"""The papers' models by name, and the embedding of any model."""

from collections.abc import Callable

from torch import nn

from dynal_fast.models.drn import DRND22
from dynal_fast.models.embed import embed, penultimate
from dynal_fast.models.lenet import LeNet
from dynal_fast.models.resnet import ResNet18
from dynal_fast.models.vgg import VGG16

# The smallest side of an image is what the model's pooling leaves one pixel of.
MODELS: dict[str, tuple[Callable[[tuple[int, int, int], int], nn.Module], int]] = {
    "drn-d-22": (DRND22, 8),
    "lenet": (LeNet, 4),
    "resnet18": (ResNet18, 1),
    "vgg16": (VGG16, 32),
}


def build_model(name: str, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a model by its name, with weights from torch's global generator.

    Parameters
    ----------
    name
        One of ``MODELS``.
    input_shape
        ``(channels, height, width)``.
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
        raise ValueError(f"model must be one of {', '.join(sorted(MODELS))}, got {name!r}")
    model, smallest = MODELS[name]
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{name} takes images (channels, height, width) with sides of at least {smallest}, "
            f"got {tuple(input_shape)}"
        )
    return model(input_shape, num_classes)


__all__ = [
    "MODELS",
    "DRND22",
    "LeNet",
    "ResNet18",
    "VGG16",
    "build_model",
    "embed",
    "penultimate",
]
