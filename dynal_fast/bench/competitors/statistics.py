"""Statistics of learning dynamics as they are computed today: in place, compiled, from a history.

All score prediction stability (eq. 3: the variance over epochs of each class probability, summed
over classes), label dispersion (eq. 1-2: one minus the modal label's share) and the margin of the
last epoch, negated so that higher is more informative.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.bench.cases import StatisticsCase
from dynal_fast.bench.competitors import Method, Size, per_epoch

Run = Callable[[Size], dict[str, Any]]
State = dict[str, Tensor]


def empty_state(n: int, classes: int, device: torch.device | str = "cpu") -> State:
    """What the in-place update keeps for each sample."""
    return {
        "count": torch.zeros(n, device=device),
        "mean": torch.zeros(n, classes, device=device),  # (n, classes)
        "m2": torch.zeros(n, device=device),
        "label_counts": torch.zeros(n, classes, dtype=torch.uint8, device=device),  # (n, classes)
        "margin": torch.zeros(n, device=device),
    }


def update_in_place(state: State, ids: Tensor, logits: Tensor) -> None:
    """Welford's update, label counts and margin of one batch, in plain torch operations.

    What one writes without a kernel: no temporary that is not needed, no gather done twice.
    """
    count = state["count"][ids].add_(1)
    state["count"].index_copy_(0, ids, count)
    probabilities = torch.softmax(logits, dim=1)  # (batch, classes)
    mean = state["mean"][ids]
    delta = probabilities - mean
    mean.addcdiv_(delta, count[:, None])
    state["mean"].index_copy_(0, ids, mean)
    change = delta.mul_(torch.sub(probabilities, mean, out=mean)).sum(1)
    state["m2"].index_add_(0, ids, change)
    top = probabilities.topk(2, dim=1)
    cell = torch.add(top.indices[:, 0], ids, alpha=probabilities.shape[1])
    state["label_counts"].view(-1).index_add_(0, cell, torch.ones_like(cell, dtype=torch.uint8))
    state["margin"].index_copy_(0, ids, top.values[:, 0] - top.values[:, 1])


def update_for_compiler(state: State, ids: Tensor, logits: Tensor) -> None:
    """The same as plain assignments, for ``torch.compile`` to fuse."""
    probabilities = torch.softmax(logits, dim=1)
    count = state["count"][ids] + 1
    mean = state["mean"][ids]
    delta = probabilities - mean
    mean = mean + delta / count[:, None]
    state["count"][ids] = count
    state["mean"][ids] = mean
    state["m2"][ids] += (delta * (probabilities - mean)).sum(1)
    top = probabilities.topk(2, dim=1)
    state["label_counts"][ids, top.indices[:, 0]] += 1
    state["margin"][ids] = top.values[:, 0] - top.values[:, 1]


def scores_of(state: State, epochs: int) -> dict[str, Any]:
    """Scores, higher is more informative, of a state."""
    modal = state["label_counts"].max(1).values
    return {
        "prediction_stability": state["m2"] / epochs,
        "label_dispersion": 1 - modal / epochs,
        "margin": -state["margin"],
    }


def _streaming(
    case: StatisticsCase, data: Tensor, update: Callable[[State, Tensor, Tensor], None]
) -> Run:
    batches = torch.arange(case.n, device=data.device).split(case.batch)

    def run(size: Size) -> dict[str, Any]:
        state = empty_state(case.n, case.classes, data.device)
        for epoch in range(1, size.amount + 1):
            logits = case.epoch_logits(data, epoch).split(case.batch)
            for ids, batch in zip(batches, logits, strict=True):
                update(state, ids, batch)
        return scores_of(state, size.amount)

    return run


def torch_in_place(case: StatisticsCase, data: Tensor) -> Run:
    """Plain torch operations on the running state."""
    return _streaming(case, data, update_in_place)


def torch_compiled(case: StatisticsCase, data: Tensor) -> Run:
    """The same statistics under ``torch.compile``; compiling is not counted."""
    return _streaming(case, data, torch.compile(update_for_compiler))


def numpy_history(case: StatisticsCase, data: Tensor) -> Run:
    """All probabilities kept in a NumPy array (epochs, n, classes), reduced at the end."""

    def run(size: Size) -> dict[str, Any]:
        history = np.empty((size.amount, case.n, case.classes), dtype=np.float32)
        for epoch in range(1, size.amount + 1):
            logits = case.epoch_logits(data, epoch).numpy()
            for first in range(0, case.n, case.batch):
                batch = logits[first : first + case.batch]
                exponential = np.exp(batch - batch.max(1, keepdims=True))
                exponential /= exponential.sum(1, keepdims=True)
                history[epoch - 1, first : first + case.batch] = exponential
        labels = history.argmax(2)  # (epochs, n)
        modal = np.empty(case.n, dtype=np.int64)
        for first in range(0, case.n, case.batch):
            block = labels[:, first : first + case.batch]
            cells = block + case.classes * np.arange(block.shape[1])
            counts = np.bincount(cells.ravel(), minlength=case.classes * block.shape[1])
            modal[first : first + case.batch] = counts.reshape(-1, case.classes).max(1)
        top = np.partition(history[-1], -2, axis=1)[:, -2:]
        return {
            "prediction_stability": history.var(axis=0).sum(1),
            "label_dispersion": 1 - modal / size.amount,
            "margin": top[:, 0] - top[:, 1],  # partitioned: the second, then the largest
        }

    return run


def torch_history(case: StatisticsCase, data: Tensor) -> Run:
    """Every epoch's probabilities kept in a list of tensors, stacked and reduced at the end."""

    def run(size: Size) -> dict[str, Any]:
        kept = []
        for epoch in range(1, size.amount + 1):
            logits = case.epoch_logits(data, epoch)
            batches = [torch.softmax(batch, dim=1) for batch in logits.split(case.batch)]
            kept.append(torch.cat(batches))
        history = torch.stack(kept)  # (epochs, n, classes)
        del kept
        labels = history.argmax(2)
        counts = torch.zeros(case.n, case.classes, dtype=torch.int32, device=data.device)
        ones = torch.ones_like(labels[0], dtype=torch.int32)
        for epoch_labels in labels:
            counts.scatter_add_(1, epoch_labels[:, None], ones[:, None])
        top = history[-1].topk(2, dim=1).values
        return {
            "prediction_stability": history.var(dim=0, correction=0).sum(1),
            "label_dispersion": 1 - counts.max(1).values / size.amount,
            "margin": top[:, 1] - top[:, 0],
        }

    return run


METHODS = [
    Method("torch, in place", "pool statistics", torch_in_place, per_epoch, on_gpu=True),
    Method("torch.compile, in place", "pool statistics", torch_compiled, per_epoch, on_gpu=True),
    Method(
        "NumPy, full history",
        "pool statistics",
        numpy_history,
        per_epoch,
        note="numpy.var needs the history twice",
    ),
    Method(
        "torch, full history",
        "pool statistics",
        torch_history,
        per_epoch,
        note="torch.stack needs the history twice",
        on_gpu=True,
    ),
]
