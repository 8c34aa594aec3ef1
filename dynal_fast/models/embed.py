"""The embedding of one batch."""

from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast.penultimate import penultimate


def embed(model: nn.Module, inputs: Any, head: str | None = None) -> Tensor:
    """Return the embedding of a batch: the input of the model's last linear layer.

    The long-tail paper (1.1) decomposes a model into a representation and a classifier, its last
    layer; this is the representation. No gradients are recorded. The model's mode is not changed:
    call ``model.eval()`` before, or dropout and batch statistics will change the embedding.

    Parameters
    ----------
    model
        Any module.
    inputs
        What the model takes, usually ``(batch, channels, height, width)``.
    head
        As in `penultimate`.

    Returns
    -------
    ``(batch, d)`` of the model's dtype and device.

    Raises
    ------
    ValueError
        As in `penultimate`, or the embedding is not one vector for each sample.

    >>> embed(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.ones(5, 4)).shape
    torch.Size([5, 3])
    """
    model = getattr(model, "_orig_mod", model)  # inside torch.compile's wrapper, where hooks work
    with torch.no_grad(), penultimate(model, head) as embedding:
        model(inputs)
        return embedding()
