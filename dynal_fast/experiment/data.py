"""Samples with their ids, and the oracle that holds their labels.

Only the :class:`Oracle` has the labels: training, observation and selection see ids and inputs.
"""

import dataclasses
import functools
import hashlib
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dynal_fast.data import ImageDataset, ImageInputs, LazyStack, load
from dynal_fast.data.augment import Augmentation
from dynal_fast.data.inflate import PoolView
from dynal_fast.experiment.determinism import tensor_bytes
from dynal_fast.experiment.segmentation import LabelMaps, MapOracle, check_label_maps


class SampleSet(Dataset):
    """The samples of a data set with their ids and without their labels.

    ``samples[i]`` is ``(i, input)``, so that a plain ``DataLoader`` over it yields the
    ``(sample_ids, inputs)`` batches which the pool statistics need. ``samples[ids]`` with an int64
    tensor of shape ``(batch,)`` is a whole batch at once, the ids on the inputs' device.

    Parameters
    ----------
    source
        Inputs, shape ``(samples, ...)``, as a tensor or as :class:`~dynal_fast.data.ImageInputs`;
        or any map-style data set, of whose tuples the first element is the input.

    >>> samples = SampleSet(torch.arange(6.0).reshape(3, 2))
    >>> samples[2]
    (2, tensor([4., 5.]))
    >>> samples[torch.tensor([2, 0])]
    (tensor([2, 0]), tensor([[4., 5.],
            [0., 1.]]))
    """

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int | Tensor) -> tuple[int | Tensor, Tensor]:
        if isinstance(index, Tensor):
            inputs = self._inputs(index)
            return index.to(inputs.device), inputs
        return index, self._inputs(torch.tensor([index]))[0]

    def _inputs(self, ids: Tensor) -> Tensor:
        if isinstance(self.source, Tensor | ImageInputs):
            return self.source[ids]
        items = [self.source[i] for i in ids.tolist()]
        return default_collate([i[0] if isinstance(i, tuple | list) else i for i in items])

    def augmented(
        self, ids: Tensor, augmentation: Augmentation, generator: torch.Generator
    ) -> Tensor:
        """Return the inputs of ``ids``, randomly changed.

        Raises
        ------
        ValueError
            The source is not :class:`~dynal_fast.data.ImageInputs`.
        """
        if not isinstance(self.source, ImageInputs):
            raise ValueError(
                "crop_padding and horizontal_flip need uint8 images (ExperimentData.from_images), "
                f"got samples of {type(self.source).__name__}"
            )
        return self.source.augmented(ids, augmentation, generator)

    def batches(self, ids: Iterable[Tensor]) -> DataLoader:
        """Return a loader of the ``(sample_ids, inputs)`` of these batches of ids.

        It draws nothing from torch's global generator, so that observing the pool leaves the
        training's random numbers as they were.
        """
        return DataLoader(
            self,
            sampler=list(ids),
            batch_size=None,
            generator=torch.Generator(),
        )

    def loader(self, ids: Tensor, batch_size: int) -> DataLoader:
        """Return a loader of the ``(sample_ids, inputs)`` of ``ids``, in their order."""
        return self.batches(ids.split(batch_size))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self[0][1].shape)

    def digest(self) -> str:
        """Return a SHA-256 that identifies the inputs.

        It covers all values in memory, the names and sizes of files that are decoded on demand, and
        a few inputs as a model sees them.
        """
        digest = hashlib.sha256()
        held = self.source.images if isinstance(self.source, ImageInputs) else self.source
        if isinstance(held, Tensor):
            digest.update(tensor_bytes(held))
        elif isinstance(held, LazyStack):
            listed = [f"{path.name} {path.stat().st_size}" for path in held.paths]
            digest.update("\n".join(listed).encode())
        spread = torch.linspace(0, len(self) - 1, min(8, len(self))).round().long().unique()
        seen = self._inputs(spread)
        digest.update(f"{tuple(seen.shape)} {seen.dtype}".encode())
        digest.update(tensor_bytes(seen))
        return digest.hexdigest()


class Oracle:
    """Holds the labels of all samples and gives those of the samples asked for.

    >>> oracle = Oracle(torch.tensor([1, 0, 1]), num_classes=2)
    >>> oracle.label(torch.tensor([2, 1]))
    tensor([1, 0])
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self._labels = labels
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self._labels)

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

    Raises
    ------
    ValueError
        Inputs and labels differ in number or size, or a label is out of range.
    """

    name: str
    samples: SampleSet
    labels: InitVar[Tensor | LazyStack]
    test_samples: SampleSet
    test_labels: Any
    num_classes: int
    oracle: Any = field(init=False)

    def __post_init__(self, labels: Tensor | LazyStack) -> None:
        if isinstance(labels, LazyStack):
            check_label_maps("labels", labels, self.samples.source)
            check_label_maps("test_labels", self.test_labels, self.test_samples.source)
            object.__setattr__(self, "oracle", MapOracle(labels, self.num_classes))
            object.__setattr__(self, "test_labels", LabelMaps(self.test_labels))
            return
        checked = [
            _checked_labels(what, given, len(samples), self.num_classes)
            for what, given, samples in (
                ("labels", labels, self.samples),
                ("test_labels", self.test_labels, self.test_samples),
            )
        ]
        object.__setattr__(self, "oracle", Oracle(checked[0], self.num_classes))
        object.__setattr__(self, "test_labels", checked[1])

    @property
    def segments(self) -> bool:
        """Whether every pixel has a label, instead of every sample."""
        return isinstance(self.test_labels, LabelMaps)

    @property
    def chance(self) -> float | None:
        """The test accuracy of always naming its most frequent class, None for label maps."""
        if self.segments:
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
        count = _num_classes(labels, test_labels)
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
        labels, test_labels = _labels_of(train), _labels_of(test)
        count = _num_classes(labels, test_labels)
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
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    options: dict[str, Any] = {"cache_dir": cache} if cache else {}
    if image_size:
        options["image_size"] = tuple(image_size)
    images = load(name, root or None, **options)
    if share < 1:
        order = torch.randperm(len(images.train_images), generator=torch.Generator().manual_seed(0))
        kept = order[: round(share * len(order))].sort().values.numpy()
        if not len(kept):
            raise ValueError(f"share must keep an image of the {len(order)}, got {share}")
        images = dataclasses.replace(
            images,
            train_images=_subset(images.train_images, kept),
            train_labels=_subset(images.train_labels, kept),
        )
    return ExperimentData.from_images(images, device)


def _subset(stack: np.ndarray | LazyStack, ids: np.ndarray) -> np.ndarray | LazyStack:
    return stack.subset(ids) if isinstance(stack, LazyStack) else stack[ids]


def _checked_labels(what: str, labels: Tensor, count: int, num_classes: int) -> Tensor:
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


def _num_classes(*splits: Tensor) -> int:
    """Return one more than the highest label; the labels themselves are checked later."""
    return max(
        (
            int(labels.to(torch.int64).max()) + 1
            for labels in splits
            if labels.numel() and _holds_integers(labels)
        ),
        default=1,
    )


def _as_labels(labels: np.ndarray | LazyStack) -> Tensor | LazyStack:
    return labels if isinstance(labels, LazyStack) else torch.as_tensor(labels)


def _labels_of(dataset: Any) -> Tensor:
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
