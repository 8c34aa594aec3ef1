"""The definition of ``pool_stats_update`` in NumPy: float64 arithmetic, written like the formulas.

State arrays may have any floating dtype: the tests pass float64 arrays and compare with them,
``backend="reference"`` passes the float32 tensors of a tracker.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynal_fast.ops.kmeans_plusplus.reference import mixed
from dynal_fast.ops.pool_stats.contract import (
    DROPPED,
    DUPLICATE,
    LOGIT_LIMIT,
    MAX_UNKNOWN_IDS,
    NON_FINITE,
    TRAINING,
    Head,
    Tracker,
)

Floats = NDArray[np.floating]


def softmax(logits: Floats) -> Floats:  # (rows, classes) -> (rows, classes)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits: Floats) -> Floats:  # (rows, labels) -> (rows, labels)
    exponentials = np.exp(-np.abs(logits))
    return np.where(logits < 0, exponentials, 1.0) / (1.0 + exponentials)


def entropy(probabilities: Floats) -> Floats:  # (rows, classes) -> (rows,), nats
    positive = np.where(probabilities > 0, probabilities, 1.0)
    return -(probabilities * np.log(positive)).sum(axis=1)


def label_entropy(logits: Floats) -> Floats:  # (rows, labels) -> (rows,), nats
    """The sum over labels of ``- p ln p - (1 - p) ln (1 - p)`` for p = sigmoid(logits).

    ``- ln p = ln (1 + exp(-logit))``, which keeps its digits where p rounds to 1.
    """
    present = sigmoid(logits) * np.logaddexp(0.0, -logits)
    absent = sigmoid(-logits) * np.logaddexp(0.0, logits)
    return (present + absent).sum(axis=1)


def top_two(p: Floats, logits: Floats, activation: str) -> Floats:  # (rows, classes) -> (rows, 2)
    """The second largest and the largest probability; of sigmoids, those of the least sure label.

    A label has the probabilities p and 1 - p.
    """
    if activation == "softmax":
        return np.sort(p, axis=1)[:, -2:]
    least = np.abs(logits).min(axis=1, keepdims=True)
    return sigmoid(np.concatenate([-least, least], axis=1))


def kept_features(
    samples: NDArray[np.integer], width: int, rate: float, seed: int, number: int
) -> NDArray[np.bool_]:  # (rows,) -> (rows, width)
    """Which features of samples dropout keeps in the pass of that ``number``, counted from 1.

    SplitMix64 of seed, pass, sample and pair of features gives 64 bits, of which the low half
    decides over the first of the two: it is dropped if the half is below ``rate`` times 2^32.
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    key = mixed(mixed(np.array([seed], np.uint64)) + np.array([number], np.uint64) * step)
    row = mixed(key + (samples.astype(np.uint64) + np.uint64(1)) * step)
    pair = np.arange(1, width // 2 + 2, dtype=np.uint64)
    bits = mixed(row[:, None] + pair * step)
    halves = np.stack([bits & np.uint64(0xFFFFFFFF), bits >> np.uint64(32)], axis=2)
    below = min(round(rate * 2**32), 2**32 - 1)
    return halves.reshape(len(samples), -1)[:, :width] >= np.uint64(below)


def all_finite(logits: Floats) -> NDArray[np.bool_]:  # (rows, classes) -> (rows,)
    return np.logical_and.reduce(np.isfinite(logits), axis=1)


def within_limit(logits: Floats) -> NDArray[np.bool_]:  # (rows, classes) -> (rows,)
    with np.errstate(over="ignore"):
        return np.logical_and.reduce(np.abs(logits.astype(np.float32)) <= LOGIT_LIMIT, axis=1)


def claim_rows(
    sample_ids: NDArray[np.integer],
    finite: NDArray[np.bool_],
    current: int,
    stamp: NDArray[np.int32],
    unknown_ids: NDArray[np.int64],
) -> NDArray[np.intp]:
    """Stamp the samples of a batch; return the rows that count: known, first seen, finite."""
    rows = []
    for row, sample in enumerate(sample_ids.tolist()):
        if not 0 <= sample < len(stamp) or stamp[sample] == DROPPED:
            unknown_ids[0] += 1
            if unknown_ids[0] <= MAX_UNKNOWN_IDS:
                unknown_ids[unknown_ids[0]] = sample
        elif stamp[sample] >= current:
            stamp[sample] |= DUPLICATE
        else:
            stamp[sample] = current if finite[row] else current | NON_FINITE
            if finite[row]:
                rows.append(row)
    return np.array(rows, dtype=np.intp)


def welford_update(
    x: Floats, samples: NDArray[np.integer], count: NDArray[np.int32], mean: Floats
) -> Floats:
    """Fold one observation ``x`` (rows, classes) into ``count`` and ``mean``.

    Returns what M2 grows by, per class: ``(x - old mean) * (x - new mean)``.
    """
    count[samples] += 1
    delta = x - mean[samples]
    new_mean = mean[samples] + delta / count[samples][:, None]
    mean[samples] = new_mean
    return delta * (x - new_mean)


def training_update(
    logits: Floats,
    p: Floats,
    targets: NDArray[np.integer],
    samples: NDArray[np.integer],
    count: NDArray[np.int32],
    training: Floats,
) -> None:
    """Fold the outputs of labeled samples into ``count`` and the rows of ``training``.

    p_y, its place among the logits (Toneva et al. 2019), the margin of Pleiss et al. 2020 and the
    error of Paul et al. 2021, one row after the other.
    """
    for z, q, y, sample in zip(logits, p, targets.tolist(), samples.tolist(), strict=True):
        if y < 0:
            continue
        row = dict(zip(TRAINING, training[sample].tolist(), strict=True))
        if count[sample] == 0 or row["target"] != y:
            row, count[sample] = dict.fromkeys(TRAINING, 0.0) | {"target": float(y)}, 0
        count[sample] += 1
        mean = row["mean"] + (q[y] - row["mean"]) / count[sample]
        row["m2"] += (q[y] - row["mean"]) * (q[y] - mean)
        row["mean"] = mean
        correct = int(z.argmax()) == y
        row["correct"] += correct
        row["flips"] += correct != row["flips"] % 2
        if correct and row["first_learned"] == 0:
            row["first_learned"] = float(count[sample])
        margin = z[y] - np.delete(z, y).max()
        row["margin_sum"] += min(max(margin, -LOGIT_LIMIT), LOGIT_LIMIT)
        row["error_sum"] += np.linalg.norm(q - np.eye(len(q))[y])
        training[sample] = [row[name] for name in TRAINING]


def pool_stats_update(
    sample_ids: NDArray[np.integer],
    logits: Floats,
    teacher_logits: Floats | None,
    pass_stamp: NDArray[np.int32],
    stamp: NDArray[np.int32],
    unknown_ids: NDArray[np.int64],
    state: Mapping[str, NDArray],
    activation: str = "softmax",
    targets: NDArray[np.int64] | None = None,
) -> None:
    """Fold one batch into the state arrays in place; ``state`` holds the parts to update.

    Shapes and meanings: :mod:`dynal_fast.ops.pool_stats`.
    """
    logits = logits.astype(np.float64)
    finite = all_finite(logits)
    if teacher_logits is not None:
        teacher_logits = teacher_logits.astype(np.float64)
        finite = finite & all_finite(teacher_logits)
    if targets is not None:
        finite = finite & (targets < logits.shape[1])
    if "logit_count" in state:
        finite = finite & within_limit(logits)
    rows = claim_rows(sample_ids, finite, int(pass_stamp[0]), stamp, unknown_ids)
    if len(rows) == 0:
        return
    samples, logits = sample_ids[rows], logits[rows]
    activate = softmax if activation == "softmax" else sigmoid
    p = activate(logits)
    entropies = entropy(p) if activation == "softmax" else label_entropy(logits)

    if "count" in state:
        m2 = welford_update(p, samples, state["count"], state["mean"])
        if "m2" in state:
            state["m2"][samples] += m2.sum(axis=1)
        if "class_m2" in state:
            state["class_m2"][samples] += m2
        if "entropy_sum" in state:
            state["entropy_sum"][samples] += entropies
    if "logit_mean" in state:
        m2 = welford_update(logits, samples, state["logit_count"], state["logit_mean"])
        state["logit_m2"][samples] += m2.sum(axis=1)
    if "label_counts" in state:
        state["label_counts"][samples, logits.argmax(axis=1)] += 1
    if "increase_count" in state:
        increase = np.sqrt(((p - state["previous_output"][samples]) ** 2).sum(axis=1))
        first = state["increase_count"][samples] == 0
        state["increase_sum"][samples] += np.where(first, 0.0, increase)
        state["increase_count"][samples] += 1
        state["previous_output"][samples] = p
    if "output" in state:
        state["cycle_discrepancy"][samples] = ((p - state["output"][samples]) ** 2).sum(axis=1)
        state["latest_output" if "latest_output" in state else "output"][samples] = p
    if "teacher_discrepancy" in state:
        assert teacher_logits is not None
        q = activate(teacher_logits[rows])
        state["teacher_discrepancy"][samples] = ((p - q) ** 2).sum(axis=1)
    if "last_entropy" in state:
        state["last_entropy"][samples] = entropies
    second, top = top_two(p, logits, activation).T
    if "last_top" in state:
        state["last_top"][samples] = top
    if "last_margin" in state:
        state["last_margin"][samples] = top - second
    if "training" in state and targets is not None:
        counted = state["training_count"], state["training"]
        training_update(logits, p, targets[rows], samples, *counted)


def update(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """``pool_stats_update`` on CPU tensors, whose memory NumPy shares."""
    pass_stamp, stamp, unknown_ids, state, activation = tracker
    pool_stats_update(
        sample_ids.numpy(),
        logits.detach().double().numpy(),
        None if teacher_logits is None else teacher_logits.detach().double().numpy(),
        pass_stamp.numpy(),
        stamp.numpy(),
        unknown_ids.numpy(),
        {name: tensor.numpy() for name, tensor in state.items()},
        activation,
        None if targets is None else targets.numpy(),
    )


def update_from_features(
    sample_ids: Tensor,
    head: Head,
    teacher: Head | None,
    tracker: Tracker,
    targets: Tensor | None = None,
) -> None:
    """``update`` on the logits of a linear head, computed in float64."""
    theirs = None if teacher is None else linear(*teacher)
    update(sample_ids, linear(*head), theirs, tracker, targets)


def linear(
    features: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:  # (rows, d), (classes, d), (classes,) -> (rows, classes)
    logits = _rounded(features) @ _rounded(weight).T
    if bias is not None:
        logits = logits + _rounded(bias)
    return logits.where(logits.abs() <= torch.finfo(torch.float32).max, torch.inf)


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.detach().float().double()
