"""Image data sets from a local folder, by name: ``load("mnist", root)``. Nothing is downloaded."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynal_fast.data.caltech101 import CALTECH101, read_caltech101
from dynal_fast.data.cifar import CIFAR10, CIFAR100, read_cifar10, read_cifar100
from dynal_fast.data.cifar10_jpeg import CIFAR10_JPEG, read_cifar10_jpeg
from dynal_fast.data.cityscapes import CITYSCAPES, read_cityscapes
from dynal_fast.data.dataset import ImageDataset, LazyStack
from dynal_fast.data.digits import read_digits
from dynal_fast.data.idx import FASHION_MNIST, MNIST, read_fashion_mnist, read_mnist
from dynal_fast.data.image_folder import read_image_folder
from dynal_fast.data.inputs import ImageInputs
from dynal_fast.data.source import DatasetCorruptError, DatasetNotFoundError, Source
from dynal_fast.data.svhn import SVHN, read_svhn

READERS: dict[str, Callable[..., ImageDataset]] = {
    "caltech101": read_caltech101,
    "cifar10": read_cifar10,
    "cifar10-jpeg": read_cifar10_jpeg,
    "cifar100": read_cifar100,
    "cityscapes": read_cityscapes,
    "digits": read_digits,
    "fashion-mnist": read_fashion_mnist,
    "image-folder": read_image_folder,
    "mnist": read_mnist,
    "svhn": read_svhn,
}
# Those that have a home; a folder of images may come from anywhere.
SOURCES: dict[str, Source] = {
    "caltech101": CALTECH101,
    "cifar10": CIFAR10,
    "cifar10-jpeg": CIFAR10_JPEG,
    "cifar100": CIFAR100,
    "cityscapes": CITYSCAPES,
    "fashion-mnist": FASHION_MNIST,
    "mnist": MNIST,
    "svhn": SVHN,
}


def load(name: str, root: str | Path | None = None, **options: Any) -> ImageDataset:
    """Return a data set by its name.

    Parameters
    ----------
    name
        One of ``READERS``.
    root
        The folder that holds the data set, in the layout in which it is published or in a subfolder
        with its name. Not for ``digits``, which scikit-learn brings along.
    **options
        What the reader takes beside the root: ``verify`` (check official checksums, on by default),
        ``image_size`` and ``cache_dir`` for some.

    Raises
    ------
    ValueError
        The name is unknown, the root is missing or not needed, or the reader does not take an
        option.
    DatasetNotFoundError
        A file is missing; the message says which, where it was looked for, and where the data set's
        home is.
    DatasetCorruptError
        A file is damaged.

    >>> load("digits").image_shape
    (1, 8, 8)
    """
    if name not in READERS:
        raise ValueError(f"name must be one of {', '.join(sorted(READERS))}, got {name!r}")
    reader = READERS[name]
    accepted = set(inspect.signature(reader).parameters)
    if unknown := sorted(set(options) - accepted - {"root"}):
        takes = ", ".join(sorted(accepted - {"root"})) or "none"
        raise ValueError(f"{name} does not take {', '.join(unknown)}; its options: {takes}")
    if "root" not in accepted:
        if root is not None:
            raise ValueError(f"{name} does not take root, got {str(root)!r}")
        return reader(**options)
    advice = f" {SOURCES[name].how_to_get}" if name in SOURCES else ""
    if root is None:
        raise ValueError(f"{name} needs root: the folder that holds it.{advice}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DatasetNotFoundError(f"root must be a folder, {root} is none.{advice}")
    return reader(root, **options)


__all__ = [
    "READERS",
    "DatasetCorruptError",
    "DatasetNotFoundError",
    "ImageDataset",
    "ImageInputs",
    "LazyStack",
    "load",
]
