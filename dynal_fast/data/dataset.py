"""What every reader returns: uint8 images, labels, names, and statistics to normalise by."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dynal_fast.data.source import DatasetCorruptError

# Channel statistics of ImageNet's training images, the usual choice for photographs that are too
# many to be decoded for their own (He et al. 2016 and since).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class LazyStack:
    """A stack of equally shaped arrays, one per file, decoded whenever it is indexed.

    It has the ``shape``, ``dtype``, length and first-axis indexing of an array and holds only the
    paths: ``stack[3]`` has shape ``shape[1:]``; ``stack[2:8]``, ``stack[ids]`` and ``stack[mask]``
    are stacked along a first axis. It can be pickled when ``decode`` can, as data-loading workers
    need.

    Parameters
    ----------
    paths
        One file per item.
    decode
        Reads one path into an array of ``item_shape`` and ``dtype``.
    item_shape
        Shape of one item.
    dtype
        Of every item.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        decode: Callable[[Path], np.ndarray],
        item_shape: tuple[int, ...],
        dtype: type = np.uint8,
    ) -> None:
        self.paths = tuple(paths)
        self.decode = decode
        self.shape = (len(self.paths), *item_shape)
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes, the first counting the files."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, ids: int | slice | ArrayLike) -> np.ndarray:
        try:
            return self._decode(operator.index(ids))  # type: ignore[arg-type]
        except TypeError:
            chosen = np.arange(len(self))[ids]  # type: ignore[index]
        stack = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for row, i in enumerate(chosen):
            stack[row] = self._decode(i)
        return stack

    def subset(self, ids: np.ndarray) -> "LazyStack":
        """Return the stack of the files ``ids`` (m,) integers, which decodes nothing yet."""
        paths = [self.paths[i] for i in ids.tolist()]
        return LazyStack(paths, self.decode, self.shape[1:], self.dtype.type)

    def _decode(self, i: int) -> np.ndarray:
        item = self.decode(self.paths[i])
        if item.shape != self.shape[1:] or item.dtype != self.dtype:
            raise ValueError(
                f"{self.paths[i]} decodes to {item.dtype} {item.shape}, "
                f"expected {self.dtype} {self.shape[1:]}"
            )
        return item


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A labelled image data set, split into what a pool is drawn from and what it is tested on.

    Attributes
    ----------
    name
        As results call it, such as ``"CIFAR-10 (JPEG q75)"``.
    train_images, test_images
        ``(n, channels, height, width)`` uint8, as an array or, for large image folders, as a
        :class:`LazyStack`.
    train_labels, test_labels
        ``(n,)`` int64 in ``[0, num_classes)``; for segmentation a :class:`LazyStack` of ``(n,
        height, width)`` uint8, 255 meaning that a pixel is ignored.
    class_names
        The name of each class.
    mean, std
        ``(channels,)`` float32, of the training images scaled to [0, 1].
    provenance
        How far the files were checked, and how they were split where nobody says.

    Raises
    ------
    ValueError
        Shapes, dtypes or label values do not fit together.
    """

    name: str
    train_images: np.ndarray | LazyStack
    train_labels: np.ndarray | LazyStack
    test_images: np.ndarray | LazyStack
    test_labels: np.ndarray | LazyStack
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    provenance: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            if images.ndim != 4 or images.dtype != np.uint8:
                raise ValueError(
                    f"{self.name}: {split}_images must be uint8 (n, channels, height, width), "
                    f"got {images.dtype} {images.shape}"
                )
            if len(images) != len(labels):
                raise ValueError(
                    f"{self.name}: {len(images)} {split}_images but {len(labels)} {split}_labels"
                )
            if isinstance(labels, LazyStack):
                continue
            if labels.ndim != 1 or labels.dtype != np.int64:
                raise ValueError(
                    f"{self.name}: {split}_labels must be int64 (n,), "
                    f"got {labels.dtype} {labels.shape}"
                )
            if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(
                    f"{self.name}: {split}_labels must lie in [0, {self.num_classes}), "
                    f"got {labels.min()} to {labels.max()}"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"{self.name}: train_images have shape {self.train_images.shape[1:]} each, "
                f"test_images {self.test_images.shape[1:]}"
            )
        for statistic in ("mean", "std"):
            shape = getattr(self, statistic).shape
            if shape != self.image_shape[:1]:
                raise ValueError(
                    f"{self.name}: {statistic} must be {self.image_shape[:1]}, got {shape}"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of every image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel of uint8 images scaled to [0, 1].

    Exact: from histograms of the 256 values, without a float copy of the images.

    Parameters
    ----------
    images
        ``(n, channels, height, width)`` uint8.

    Returns
    -------
    ``(channels,)`` float32 twice; a channel that never varies gets a standard deviation of 1, so
    that normalising by it is defined.

    >>> mean, std = channel_statistics(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    >>> mean, std
    (array([0.5], dtype=float32), array([0.5], dtype=float32))
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 4096):
        for channel in range(channels):
            values = images[start : start + 4096, channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std[std == 0] = 1
    return mean.astype(np.float32), std.astype(np.float32)


def dataset_in_memory(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
    provenance: str,
) -> ImageDataset:
    """Return an :class:`ImageDataset` whose statistics are those of its own training images.

    Parameters
    ----------
    name
        As results call it.
    train, test
        Images ``(n, channels, height, width)`` uint8 and labels ``(n,)`` int64.
    class_names
        The name of each class.
    provenance
        How far the files were checked.

    Raises
    ------
    DatasetCorruptError
        There is no pixel to train on.
    ValueError
        Images and labels do not fit together.
    """
    if not train[0].size:
        raise DatasetCorruptError(f"{name}: no pixels to train on, in images of {train[0].shape}")
    mean, std = channel_statistics(train[0])
    return ImageDataset(name, *train, *test, tuple(class_names), mean, std, provenance)
