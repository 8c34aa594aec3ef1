"""A data set as an experiment needs it: samples, oracle and test set.

Only the :class:`Oracle` has the labels: training, observation and selection see ids and inputs.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dynal_fast.data import ImageDataset, ImageInputs, LazyStack, load
from dynal_fast.data.inflate import PoolView
from dynal_fast.experiment.asking.oracle import AskingOracle
from dynal_fast.experiment.oracle import Oracle, checked_labels, class_count, labels_of
from dynal_fast.experiment.samples import SampleSet
from dynal_fast.experiment.segmentation import LabelMaps, MapOracle, check_label_maps


@dataclass(frozen=True)
class ExperimentData:
    """A data set as an experiment needs it: samples to train on and to query, and a test set.

    Parameters
    ----------
    samples, test_samples
        The inputs.
    labels, test_labels
        Integers ``(samples,)`` in ``0 .. num_classes - 1``; for segmentation stacks of label maps,
        uint8 ``(samples, height, width)``, of which ``test_labels`` becomes a :class:`LabelMaps`.
        ``labels`` may be an :class:`AskingOracle`, with or without test samples.
    class_names
        What reports call the classes; empty where they have no names.

    Raises
    ------
    ValueError
        Inputs and labels differ in number or size, or a label is out of range.
    """

    name: str
    samples: SampleSet
    labels: InitVar[Tensor | LazyStack | AskingOracle]
    test_samples: SampleSet
    test_labels: Any
    num_classes: int
    class_names: Sequence[str] = ()
    oracle: Any = field(init=False)

    def __post_init__(self, labels: Tensor | LazyStack | AskingOracle) -> None:
        if isinstance(labels, LazyStack):
            check_label_maps("labels", labels, self.samples.source)
            check_label_maps("test_labels", self.test_labels, self.test_samples.source)
            object.__setattr__(self, "oracle", MapOracle(labels, self.num_classes))
            object.__setattr__(self, "test_labels", LabelMaps(self.test_labels))
            return
        if isinstance(labels, AskingOracle):
            self._take(labels)
            return
        checked = [
            checked_labels(what, given, len(samples), self.num_classes)
            for what, given, samples in (
                ("labels", labels, self.samples),
                ("test_labels", self.test_labels, self.test_samples),
            )
        ]
        object.__setattr__(self, "oracle", Oracle(checked[0], self.num_classes))
        object.__setattr__(self, "test_labels", checked[1])

    def _take(self, oracle: AskingOracle) -> None:
        """Use an oracle that is asked; the test set may be empty then."""
        if len(oracle) != len(self.samples) or oracle.num_classes != self.num_classes:
            raise ValueError(
                f"labels must be of {len(self.samples)} samples and {self.num_classes} classes, "
                f"the oracle has {len(oracle)} and {oracle.num_classes}"
            )
        count = len(self.test_samples)
        if count or len(self.test_labels):
            tested = checked_labels("test_labels", self.test_labels, count, self.num_classes)
            object.__setattr__(self, "test_labels", tested)
        object.__setattr__(self, "oracle", oracle)

    @property
    def segments(self) -> bool:
        """Whether every pixel has a label, instead of every sample."""
        return isinstance(self.test_labels, LabelMaps)

    @property
    def chance(self) -> float | None:
        """The test accuracy of always naming its most frequent class.

        None for label maps and without a test set.
        """
        if self.segments or not len(self.test_labels):
            return None
        return int(self.test_labels.bincount().max()) / len(self.test_labels)

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the inputs, and of the inputs and labels of the test set."""
        kind = MapOracle if self.segments else Oracle
        held = self.test_labels.maps if self.segments else self.test_labels
        return {
            "samples": self.samples.digest(),
            "test_samples": self.test_samples.digest(),
            "test_labels": kind(held, self.num_classes).digest(),
        }

    @property
    def metric(self) -> str:
        """The name of what an evaluation on the test set returns."""
        return "mean IoU" if self.segments else "accuracy"

    @classmethod
    def from_tensors(
        cls,
        inputs: Tensor,
        labels: Tensor,
        test_inputs: Tensor,
        test_labels: Tensor,
        name: str = "tensors",
    ) -> "ExperimentData":
        """Build from inputs ``(samples, ...)`` and integer labels ``(samples,)``."""
        count = class_count(labels, test_labels)
        return cls(name, SampleSet(inputs), labels, SampleSet(test_inputs), test_labels, count)

    @classmethod
    def from_datasets(
        cls, train: Dataset, test: Dataset, name: str = "dataset"
    ) -> "ExperimentData":
        """Build from map-style data sets of ``(input, label)`` items, such as torchvision's.

        The labels are read from the attribute ``targets`` or ``labels`` where there is one, else
        from every item once.

        Raises
        ------
        ValueError
            A label is not an integer.
        """
        labels, test_labels = labels_of(train), labels_of(test)
        count = class_count(labels, test_labels)
        return cls(name, SampleSet(train), labels, SampleSet(test), test_labels, count)

    @classmethod
    def from_images(
        cls, images: ImageDataset, device: torch.device | str = "cpu"
    ) -> "ExperimentData":
        """Build from a data set of uint8 images, which are normalised batch by batch on ``device``.

        >>> from dynal_fast.data import load
        >>> ExperimentData.from_images(load("digits")).samples.input_shape
        (1, 8, 8)
        """
        samples, test_samples = (
            SampleSet(ImageInputs(split, images.mean, images.std, device))
            for split in (images.train_images, images.test_images)
        )
        return cls(
            images.name,
            samples,
            _as_labels(images.train_labels),
            test_samples,
            _as_labels(images.test_labels),
            images.num_classes,
            images.class_names,
        )

    def entries(self, view: PoolView) -> "ExperimentData":
        """Return the data whose samples are the entries of ``view``, over the same images.

        Raises
        ------
        ValueError
            The samples are not :class:`~dynal_fast.data.ImageInputs`.
        """
        source = self.samples.source
        if not isinstance(source, ImageInputs):
            raise ValueError(
                "pool_flips and pool_factor need uint8 images (ExperimentData.from_images), "
                f"got samples of {type(source).__name__}"
            )
        return ExperimentData(
            self.name,
            SampleSet(source.with_view(view)),
            view.labels(self.oracle.label(torch.arange(len(self.oracle)))),
            self.test_samples,
            self.test_labels,
            self.num_classes,
            self.class_names,
        )


