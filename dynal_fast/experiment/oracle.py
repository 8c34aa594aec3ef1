"""The labels of a data set: read, checked, and held by the oracle."""

import hashlib
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Oracle:
    """Holds the labels of all samples and gives those of the samples asked for.

    >>> oracle = Oracle(torch.tensor([1, 0, 1]), num_classes=2)
    >>> oracle.label(torch.tensor([2, 1]))
    tensor([1, 0])
    """

    asks = False

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self._labels = labels
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self._labels)

    def missing(self, ids: Tensor) -> Tensor:
        """Return those of ``ids`` whose labels are not known: none."""
        return ids[:0]

    def label(self, ids: Tensor) -> Tensor:
        """Return the labels, int64 ``(ids,)``, of the samples ``ids``."""
        return self._labels[ids]

    def initial_set(self, size: int, balanced: bool, generator: torch.Generator) -> Tensor:
        """Draw the samples that are labeled before the first training, int64 ``(size,)``.

        ``balanced`` takes equally many of every class (prediction stability, 4.1.2); where ``size``
        is no multiple of the number of classes, random classes get one more.

        Raises
        ------
        ValueError
            There are too few samples, or too few of some class.
        """
        if size > len(self):
            raise ValueError(f"initial must be at most the {len(self)} samples, got {size}")
        order = torch.randperm(len(self), generator=generator)
        if not balanced:
            return order[:size]
        quota = torch.full((self.num_classes,), size // self.num_classes)
        lucky = torch.randperm(self.num_classes, generator=generator)
        quota[lucky[: size % self.num_classes]] += 1
        chosen = []
        for label, wanted in enumerate(quota.tolist()):
            members = order[self._labels[order] == label][:wanted]
            if len(members) < wanted:
                raise ValueError(
                    f"balanced asks for {wanted} samples of class {label}, which has {len(members)}"
                )
            chosen.append(members)
        drawn = torch.cat(chosen)
        return drawn[torch.randperm(size, generator=generator)]

    def digest(self) -> str:
        """Return the SHA-256 of all labels: two runs over the same labels agree on it."""
        return hashlib.sha256(self._labels.numpy().tobytes()).hexdigest()


def checked_labels(what: str, labels: Tensor, count: int, num_classes: int) -> Tensor:
    """Return ``count`` labels as int64 on the CPU.

    Raises
    ------
    ValueError
        There are more or fewer, or one is not in ``0 .. num_classes - 1``; ``what`` names them.
    """
    if labels.shape != (count,) or not _holds_integers(labels) or count == 0:
        raise ValueError(
            f"{what} must hold one integer for each of the {count} samples, and at least one, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.to("cpu", torch.int64, copy=True)  # uint64 of 2^63 or more becomes negative
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{what} must be in 0 .. {num_classes - 1}, got {low} to {high}")
    return labels


def _holds_integers(labels: Tensor) -> bool:
    return not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)


def class_count(*splits: Tensor) -> int:
    """Return one more than the highest label; the labels themselves are checked later."""
    return max(
        (
            int(labels.to(torch.int64).max()) + 1
            for labels in splits
            if labels.numel() and _holds_integers(labels)
        ),
        default=1,
    )


def labels_of(dataset: Any) -> Tensor:
    """Return the labels of a map-style data set.

    Raises
    ------
    ValueError
        One is not an integer.
    """
    for attribute in ("targets", "labels"):
        labels = getattr(dataset, attribute, None)
        if labels is None:
            continue
        try:
            return torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{attribute} must hold integers: {error}") from error
    return torch.tensor([_label(dataset[i][1], i) for i in range(len(dataset))], dtype=torch.int64)


def _label(label: Any, sample: int) -> int:
    if isinstance(label, Tensor | np.ndarray) and np.prod(label.shape) == 1:
        label = label.item()
    is_integer = isinstance(label, numbers.Integral) and not isinstance(label, bool)
    if not is_integer or not -(2**63) <= int(label) < 2**63:
        raise ValueError(f"the label of sample {sample} must be an integer, got {label!r}")
    return int(label)
