"""MNIST and Fashion-MNIST: idx files, compressed or not."""

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.source import (
    NOT_CHECKED,
    UNPACKED,
    VERIFIED,
    DatasetCorruptError,
    Source,
    check_md5,
)

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class IdxSource(Source):
    """A data set in MNIST's four files, with the official MD5 of each as far as there is one."""

    class_names: tuple[str, ...] = ()
    content_md5: Mapping[str, str] = field(default_factory=dict)
    gzip_md5: Mapping[str, str] = field(default_factory=dict)


MNIST = IdxSource(
    title="MNIST",
    home="http://yann.lecun.com/exdb/mnist/",
    folders=("mnist", "MNIST/raw", "MNIST", "."),
    class_names=tuple(str(digit) for digit in range(10)),
    # Of the decompressed files, so that a recompressed .gz is accepted too.
    content_md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)

FASHION_MNIST = IdxSource(
    title="Fashion-MNIST",
    home="https://github.com/zalandoresearch/fashion-mnist",
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST", "."),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    # From the data set's README; they are published for the .gz files only.
    gzip_md5={
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def read_mnist(root: Path, verify: bool = True) -> ImageDataset:
    """Return MNIST: 60,000 + 10,000 images of 1x28x28."""
    return read_idx_dataset(MNIST, root, verify)


def read_fashion_mnist(root: Path, verify: bool = True) -> ImageDataset:
    """Return Fashion-MNIST: 60,000 + 10,000 images of 1x28x28."""
    return read_idx_dataset(FASHION_MNIST, root, verify)


def read_idx_dataset(source: IdxSource, root: Path, verify: bool) -> ImageDataset:
    """Return the data set that a source describes.

    Raises
    ------
    DatasetNotFoundError
        One of the four files is not under the root.
    DatasetCorruptError
        A file is truncated, has another format, or another checksum.
    """
    paths = {
        name: source.find(root, f"{name}.gz", name) for names in FILES.values() for name in names
    }
    checked = []
    splits = {}
    for split, names in FILES.items():
        arrays = []
        for name, ndim in zip(names, (3, 1), strict=True):
            path = paths[name]
            content = _content(source.title, path)
            if verify:
                checked.append(_check(source, name, path, content))
            arrays.append(parse_idx(content, ndim, f"{source.title}: {path}"))
        images, labels = arrays
        if len(images) != len(labels):
            raise DatasetCorruptError(
                f"{source.title}: {len(images)} {split} images but {len(labels)} labels"
            )
        if len(labels) and labels.max() >= len(source.class_names):
            raise DatasetCorruptError(
                f"{source.title}: a {split} label is {labels.max()}, "
                f"expected at most {len(source.class_names) - 1}"
            )
        splits[split] = (images[:, None].copy(), labels.astype(np.int64))
    provenance = NOT_CHECKED if not verify else VERIFIED if all(checked) else UNPACKED
    return dataset_in_memory(
        source.title, splits["train"], splits["test"], source.class_names, provenance
    )


def parse_idx(content: bytes, ndim: int, where: str) -> np.ndarray:
    """Return the uint8 array in the bytes of an idx file, read-only and without a copy.

    An idx file is: two zero bytes, 0x08 for uint8, the number of axes, each axis as a big-endian
    32-bit integer, the values in row-major order.

    Parameters
    ----------
    content
        The whole decompressed file.
    ndim
        Number of axes that is expected.
    where
        Names the file in errors.

    Raises
    ------
    DatasetCorruptError
        The header is different or the length does not fit it.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]), 1, "labels")
    array([5, 6, 7], dtype=uint8)
    """
    magic = bytes([0, 0, 8, ndim])
    header = 4 + 4 * ndim
    if content[:4] != magic or len(content) < header:
        raise DatasetCorruptError(
            f"{where} does not start as an idx file of {ndim} axes: expected the bytes "
            f"{magic.hex(' ')}, got {content[:4].hex(' ') or 'nothing'}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", ndim, offset=4))
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DatasetCorruptError(
            f"{where} should have {expected} bytes for shape {shape}, it has {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(title: str, path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetCorruptError(f"{title}: {path} does not decompress: {error}") from error


def _check(source: IdxSource, name: str, path: Path, content: bytes) -> bool:
    """Check against an official checksum; return whether there is one for this form of the file."""
    if name in source.content_md5:
        check_md5(source.title, path, content, source.content_md5[name])
    elif name in source.gzip_md5 and path.suffix == ".gz":
        check_md5(source.title, path, path, source.gzip_md5[name])
    else:
        return False
    return True
