"""MNIST and Fashion-MNIST: idx files, compressed or not."""

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.source import (
    NOT_CHECKED,
    UNPACKED,
    VERIFIED,
    DatasetCorruptError,
    Source,
    check_md5,
    check_regular,
)

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
OFFICIAL_BYTES = 16 + 60_000 * 28 * 28  # of the largest of the four


@dataclass(frozen=True)
class IdxSource(Source):
    """A data set in MNIST's four files, with the official MD5 of each where one is published."""

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
            if verify:
                packed_is_official = _check_packed(source, name, path)
            content = _content(source.title, path, ndim, OFFICIAL_BYTES if verify else None)
            if verify:
                checked.append(packed_is_official or _check_content(source, name, path, content))
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
    shape = _shape(content, ndim, where)
    expected = _num_bytes(shape)
    if len(content) != expected:
        raise DatasetCorruptError(
            f"{where} should have {expected} bytes for shape {shape}, it has {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=_header_bytes(ndim)).reshape(shape)


def _header_bytes(ndim: int) -> int:
    return 4 + 4 * ndim


def _num_bytes(shape: tuple[int, ...]) -> int:
    return _header_bytes(len(shape)) + math.prod(shape)


def _shape(start: bytes, ndim: int, where: str) -> tuple[int, ...]:
    """Return the shape that the header of an idx file tells."""
    magic = bytes([0, 0, 8, ndim])
    if start[:4] != magic or len(start) < _header_bytes(ndim):
        raise DatasetCorruptError(
            f"{where} does not start as an idx file of {ndim} axes: expected the bytes "
            f"{magic.hex(' ')}, got {start[:4].hex(' ') or 'nothing'}"
        )
    return tuple(int(size) for size in np.frombuffer(start, ">u4", ndim, offset=4))


def _content(title: str, path: Path, ndim: int, limit: int | None) -> bytes:
    """Return the decompressed bytes that a file's header announces, up to the limit."""
    check_regular(title, path)
    where = f"{title}: {path}"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = _read(file, _header_bytes(ndim))
            expected = _num_bytes(_shape(header, ndim, where))
            if limit is not None and expected > limit:
                raise DatasetCorruptError(
                    f"{where} says that it has {expected:,} bytes, the official file has at most "
                    f"{limit:,}; verify=False reads it anyway"
                )
            # One byte more shows that the file ends there, where gzip compares its checksum.
            content = header + _read(file, expected + 1 - len(header))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetCorruptError(f"{where} does not decompress: {error}") from error
    if len(content) > expected:
        raise DatasetCorruptError(f"{where} should have {expected} bytes, it has more")
    return content


def _read(file: Any, size: int) -> bytes:
    """Return the next bytes, ``size`` at most; memory grows as they arrive."""
    content = bytearray()
    while len(content) < size and (block := file.read(min(size - len(content), 1 << 20))):
        content += block
    return bytes(content)


def _check_packed(source: IdxSource, name: str, path: Path) -> bool:
    """Check a .gz before it is unpacked; return whether there is a checksum of it."""
    if name in source.content_md5 or name not in source.gzip_md5 or path.suffix != ".gz":
        return False
    check_md5(source.title, path, path, source.gzip_md5[name])
    return True


def _check_content(source: IdxSource, name: str, path: Path, content: bytes) -> bool:
    """Check the unpacked content; return whether there is a checksum of it."""
    if name not in source.content_md5:
        return False
    check_md5(source.title, path, content, source.content_md5[name])
    return True
