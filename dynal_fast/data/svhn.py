"""SVHN, cropped digits (format 2): MATLAB files."""

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynal_fast.data.archive import read_bounded
from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.labels import class_labels
from dynal_fast.data.source import (
    NOT_CHECKED,
    VERIFIED,
    DatasetCorruptError,
    Source,
    check_md5,
)

LIMIT = 1 << 29  # bytes of a file, packed and unpacked; the training set has 225 MB
MATRIX, COMPRESSED = 14, 15  # kinds of element in a MATLAB file of version 5


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

    where = f"{title}: {path}"
    try:
        unpacked = _unpacked(read_bounded(title, path, LIMIT), where)
        content = loadmat(io.BytesIO(unpacked), variable_names=("X", "y"))
        images, labels = content["X"], content["y"]
    except DatasetCorruptError:
        raise
    except Exception as error:  # SciPy raises whatever the first damaged byte leads to
        raise DatasetCorruptError(f"{where} is not a readable .mat: {error!r}") from error
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, labels.size):
        raise DatasetCorruptError(
            f"{title}: X of {path} should be uint8 (32, 32, 3, {labels.size}), "
            f"got {images.dtype} {images.shape}"
        )
    digits = class_labels(labels.ravel(), 1, 10, f"{title}: y of {path}")
    # The digit 0 is stored as 10.
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), digits % 10


def _unpacked(content: bytes, where: str) -> bytes:
    """Return a MATLAB file with its compressed elements unpacked, which are bounded here.

    A file is a header of 128 bytes, then elements: kind and number of bytes, as 32-bit integers in
    the byte order that the header ends with, and those bytes. SciPy unpacks whatever they hold.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:  # version 4 does not compress, version 7.3 is HDF5
        return content
    unpacked = bytearray(content[:128])
    position = 128
    while position < len(content):
        kind, size = np.frombuffer(content, f"{order}u4", 2, position).tolist()
        element = content[position : position + 8 + size]
        if kind == COMPRESSED:
            element = zlib.decompressobj().decompress(element[8:], LIMIT + 1 - len(unpacked))
            inner_kind, inner_size = np.frombuffer(element, f"{order}u4", 2).tolist()
            if inner_kind != MATRIX:  # SciPy would unpack a compressed element in it
                raise ValueError(f"a compressed element holds kind {inner_kind}, no matrix")
            element = element[: 8 + inner_size]
        unpacked += element
        if len(unpacked) > LIMIT:
            raise DatasetCorruptError(f"{where} unpacks to more than {LIMIT:,} bytes")
        position += 8 + size
    return bytes(unpacked)
