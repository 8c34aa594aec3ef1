"""Training dynamics of labeled samples: scores of how each was learned, from a few numbers.

Each function takes ``training_count`` and ``training`` of `dynal_fast.ops.pool_stats` and returns
float32 ``(samples,)``: what the papers define, over the epochs in which a sample came with its
target y; NaN without one. Which end `dynal_fast.PoolStats.select` picks is said with each.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynal_fast.ops.pool_stats.contract import TRAINING

_AT = {name: column for column, name in enumerate(TRAINING)}


def confidence(training_count: Tensor, training: Tensor) -> Tensor:
    """Mean over epochs of the target's probability p_y; the lowest are picked.

    Swayamdipta et al. 2020, "Dataset Cartography", section 2: hard-to-learn samples, often
    mislabeled, have a low one. It is the self-confidence that cleanlab ranks by, of the mean
    output.

    >>> row = torch.tensor([[0.75, 0.02, 2.0, 1.0, 1.0, 3.0, 0.5, 4.0]])
    >>> confidence(torch.tensor([2]), row)
    tensor([0.7500])
    """
    return training[:, _AT["mean"]].where(training_count > 0, torch.nan)


def variability(training_count: Tensor, training: Tensor) -> Tensor:
    """Standard deviation over epochs of the target's probability; the highest are picked.

    Swayamdipta et al. 2020, section 2, with the population's variance: ambiguous samples have a
    high one.

    >>> row = torch.tensor([[0.75, 0.02, 2.0, 1.0, 1.0, 3.0, 0.5, 4.0]])
    >>> variability(torch.tensor([2]), row)
    tensor([0.1000])
    """
    return _mean(training_count, training[:, _AT["m2"]]).sqrt()


def correctness(training_count: Tensor, training: Tensor) -> Tensor:
    """Share of epochs in which the target was predicted; the lowest are picked.

    Swayamdipta et al. 2020, section 2. The first class counts as predicted where logits tie.

    >>> row = torch.tensor([[0.75, 0.02, 1.0, 1.0, 2.0, 3.0, 0.5, 4.0]])
    >>> correctness(torch.tensor([2]), row)
    tensor([0.5000])
    """
    return _mean(training_count, training[:, _AT["correct"]])


def forgetting(
    training_count: Tensor, training: Tensor, never_learned: float = torch.inf
) -> Tensor:
    """How often the prediction went from the target to another class; the highest are picked.

    Forgetting events of Toneva et al. 2019, "An Empirical Study of Example Forgetting", definition
    1. A sample that was never predicted right counts as forgotten infinitely often, as there, or as
    often as ``never_learned`` says; `dynal_fast.PoolStats.training_dynamics` counts its events,
    which are 0.

    >>> rows = torch.tensor([[0.5, 0.0, 1.0, 2.0, 1.0, 3.0, 0.5, 4.0], 8 * [0.0]])
    >>> forgetting(torch.tensor([2, 2]), rows)
    tensor([1., inf])
    """
    events = (training[:, _AT["flips"]] / 2).floor()
    events = events.where(training[:, _AT["first_learned"]] > 0, never_learned)
    return events.where(training_count > 0, torch.nan)


def first_learned(training_count: Tensor, training: Tensor) -> Tensor:
    """Which observation, from 1, first predicted the target, or infinity; the highest are picked.

    The first learning event of Toneva et al. 2019. It is an epoch if every epoch is observed.

    >>> rows = torch.tensor([[0.5, 0.0, 1.0, 2.0, 3.0, 3.0, 0.5, 4.0], 8 * [0.0]])
    >>> first_learned(torch.tensor([4, 4]), rows)
    tensor([3., inf])
    """
    first = training[:, _AT["first_learned"]]
    return first.where(first > 0, torch.inf).where(training_count > 0, torch.nan)


def aum(training_count: Tensor, training: Tensor) -> Tensor:
    """Area under the margin; the lowest are picked, those most likely to be mislabeled.

    Pleiss et al. 2020, "Identifying Mislabeled Data using the Area Under the Margin Ranking", eq.
    2: the mean over epochs of ``z_y - max_{c != y} z_c`` of the logits z.

    >>> row = torch.tensor([[0.75, 0.02, 2.0, 1.0, 1.0, 3.0, 0.5, 4.0]])
    >>> aum(torch.tensor([2]), row)
    tensor([1.5000])
    """
    return _mean(training_count, training[:, _AT["margin_sum"]])


def el2n(training_count: Tensor, training: Tensor) -> Tensor:
    """Mean over epochs of the error's length ``||p - onehot(y)||_2``; the highest are picked.

    Paul et al. 2021, "Deep Learning on a Data Diet", definition 2.2. The paper takes the mean over
    several trainings at one early epoch: a schedule such as ``{"el2n": Epochs((10,))}`` in each,
    and `dynal_fast.PoolStats.merge`.

    >>> row = torch.tensor([[0.75, 0.02, 2.0, 1.0, 1.0, 3.0, 0.5, 4.0]])
    >>> el2n(torch.tensor([2]), row)
    tensor([0.2500])
    """
    return _mean(training_count, training[:, _AT["error_sum"]])


class TrainingDynamics(NamedTuple):
    """What `dynal_fast.PoolStats.training_dynamics` returns, (N,) each, by sample.

    Float tensors are NaN, and integers 0 or -1, of samples that never came with a target.

    Attributes
    ----------
    targets
        int64: the class of each sample, -1 without one.
    observations
        int32: how often it came with this target.
    confidence, variability, aum, el2n
        float32: see the functions of `dynal_fast.pool.training`.
    correct
        int32: how many observations predicted the target.
    forgetting_events, learning_events
        int32: how often the prediction went from the target to another class, and to the target
        from another class or from the start.
    first_learned
        int32: which observation, from 1, first predicted the target; 0 if none did.
    """

    targets: Tensor
    observations: Tensor
    confidence: Tensor
    variability: Tensor
    correct: Tensor
    forgetting_events: Tensor
    learning_events: Tensor
    first_learned: Tensor
    aum: Tensor
    el2n: Tensor


def training_dynamics(training_count: Tensor, training: Tensor) -> TrainingDynamics:
    """Return everything that is kept of labeled samples, by its name in the papers."""
    whole = training.to(torch.int32)
    flips = whole[:, _AT["flips"]]
    targets = training[:, _AT["target"]].to(torch.int64)
    return TrainingDynamics(
        targets=targets.where(training_count > 0, -1),
        observations=training_count.clone(),
        confidence=confidence(training_count, training),
        variability=variability(training_count, training),
        correct=whole[:, _AT["correct"]],
        forgetting_events=flips // 2,
        learning_events=(flips + 1) // 2,
        first_learned=whole[:, _AT["first_learned"]],
        aum=aum(training_count, training),
        el2n=el2n(training_count, training),
    )


class LabelsAndProbabilities(NamedTuple):
    """What cleanlab takes, of the m samples that came with a target.

    Attributes
    ----------
    sample_ids
        int64 (m,): the sample of each row.
    labels
        int64 (m,): its target.
    pred_probs
        float64 (m, C): the mean of its probabilities over the observed epochs.
    """

    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    pred_probs: NDArray[np.float64]


def labels_and_probabilities(
    training_count: Tensor, training: Tensor, count: Tensor, mean: Tensor
) -> LabelsAndProbabilities:
    """Return labels and mean outputs of the samples that have both; rows sum to 1 in float64."""
    ids = ((training_count > 0) & (count > 0)).nonzero().squeeze(1)
    labels = training[ids, _AT["target"]].to(torch.int64)
    probabilities = mean[ids].double().clamp_(min=0)
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    return LabelsAndProbabilities(*(t.cpu().numpy() for t in (ids, labels, probabilities)))


def merge_training(a_count: Tensor, a: Tensor, b_count: Tensor, b: Tensor) -> None:
    """Add the later observations ``b`` to ``a`` in place, as if they had followed.

    A sample of ``b`` with another target replaces that of ``a``: its observations begin anew.
    """
    n_a, n_b = a_count[:, None].double(), b_count[:, None].double()
    other = (b_count > 0) & ((a_count == 0) | (a[:, _AT["target"]] != b[:, _AT["target"]]))
    first, later = a.double(), b.double()
    merged = first + later  # right for the sums

    def column(table: Tensor, name: str) -> Tensor:
        return table[:, _AT[name]]

    share = (n_b / (n_a + n_b).clamp(min=1))[:, 0]
    delta = column(later, "mean") - column(first, "mean")
    merged[:, _AT["mean"]] = column(first, "mean") + delta * share
    merged[:, _AT["m2"]] += delta.square() * n_a[:, 0] * share
    # b counts from "not predicted"; where a ended with the target predicted, it did not start so.
    knew = column(first, "flips") % 2 == 1
    started_right = column(later, "first_learned") == 1
    merged[:, _AT["flips"]] += torch.where(started_right, -1.0, 1.0) * knew
    later_first = torch.where(
        column(later, "first_learned") > 0, column(later, "first_learned") + n_a[:, 0], 0.0
    )
    learned = column(first, "first_learned")
    merged[:, _AT["first_learned"]] = learned.where(learned > 0, later_first)
    merged[:, _AT["target"]] = column(first, "target")
    merged = torch.where((b_count > 0)[:, None], merged, first)
    a.copy_(torch.where(other[:, None], later, merged))
    a_count.copy_(torch.where(other, b_count, a_count + b_count))


def _mean(training_count: Tensor, total: Tensor) -> Tensor:
    return total / training_count.where(training_count > 0, torch.nan)
