"""Temporal output discrepancy between two training steps, from stored outputs or two models."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating


def temporal_output_discrepancy(logits: Tensor, earlier_logits: Tensor) -> Tensor:
    """Return ``||f(x; w_{t+T}) - f(x; w_t)||_2`` of softmax outputs, float32 ``(samples,)``.

    Eq. 1 of "Semi-Supervised Active Learning with Temporal Output Discrepancy". With the outputs at
    the ends of two consecutive cycles it is cyclic output discrepancy (eq. 5).

    Parameters
    ----------
    logits, earlier_logits
        ``(samples, classes)`` at step t + T and at step t; their order does not matter.

    Raises
    ------
    ValueError
        The shapes differ or are not ``(samples, classes)``.

    >>> temporal_output_discrepancy(torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([0.7071])
    """
    if logits.ndim != 2 or logits.shape != earlier_logits.shape:
        raise ValueError(
            "logits and earlier_logits must be (samples, classes) of one shape, "
            f"got {tuple(logits.shape)} and {tuple(earlier_logits.shape)}"
        )
    now, before = logits.double().softmax(1), earlier_logits.double().softmax(1)
    return (now - before).norm(dim=1).float()


def model_discrepancy(
    model: nn.Module,
    earlier: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Return sample ids and the `temporal_output_discrepancy` of two models on their inputs.

    If ``earlier`` is the model at the end of the last cycle, this is COD without stored outputs:
    one more forward pass over the pool instead of a (samples, classes) array.

    Parameters
    ----------
    batches
        Yields ``(sample_ids, inputs)``; inputs on the device of both models.

    >>> model, earlier = nn.Linear(2, 3), nn.Linear(2, 3)
    >>> ids, scores = model_discrepancy(model, model, [(torch.arange(4), torch.ones(4, 2))])
    >>> ids.tolist(), scores.tolist()
    ([0, 1, 2, 3], [0.0, 0.0, 0.0, 0.0])
    """
    ids, scores = [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    with evaluating(model, earlier), torch.no_grad():
        for sample_ids, inputs in batches:
            ids.append(sample_ids.cpu())
            scores.append(temporal_output_discrepancy(model(inputs), earlier(inputs)).cpu())
    return torch.cat(ids), torch.cat(scores)
