"""How much a model's output moves with its weights: the norms of Fig. 1 of output discrepancy."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from dynal_fast.evaluating import evaluating


def gradient_norms(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the squared norm of the output's gradient with respect to the weights, per sample.

    Section 3 and Fig. 1 of "Semi-Supervised Active Learning with Temporal Output Discrepancy":
    ``||grad_w f(x; w)||^2``, which Corollary 2 takes to be bounded by a constant. The output f is
    the softmax output, as in the discrepancies; its gradient is the matrix of all classes times all
    weights, its norm the Frobenius norm. One forward and, for each class, one backward pass a
    sample; one gradient is in memory at a time. The model is in evaluation mode meanwhile.

    Parameters
    ----------
    inputs
        ``(batch, ...)``, on the model's device.

    Returns
    -------
    float64 ``(batch,)``, on the CPU.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> gradient_norms(model, torch.tensor([[1.0, 2.0]]))  # 4 * (1/4)^2 * |x|^2
    tensor([1.2500], dtype=torch.float64)
    """
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())
    norms = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    with evaluating(model):
        for row, one in enumerate(inputs):

            def output(given: dict[str, Tensor], one: Tensor = one) -> Tensor:
                return functional_call(model, (given, buffers), (one[None],)).softmax(1)[0]

            made: Any = vjp(output, weights)
            outputs, backward = made
            for direction in torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device):
                (gradient,) = backward(direction)
                norms[row] += sum(part.double().square().sum() for part in gradient.values())
    return norms.cpu()
