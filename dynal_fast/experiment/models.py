"""The models that an experiment can name, and the embeddings of many samples."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.models import MODELS, SEGMENTATION, build_model
from dynal_fast.penultimate import penultimate

ModelFactory = Callable[[], nn.Module]


def model_factory(
    name: str, input_shape: tuple[int, ...], num_classes: int, segments: bool = False
) -> ModelFactory:
    """Return a function that builds the model called ``name`` (see :mod:`dynal_fast.models`).

    Raises
    ------
    ValueError
        No model that classifies, or none that ``segments``, has this name; or, when it is built,
        the model does not take inputs of this shape.

    >>> build = model_factory("mlp", (1, 8, 8), num_classes=10)
    >>> build()(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    known = [model for model in MODELS if (model in SEGMENTATION) == segments]
    if name not in known:
        task = " to label pixels" if segments else ""
        raise ValueError(f"model must be one of {', '.join(known)}{task}, got {name!r}")
    return lambda: build_model(name, input_shape, num_classes)


def embed_samples(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    device: torch.device,
    head: str | None = None,
) -> Tensor:
    """Return the penultimate activations of ``count`` samples, ``(count, features)``.

    Each batch is written in place, so no second array of that size exists. The dtype and device are
    the model's; the rows are in the order of ``batches`` of ``(sample_ids, inputs)``. ``head`` is
    that of :func:`~dynal_fast.models.penultimate`.

    >>> model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> batches = [(torch.arange(4), torch.ones(4, 2))]
    >>> embed_samples(model, batches, 4, torch.device("cpu")).shape
    torch.Size([4, 5])
    """
    embeddings = torch.empty(0)
    row = 0
    with evaluating(model), torch.no_grad(), penultimate(model, head) as embedding:
        for _, inputs in batches:
            model(inputs.to(device))
            features = embedding()
            if row == 0:
                embeddings = features.new_empty(count, features.shape[1])
            embeddings[row : row + len(features)] = features
            row += len(features)
    return embeddings
