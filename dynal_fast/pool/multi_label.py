"""Models and labels of multi-label problems are not observed as if classes excluded each other."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

CURE = "make the tracker with PoolStats(..., activation='sigmoid')"
LABELS = ("labels", "label", "targets", "target")


def check_model(model: nn.Module, stats: Any) -> None:
    """Refuse a multi-label model where ``stats`` takes the softmax of its logits.

    Hugging Face models say so in ``config.problem_type``, at the latest after their first batch.

    Raises
    ------
    ValueError
        The model and ``stats.activation`` contradict each other.

    >>> from types import SimpleNamespace
    >>> model = nn.Linear(2, 3)
    >>> model.config = SimpleNamespace(problem_type="multi_label_classification")
    >>> check_model(model, SimpleNamespace(activation="softmax"))
    Traceback (most recent call last):
    ValueError: config.problem_type of Linear is 'multi_label_classification', and the tracker \
takes the softmax of its logits; make the tracker with PoolStats(..., activation='sigmoid')
    """
    problems = {"multi_label_classification": "softmax", "single_label_classification": "sigmoid"}
    activation = getattr(stats, "activation", None)
    for module in model.modules() if activation else ():
        problem = getattr(getattr(module, "config", None), "problem_type", None)
        if isinstance(problem, str) and problems.get(problem) == activation:
            cure = CURE if activation == "softmax" else CURE.replace("sigmoid", "softmax")
            raise ValueError(
                f"config.problem_type of {type(module).__name__} is {problem!r}, and the tracker "
                f"takes the {activation} of its logits; {cure}"
            )


def check_labels(inputs: Any, stats: Any) -> None:
    """Refuse inputs whose labels are multi-hot where ``stats`` takes the softmax of the logits.

    Looks at the entry ``"labels"`` of a dict (or ``"label"``, ``"targets"``, ``"target"``), and
    waits for its device if that is (batch, classes).

    Raises
    ------
    ValueError
        A sample has no label or several, each 1 in a row of zeros.

    >>> from types import SimpleNamespace
    >>> one_hot, multi_hot = torch.tensor([[0, 1, 0]]), torch.tensor([[0, 1, 1]])
    >>> check_labels({"labels": one_hot}, SimpleNamespace(activation="softmax"))
    >>> check_labels({"labels": multi_hot}, SimpleNamespace(activation="sigmoid"))
    >>> check_labels({"labels": multi_hot}, SimpleNamespace(activation="softmax"))
    Traceback (most recent call last):
    ValueError: labels of a batch are multi-hot, and the tracker takes the softmax of the logits; \
make the tracker with PoolStats(..., activation='sigmoid')
    """
    if getattr(stats, "activation", None) != "softmax" or not isinstance(inputs, Mapping):
        return
    for name in LABELS:
        labels = inputs.get(name)
        if isinstance(labels, Tensor) and is_multi_hot(labels):
            raise ValueError(
                f"{name} of a batch are multi-hot, and the tracker takes the softmax of the "
                f"logits; {CURE}"
            )


def is_multi_hot(labels: Tensor) -> bool:
    """Return whether labels (batch, classes) of zeros and ones have rows that do not sum to 1.

    >>> is_multi_hot(torch.tensor([[0.0, 1.0]])), is_multi_hot(torch.tensor([[0.0, 0.0]]))
    (False, True)
    >>> is_multi_hot(torch.tensor([[0.7, 0.7]])), is_multi_hot(torch.tensor([1, 0, 2]))
    (False, False)
    """
    if labels.ndim != 2 or labels.is_complex():
        return False
    binary = (labels == 0) | (labels == 1)
    return bool((binary.all() & (labels.sum(dim=1, dtype=torch.float32) != 1).any()).item())
