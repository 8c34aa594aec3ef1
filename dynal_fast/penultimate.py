"""The embedding of any model: the input of its last linear layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def penultimate(model: nn.Module, head: str | None = None) -> Iterator[Callable[[], Tensor]]:
    """Record the embedding of every forward pass inside the block.

    Hooks record the inputs of the linear layers, so the model's code needs no change, and one pass
    gives logits and embedding; they are removed at the end of the block. The head is the linear
    layer that runs last, wherever it is registered, so auxiliary heads that do not run in
    evaluation mode are ignored. Hooks do not run in code compiled by ``torch.compile``: call the
    original module, as `~dynal_fast.models.embed` does.

    Parameters
    ----------
    model
        Any module.
    head
        Name of the submodule whose input is the embedding, if not the last ``nn.Linear``; spatial
        inputs ``(batch, d, height, width)`` are averaged over the image.

    Yields
    ------
    A function that returns the embedding ``(batch, d)`` of the latest forward pass, of the model's
    dtype, and forgets it.

    Raises
    ------
    ValueError
        The model has no ``nn.Linear`` or no submodule called ``head``.

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with penultimate(model) as embedding:
    ...     logits = model(torch.ones(5, 4))
    ...     features = embedding()
    >>> torch.equal(model[3](features), logits)
    True
    """
    latest: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        latest[:] = [*inputs, *named.values()][:1]

    def embedding() -> Tensor:
        if not latest:
            raise ValueError(
                f"no {'nn.Linear' if head is None else head} of {type(model).__name__} ran since "
                "the last embedding: call the model first"
            )
        return per_sample(latest.pop(), model)

    hooks = [
        layer.register_forward_pre_hook(record, with_kwargs=True) for layer in watched(model, head)
    ]
    try:
        yield embedding
    finally:
        for hook in hooks:
            hook.remove()


def watched(model: nn.Module, head: str | None) -> list[nn.Module]:
    """Return the modules of which the last to run is given the embedding."""
    if head is not None:
        names = dict(model.named_modules())
        if head not in names:
            raise ValueError(
                f"head must name a submodule of {type(model).__name__}, got {head!r}; "
                f"its children: {', '.join(name for name, _ in model.named_children()) or 'none'}"
            )
        return [names[head]]
    linear: list[nn.Module] = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(
            f"{type(model).__name__} has no nn.Linear whose input could be the embedding; "
            "name the submodule that gives the logits with head=..."
        )
    return linear


def per_sample(embedding: Tensor, model: nn.Module) -> Tensor:
    """Return an embedding as (batch, d); spatial ones are averaged."""
    if embedding.ndim == 4:
        embedding = embedding.mean((2, 3))
    if embedding.ndim != 2:
        raise ValueError(
            f"the last layer of {type(model).__name__} is given {tuple(embedding.shape)}, which is "
            "not one vector (batch, d) a sample"
        )
    return embedding
