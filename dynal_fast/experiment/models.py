"""The models that an experiment can name, and the embeddings of many samples."""

from collections.abc import Callable, Iterable, Sized
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.models import MODELS, SEGMENTATION, build_model
from dynal_fast.penultimate import penultimate
from dynal_fast.pool.accelerator import Accelerator
from dynal_fast.pool.forward import model_call
from dynal_fast.pool.twin import Bare

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
    accelerator: Accelerator | None = None,
) -> Tensor:
    """Return the penultimate activations of ``count`` samples, ``(count, features)``.

    Each batch is written in place, so no second array of that size exists. The dtype and device are
    the model's; the rows are in the order of ``batches`` of ``(sample_ids, inputs)``. ``head`` is
    that of :func:`~dynal_fast.models.penultimate`. An ``accelerator`` may compute them by a twin;
    the model's logits are ``(batch, classes)`` then.

    >>> model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> batches = [(torch.arange(4), torch.ones(4, 2))]
    >>> embed_samples(model, batches, 4, torch.device("cpu")).shape
    torch.Size([4, 5])
    """
    embeddings = torch.empty(0)
    row = 0
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        run = _embedder(model, batches, head, accelerator, stack)
        for sample_ids, inputs in batches:
            features = run(sample_ids, inputs.to(device))
            if row == 0:
                embeddings = features.new_empty(count, features.shape[1])
            embeddings[row : row + len(features)] = features
            row += len(features)
    return embeddings


def _embedder(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    head: str | None,
    accelerator: Accelerator | None,
    stack: ExitStack,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what gives the embeddings of a batch: a twin, or the model as it is."""
    if accelerator is not None and accelerator.mode != "off":
        number = len(batches) if isinstance(batches, Sized) else None
        twin = accelerator.runner(Bare(model, model_call(), True, head), number, 1)
        stack.enter_context(torch.random.fork_rng(devices=[]))

        def from_twin(sample_ids: Tensor, inputs: Tensor) -> Tensor:
            features = twin(sample_ids, inputs)[1]
            assert features is not None
            return features

        return from_twin
    embedding = stack.enter_context(penultimate(model, head))

    def bare(_: Tensor, inputs: Tensor) -> Tensor:
        model(inputs)
        return embedding()

    return bare
