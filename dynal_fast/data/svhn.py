"""SVHN, cropped digits (format 2): MATLAB files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.labels import class_labels
from dynal_fast.data.mat import read_mat
from dynal_fast.data.source import (
    NOT_CHECKED,
    VERIFIED,
    DatasetCorruptError,
    Source,
    check_md5,
)

LIMIT = 1 << 29  # bytes of a file, packed and unpacked; the training set has 225 MB


@dataclass(frozen=True)
class SvhnSource(Source):
    """The two files and the official MD5 of each."""

    files: Mapping[str, str] = field(default_factory=dict)


SVHN = SvhnSource(
    title="SVHN",
    home="http://ufldl.stanford.edu/housenumbers/",
    folders=("svhn", "SVHN", "."),
    files={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)


def read_svhn(root: Path, verify: bool = True) -> ImageDataset:
    """Return SVHN: 73,257 + 26,032 images of 3x32x32, without the extra images.

    Raises
    ------
    DatasetNotFoundError
        A file is not under the root.
    DatasetCorruptError
        A file is damaged or has another checksum.
    """
    return read_svhn_source(SVHN, root, verify)


def read_svhn_source(source: SvhnSource, root: Path, verify: bool) -> ImageDataset:
    """Return the data set that a source describes; see :func:`read_svhn`."""
    splits = []
    for name, official in source.files.items():
        path = source.find(root, name)
        if verify:
            check_md5(source.title, path, path, official)
        splits.append(_read_split(source.title, path))
    train, test = splits
    names = [str(digit) for digit in range(10)]
    return dataset_in_memory(source.title, train, test, names, VERIFIED if verify else NOT_CHECKED)


def _read_split(title: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_mat(title, path, ("X", "y"), LIMIT)
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, labels.size):
        raise DatasetCorruptError(
            f"{title}: X of {path} should be uint8 (32, 32, 3, {labels.size}), "
            f"got {images.dtype} {images.shape}"
        )
    digits = class_labels(labels.ravel(), 1, 10, f"{title}: y of {path}")
    # The digit 0 is stored as 10.
    return np.array(images.transpose(3, 2, 0, 1), order="C"), digits % 10
