"""Temporal output discrepancy between two training steps, from stored outputs or two models."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.ops.pool_stats.contract import check_activation


def temporal_output_discrepancy(
    logits: Tensor, earlier_logits: Tensor, activation: str = "softmax"
) -> Tensor:
    """Return ``||f(x; w_{t+T}) - f(x; w_t)||_2`` of the outputs, float32 ``(samples,)``.

    Eq. 1 of "Semi-Supervised Active Learning with Temporal Output Discrepancy". With the outputs at
    the ends of two consecutive cycles it is cyclic output discrepancy (eq. 5).

    Parameters
    ----------
    logits, earlier_logits
        ``(samples, classes)`` at step t + T and at step t; their order does not matter.
    activation
        ``"softmax"``, or ``"sigmoid"`` for a multi-label head, which the logits do not tell.

    Raises
    ------
    ValueError
        The shapes differ or are not ``(samples, classes)``, or the activation is another.

    >>> temporal_output_discrepancy(torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([0.7071])
    """
    if logits.ndim != 2 or logits.shape != earlier_logits.shape:
        raise ValueError(
            "logits and earlier_logits must be (samples, classes) of one shape, "
            f"got {tuple(logits.shape)} and {tuple(earlier_logits.shape)}"
        )
    check_activation(activation)
    now, before = logits.double(), earlier_logits.double()
    if activation == "softmax":
        now, before = now.softmax(1), before.softmax(1)
    else:
        now, before = now.sigmoid(), before.sigmoid()
    return (now - before).norm(dim=1).float()


def model_discrepancy(
    model: nn.Module,
    earlier: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    activation: str = "softmax",
) -> tuple[Tensor, Tensor]:
    """Return sample ids and the `temporal_output_discrepancy` of two models on their inputs.

    If ``earlier`` is the model at the end of the last cycle, this is COD without stored outputs:
    one more forward pass over the pool instead of a (samples, classes) array.

    Parameters
    ----------
    batches
        Yields ``(sample_ids, inputs)``; inputs on the device of both models.
    activation
        As in `temporal_output_discrepancy`.

    >>> model, earlier = nn.Linear(2, 3), nn.Linear(2, 3)
    >>> ids, scores = model_discrepancy(model, model, [(torch.arange(4), torch.ones(4, 2))])
    >>> ids.tolist(), scores.tolist()
    ([0, 1, 2, 3], [0.0, 0.0, 0.0, 0.0])
    """
    ids, scores = [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    with evaluating(model, earlier), torch.no_grad():
        for sample_ids, inputs in batches:
            ids.append(sample_ids.cpu())
            outputs = model(inputs), earlier(inputs)
            scores.append(temporal_output_discrepancy(*outputs, activation).cpu())
    return torch.cat(ids), torch.cat(scores)
