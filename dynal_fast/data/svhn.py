"""SVHN, cropped digits (format 2): MATLAB files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.source import (
    NOT_CHECKED,
    VERIFIED,
    DatasetCorruptError,
    Source,
    check_md5,
)


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
    ImportError
        SciPy is not installed.
    """
    return read_svhn_source(SVHN, root, verify)


def read_svhn_source(source: SvhnSource, root: Path, verify: bool) -> ImageDataset:
    """Return the data set that a source describes; see :func:`read_svhn`."""
    splits = []
    for name, official in source.files.items():
        path = source.find(root, name)
        if verify:
            check_md5(source.title, path, path, official)
        splits.append(_read_mat(source.title, path))
    train, test = splits
    names = [str(digit) for digit in range(10)]
    return dataset_in_memory(source.title, train, test, names, VERIFIED if verify else NOT_CHECKED)


def _read_mat(title: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("X", "y"))
        images, labels = content["X"], content["y"].ravel().astype(np.int64)
    except Exception as error:  # SciPy raises whatever the first damaged byte leads to
        raise DatasetCorruptError(f"{title}: {path} is not a readable .mat: {error!r}") from error
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise DatasetCorruptError(
            f"{title}: X of {path} should be uint8 (32, 32, 3, {len(labels)}), "
            f"got {images.dtype} {images.shape}"
        )
    if len(labels) and not 1 <= labels.min() <= labels.max() <= 10:
        raise DatasetCorruptError(
            f"{title}: y of {path} should lie in 1..10, got {labels.min()} to {labels.max()}"
        )
    # The digit 0 is stored as 10.
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels % 10
