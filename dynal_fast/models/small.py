"""Small models, from no paper: a head on embeddings, and others for small images."""

import torch
from torch import nn


def linear(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """One linear layer on flat inputs of any shape, such as embeddings.

    >>> linear((384,), 10)(torch.zeros(3, 384)).shape
    torch.Size([3, 10])
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes))


def linear_head(model: nn.Module) -> nn.Linear | None:
    """Return the only layer of a model that :func:`linear` built, None of another.

    >>> linear_head(linear((384,), 10)).weight.shape
    torch.Size([10, 384])
    """
    if type(model) is nn.Sequential and list(map(type, model)) == [nn.Flatten, nn.Linear]:
        head = model[1]
        return head if isinstance(head, nn.Linear) else None
    return None


def mlp(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two hidden layers of 128 and 64 units on flat inputs of any shape.

    >>> mlp((1, 8, 8), 10)(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    size = torch.Size(input_shape).numel()
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def cnn(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two small convolutions and a hidden layer of 64 units, for images of about 8×8.

    >>> cnn((1, 8, 8), 10)(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * (height // 2) * (width // 2), 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def cnn_bn(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two convolutions with batch normalisation, each halving the image, and 64 hidden units.

    For images of about 28×28, where it costs about twice what :func:`mlp` does.

    >>> cnn_bn((1, 28, 28), 10)(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 10])
    """
    channels, height, width = input_shape
    sides = -(-height // 4) * -(-width // 4)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(16 * sides, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
