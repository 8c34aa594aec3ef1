"""BADGE: D² sampling over the gradients of the last layer, under the predicted labels.

Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep Batch Active Learning by Diverse, Uncertain
Gradient Lower Bounds" (ICLR 2020), Algorithm 1.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.evaluating import evaluating
from dynal_fast.models import penultimate
from dynal_fast.ops.farthest_first import OuterProducts
from dynal_fast.ops.farthest_first.arrays import as_array
from dynal_fast.ops.kmeans_plusplus import Seeding, kmeans_plusplus
from dynal_fast.strategies.strategy import SelectionContext

ROUNDING = 1e-2  # by which a probability in half precision may lie outside 0 to 1


def gradient_embeddings(embeddings: Any, probabilities: Any) -> OuterProducts:
    """The gradients of the loss in the weights of the last layer, as outer products.

    Under the label ŷ that the model predicts, the cross-entropy has the gradient
    ``(p_c − [c = ŷ]) h`` in the weights of class c (eq. 1 of Ash et al. 2020).

    Parameters
    ----------
    embeddings : (n, d) floats
        The inputs h of the last layer.
    probabilities : (n, C) floats
        The softmax of its outputs. Among equals the first class is taken for predicted.

    Raises
    ------
    ValueError
        The shapes do not fit, or a probability lies outside 0 to 1.

    Examples
    --------
    >>> points = gradient_embeddings(torch.ones(1, 2), torch.tensor([[0.25, 0.75]]))
    >>> points.left
    tensor([[ 0.2500, -0.2500]])
    """
    features, outputs = as_array(embeddings, "embeddings"), as_array(probabilities, "probabilities")
    if outputs.ndim != 2 or outputs.shape[1] == 0 or len(outputs) != len(features):
        raise ValueError(
            f"probabilities must have shape ({len(features)}, classes), a row for each of the "
            f"embeddings, got {tuple(outputs.shape)}"
        )
    if isinstance(outputs, np.ndarray):
        outputs = torch.from_numpy(outputs)
    left = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32), copy=True)
    low, high = map(float, left.aminmax()) if len(left) else (0.0, 0.0)
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"probabilities must be between 0 and 1, got {low:.4g} to {high:.4g}: pass the softmax "
            "of logits"
        )
    predicted = left.argmax(1, keepdim=True)
    left.scatter_add_(1, predicted, left.new_full((1, 1), -1).expand_as(predicted))
    return OuterProducts(left, features)


def badge(
    embeddings: Any,
    probabilities: Any,
    budget: int,
    *,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    backend: str | None = None,
) -> Seeding:
    """Pick ``budget`` samples by BADGE, from the embeddings and probabilities of a model.

    D² sampling over :func:`gradient_embeddings`; the first pick is the sample with the largest
    gradient, as in the authors' code. The gradients, n × C·d numbers, are never formed.

    Parameters
    ----------
    embeddings, probabilities
        ``(n, d)`` and ``(n, C)``, of the candidates, on one device.
    budget
        Samples to pick, 0 to n.
    generator, progress, backend
        As for :func:`dynal_fast.kmeans_plusplus`.

    Raises
    ------
    ValueError, TypeError
        As :func:`gradient_embeddings` and :func:`dynal_fast.kmeans_plusplus`.

    Examples
    --------
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    >>> probabilities = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.7, 0.3]])
    >>> badge(embeddings, probabilities, 1).indices
    tensor([2])
    """
    points = gradient_embeddings(embeddings, probabilities)
    start = None
    if len(points):
        start = int((squared_norms(points.left) * squared_norms(points.right)).argmax())
    return kmeans_plusplus(
        points, budget, start=start, generator=generator, progress=progress, backend=backend
    )


def squared_norms(rows: Any) -> Tensor:
    """(n,) float64, without a float64 copy of ``rows`` (n, d)."""
    block = max(1, 2**15 // max(1, rows.shape[1]))  # larger ones leave holes in the heap
    norms = torch.empty(len(rows), dtype=torch.float64, device=torch.as_tensor(rows[:0]).device)
    for start in range(0, len(rows), block):
        part = torch.as_tensor(rows[start : start + block]).to(torch.float64)
        torch.sum(part * part, 1, out=norms[start : start + block])
    return norms


def outputs(context: SelectionContext) -> tuple[Tensor, Tensor]:
    """Embeddings and class probabilities of the candidates, in one pass."""
    model = getattr(context.model, "_orig_mod", context.model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    count, row = len(context.candidates), 0
    features = probabilities = torch.empty(0)
    with evaluating(model), torch.no_grad(), penultimate(model, context.head) as embedding:
        for _, inputs in context.batches(context.candidates):
            logits = model(inputs.to(device))
            if logits.ndim != 2:
                raise ValueError(
                    f"strategy {context.strategy.name!r} needs one label for each sample, "
                    f"the model gives logits {tuple(logits.shape)}"
                )
            batch = embedding()
            if row == 0:
                features = torch.empty(count, batch.shape[1], dtype=batch.dtype)
                probabilities = torch.empty(count, logits.shape[1])
            features[row : row + len(batch)] = batch
            probabilities[row : row + len(batch)] = logits.float().softmax(1)
            row += len(batch)
    return features, probabilities


def select_badge(context: SelectionContext) -> Tensor:
    """Pick by `badge`; Algorithm 1 of Ash et al., "Deep Batch Active Learning by …" (2020)."""
    features, probabilities = outputs(context)
    picks = badge(
        features, probabilities, context.budget, generator=context.generator, progress=False
    )
    return context.candidates[picks.indices.cpu()]