def load_data(
    name: str,
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    cache: str | Path = "",
    share: float = 1.0,
    image_size: Sequence[int] = (),
) -> ExperimentData:
    """Return the data set called ``name`` (see :func:`dynal_fast.data.load`), read from ``root``.

    Batches are made on ``device``, where images that fit into memory are kept. Data sets that are
    decoded as a whole keep the result in the folder ``cache``, if one is given. ``share`` below 1
    keeps that share of the training images, always the same random ones; the test set stays whole.
    ``image_size`` is the height and width that images of other sizes are scaled to.

    Raises
    ------
    ValueError
        The name is unknown, a file is damaged, the data set does not take an option, or ``share``
        is not in (0, 1] or leaves no images.
    FileNotFoundError
        A file is missing.
    """
    options: dict[str, Any] = {"cache_dir": cache} if cache else {}
    if image_size:
        options["image_size"] = tuple(image_size)
    images = load(name, root or None, **options)
    every = np.arange(len(images.train_images))
    kept = kept_share(every, share)
    if len(kept) < len(every):
        images = dataclasses.replace(
            images,
            train_images=_subset(images.train_images, kept),
            train_labels=_subset(images.train_labels, kept),
        )
    return ExperimentData.from_images(images, device)


def kept_share(ids: np.ndarray, share: float) -> np.ndarray:
    """Return so large a share of ``ids``, always the same random ones, in their order.

    Raises
    ------
    ValueError
        ``share`` is not in (0, 1] or leaves none.

    >>> kept_share(np.arange(100), 0.05).shape
    (5,)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    if share == 1:
        return ids
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    kept = order[: round(share * len(ids))].sort().values.numpy()
    if not len(kept):
        raise ValueError(f"share must keep a sample of the {len(ids)}, got {share}")
    return ids[kept]


def _subset(stack: np.ndarray | LazyStack, ids: np.ndarray) -> np.ndarray | LazyStack:
    return stack.subset(ids) if isinstance(stack, LazyStack) else stack[ids]


def _as_labels(labels: np.ndarray | LazyStack) -> Tensor | LazyStack:
    return labels if isinstance(labels, LazyStack) else torch.as_tensor(labels)
