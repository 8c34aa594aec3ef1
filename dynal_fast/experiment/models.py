"""Models by name: two small ones for digits beside the papers' own; embeddings of many samples."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dynal_fast.models import MODELS as PAPER_MODELS
from dynal_fast.models import build_model, penultimate

ModelFactory = Callable[[], nn.Module]


def mlp(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two hidden layers of 128 and 64 units on flat inputs."""
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
    """Two small convolutions and a hidden layer of 64 units, for images of about 8×8."""
    if len(input_shape) != 3 or min(input_shape[1:]) < 2:
        raise ValueError(
            "cnn takes images (channels, height, width) with sides of at least 2, "
            f"got {tuple(input_shape)}"
        )
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


SMALL_MODELS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {"mlp": mlp, "cnn": cnn}


def model_factory(name: str, input_shape: tuple[int, ...], num_classes: int) -> ModelFactory:
    """Return a function that builds the model called ``name``.

    Raises
    ------
    ValueError
        The name is unknown; or, when it is built, the model does not take inputs of this shape.

    >>> build = model_factory("mlp", (1, 8, 8), num_classes=10)
    >>> build()(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    if name in SMALL_MODELS:
        return lambda: SMALL_MODELS[name](input_shape, num_classes)
    if name in PAPER_MODELS:
        return lambda: build_model(name, input_shape, num_classes)  # type: ignore[arg-type]
    known = ", ".join([*SMALL_MODELS, *sorted(PAPER_MODELS)])
    raise ValueError(f"model must be one of {known}, got {name!r}")


def embed_samples(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    device: torch.device,
) -> Tensor:
    """Return the penultimate activations of ``count`` samples, ``(count, features)``.

    Written in place batch by batch: nothing else of that size exists. The dtype and device are the
    model's; the rows are in the order of ``batches`` of ``(sample_ids, inputs)``.

    >>> model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> batches = [(torch.arange(4), torch.ones(4, 2))]
    >>> embed_samples(model, batches, 4, torch.device("cpu")).shape
    torch.Size([4, 5])
    """
    embeddings = torch.empty(0)
    row = 0
    with evaluating(model), torch.no_grad(), penultimate(model) as embedding:
        for _, inputs in batches:
            model(inputs.to(device))
            features = embedding()
            if row == 0:
                embeddings = features.new_empty(count, features.shape[1])
            embeddings[row : row + len(features)] = features
            row += len(features)
    return embeddings


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode, and every layer back into its own mode afterwards."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
