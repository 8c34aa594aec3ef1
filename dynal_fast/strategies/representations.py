"""Farthest-first over an ensemble of representations by MC-dropout.

Section 6 of "Deep Active Learning over the Long Tail": "using the Monte-Carlo dropout technique of
Gal et al. (2017), we can effectively generate an ensemble of representations and reduce the
variance in our traversal predictions".
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.penultimate import penultimate
from dynal_fast.pool.mc_dropout import dropout_layers
from dynal_fast.strategies.strategy import SelectionContext

PASSES = 10
CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # drop whole channels


@contextmanager
def one_subnetwork(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Drop the same units for every sample inside the block; draw the next ones at each block.

    Monte-Carlo dropout draws units for each sample anew. Distances between two samples need both in
    one representation, so that equal samples are at distance 0.

    Raises
    ------
    ValueError
        A layer drops in another way than torch's dropout layers do.
    """
    hooks = []
    for name, layer in dropout_layers(model).items():
        if not isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            raise ValueError(
                f"an ensemble of representations needs torch's dropout layers, {name} is "
                f"{type(layer).__name__}"
            )
        hooks.append(layer.register_forward_hook(_dropping(layer, generator)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _dropping(layer: Any, generator: torch.Generator) -> Any:
    masks: dict[tuple[int, ...], Tensor] = {}  # of this layer's shapes, drawn at its first use

    def drop(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        shape = tuple(output.shape[1:])
        if isinstance(layer, CHANNELS):
            shape = (shape[0], *(1 for _ in shape[1:]))
        if shape not in masks:
            keep = torch.rand(shape, generator=generator) >= layer.p
            masks[shape] = (keep / (1 - layer.p)).to(output)
        return output * masks[shape]

    return drop


def representations(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    passes: int,
    seed: int,
    head: str | None = None,
) -> Tensor:
    """Return the embeddings under ``passes`` dropped subnetworks, beside each other.

    ``(count, passes * features)``, of the model's dtype and device. Divided by the root of
    ``passes``: a squared distance is the mean of those in the single representations.

    Parameters
    ----------
    batches
        ``(sample_ids, inputs)``, read once; the rows are in their order.
    seed
        Decides the subnetworks; the same for the pool and for the labeled samples.
    """
    device = next(model.parameters()).device
    rows = torch.empty(0)
    done = 0
    with evaluating(model), torch.no_grad(), penultimate(model, head) as embedding:
        for _, inputs in batches:
            inputs = inputs.to(device)
            generator = torch.Generator().manual_seed(seed)
            parts = []
            for _ in range(passes):
                with one_subnetwork(model, generator):
                    model(inputs)
                parts.append(embedding() / passes**0.5)
            whole = torch.cat(parts, 1)
            if done == 0:
                rows = whole.new_empty(count, whole.shape[1])
            rows[done : done + len(whole)] = whole
            done += len(whole)
    return rows


def select_in_ensemble(context: SelectionContext) -> Tensor:
    """Pick farthest first by the mean squared distance over the representations.

    FF-Active (Algorithm 2) in :func:`representations`. The option ``passes`` is their number; they
    are all in memory, so that the traversal is exact.

    Raises
    ------
    ValueError
        ``passes`` is below 1, or the model drops in another way than torch's dropout layers.
    """
    passes = int(context.strategy.options["passes"])
    if passes < 1:
        raise ValueError(f"{context.strategy.name}.passes must be at least 1, got {passes}")
    seed = int(torch.randint(2**62, (), generator=context.generator))
    pool, labeled = (
        representations(context.model, context.batches(ids), len(ids), passes, seed, context.head)
        for ids in (context.candidates, context.labeled)
    )
    traversal = farthest_first(pool, context.budget, labeled=labeled)
    return context.candidates[torch.as_tensor(traversal.indices).cpu()]
