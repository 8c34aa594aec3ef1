"""The oracle that has to be asked: it knows some labels and waits for the others."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dynal_fast.plain import shown

NO_LABEL = -1


class AskingOracle:
    """Holds the labels that are known and says which of those asked for are missing.

    An experiment over it ends where labels are missing, and goes on when it runs again with them.

    Parameters
    ----------
    labels
        int64 ``(samples,)``: a class in ``0 .. len(classes) - 1``, or -1 where none is known.
    classes
        The names of the classes.
    initial
        int64: the samples that are labeled before the first training; by default those that have a
        label, or, where none has, random ones, for which a person is asked first.
    on_label
        Called with the ids and labels, int64, each time the loop takes labels.

    Raises
    ------
    ValueError
        A label is out of range, or there are fewer than two classes.

    >>> oracle = AskingOracle(torch.tensor([1, -1, 0]), ["cat", "dog"])
    >>> oracle.missing(torch.tensor([0, 1]))
    tensor([1])
    >>> oracle.give([1], ["dog"])
    >>> oracle.label(torch.tensor([0, 1]))
    tensor([1, 1])
    """

    asks = True

    def __init__(
        self,
        labels: Tensor,
        classes: Sequence[str],
        initial: Tensor | None = None,
        on_label: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        if self.num_classes < 2 or len(set(self.classes)) < self.num_classes:
            raise ValueError(f"classes must be at least two distinct names, got {shown(classes)}")
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 (samples,), got {labels.dtype} {tuple(labels.shape)}"
            )
        if len(labels) and not NO_LABEL <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(
                f"labels must be in -1 .. {self.num_classes - 1}, got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        self._labels = labels.clone()
        self._initial = initial
        self.on_label = on_label or (lambda ids, labels: None)

    def __len__(self) -> int:
        return len(self._labels)

    def give(self, ids: Any, labels: Sequence[str]) -> None:
        """Tell the labels of samples, by the names of their classes.

        Raises
        ------
        ValueError
            An id is none of a sample, a name is no class, or a sample has another label already; no
            label is taken then.
        """
        told = self._labels.clone()
        for i, name in zip(torch.as_tensor(ids).tolist(), labels, strict=True):
            if not 0 <= i < len(told):
                raise ValueError(f"ids must be in 0 .. {len(told) - 1}, got {i}")
            if name not in self.classes:
                raise ValueError(f"labels must be among {shown(list(self.classes))}, got {name!r}")
            label = self.classes.index(name)
            if told[i] not in (NO_LABEL, label):
                known = self.classes[int(told[i])]
                raise ValueError(f"sample {i} has the label {known!r} already, got {name!r}")
            told[i] = label
        self._labels = told

    def missing(self, ids: Tensor) -> Tensor:
        """Return those of ``ids`` whose labels are not known, in their order."""
        return ids[self._labels[ids] == NO_LABEL]

    def label(self, ids: Tensor) -> Tensor:
        """Return the labels, int64 ``(ids,)``, of the samples ``ids``.

        Raises
        ------
        LookupError
            One is not known.
        """
        unknown = self.missing(ids)
        if len(unknown):
            raise LookupError(f"the label of sample {int(unknown[0])} is not known yet")
        labels = self._labels[ids]
        self.on_label(ids, labels)
        return labels

    def initial_size(self, wanted: int) -> int:
        """Return how many samples the initial set has: ``wanted`` where nothing is labeled yet."""
        if self._initial is not None:
            return len(self._initial)
        return int((self._labels != NO_LABEL).sum()) or min(wanted, len(self))

    def initial_set(self, size: int, balanced: bool, generator: torch.Generator) -> Tensor:
        """Return the samples that are labeled before the first training, int64 ``(size,)``.

        Raises
        ------
        ValueError
            ``size`` is not the number of those that are labeled, or ``balanced`` is asked for.
        """
        if balanced:
            raise ValueError("balanced needs the labels of all samples, and the oracle is asked")
        known = self._initial
        if known is None:
            known = (self._labels != NO_LABEL).nonzero().flatten()
        if not len(known):
            known = torch.randperm(len(self), generator=generator)[:size]
        if len(known) != size:
            raise ValueError(
                f"initial must be the {len(known)} labeled samples, got {size}: where a run goes "
                "on, tell the oracle those that it began with, AskingOracle(..., initial=ids)"
            )
        return known

    def digest(self) -> str:
        """Return the SHA-256 of the names of the classes: the labels are not known yet."""
        return hashlib.sha256("\n".join(self.classes).encode()).hexdigest()
