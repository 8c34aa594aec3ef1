"""Folders of images, one per class: any data set of photographs, decoded on demand."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import IMAGENET_MEAN, IMAGENET_STD, ImageDataset, LazyStack
from dynal_fast.data.decode import decode_image
from dynal_fast.data.source import NO_CHECKSUM, DatasetCorruptError, DatasetNotFoundError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 1 << 27  # of a decoded image, which takes 400 MB then
TEST_FOLDERS = ("test", "val", "valid", "validation")


def read_image_folder(
    root: Path, image_size: tuple[int, int] = (224, 224), title: str = ""
) -> ImageDataset:
    """Return the images under ``root/train/<class>/`` and ``root/test/<class>/``.

    ``val``, ``valid`` and ``validation`` are taken for ``test``. Without a ``train`` folder the
    class folders are expected in the root, and a fixed tenth of each class is kept for the test.
    Images are decoded lazily, as RGB, scaled to ``image_size``; neither the orientation in EXIF nor
    transparency is applied, as :func:`~dynal_fast.data.decode.decode_image` says. The mean and
    standard deviation are ImageNet's.

    Parameters
    ----------
    root
        The folder.
    image_size
        ``(height, width)`` of the decoded images.
    title
        As results call it; the folder's name by default.

    Raises
    ------
    ValueError
        ``image_size`` is not two positive integers, or of more than ``MAX_PIXELS`` pixels.
    DatasetNotFoundError
        There are no class folders, or no test folder beside ``train``.
    DatasetCorruptError
        Train and test have different classes; or, when it is decoded, an image cannot be read.
    """
    check_image_size(image_size)
    if (root / "train").is_dir():
        test_folder = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
        if test_folder is None:
            raise DatasetNotFoundError(
                f"{root} has a folder train but none of {', '.join(TEST_FOLDERS)} beside it"
            )
        class_names, train_paths, train_labels = list_class_folders(root / "train")
        test_names, test_paths, test_labels = list_class_folders(test_folder)
        if class_names != test_names:
            different = sorted(set(class_names) ^ set(test_names))
            raise DatasetCorruptError(
                f"{root}: the classes of train and {test_folder.name} differ: {different}"
            )
        provenance = NO_CHECKSUM
    else:
        class_names, paths, labels = list_class_folders(root)
        train, test = split_per_class(labels)
        train_paths, test_paths = [paths[i] for i in train], [paths[i] for i in test]
        train_labels, test_labels = labels[train], labels[test]
        provenance = f"{NO_CHECKSUM}; fixed random split, a tenth of each class for the test"
    decode = partial(decode_image, image_size=image_size)
    return ImageDataset(
        title or root.name,
        LazyStack(train_paths, decode, (3, *image_size)),
        train_labels,
        LazyStack(test_paths, decode, (3, *image_size)),
        test_labels,
        tuple(class_names),
        np.array(IMAGENET_MEAN, np.float32),
        np.array(IMAGENET_STD, np.float32),
        provenance,
    )


def list_class_folders(
    folder: Path, exclude: Sequence[str] = (), advice: str = ""
) -> tuple[list[str], list[Path], np.ndarray]:
    """Return class names, image paths and labels ``(n,)`` int64 of ``folder/<class>/<image>``.

    Classes and images are in the order of their names; hidden folders and other files are ignored.
    Errors end with ``advice``.

    Raises
    ------
    DatasetNotFoundError
        There are no class folders, or one holds no images.
    """
    class_names = sorted(
        entry.name
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in exclude
    )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        images = sorted(
            path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES
        )
        if not images:
            raise DatasetNotFoundError(
                f"{folder / name} holds no images ({sorted(SUFFIXES)}){advice}"
            )
        paths += images
        labels += [label] * len(images)
    if not class_names:
        raise DatasetNotFoundError(
            f"{folder} holds no class folders: expected <class>/<image>{advice}"
        )
    return class_names, paths, np.array(labels, np.int64)


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raise ValueError unless the size is ``(height, width)`` in whole positive pixels."""
    valid = isinstance(image_size, tuple | list) and len(image_size) == 2
    if not valid or not all(type(side) is int and side >= 1 for side in image_size):
        raise ValueError(f"image_size must be (height, width) in pixels, got {image_size!r}")
    if image_size[0] * image_size[1] > MAX_PIXELS:
        raise ValueError(f"image_size must have at most {MAX_PIXELS:,} pixels, got {image_size!r}")


def split_per_class(
    labels: np.ndarray, train_share: float = 0.9, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions to train on, ``floor(train_share * n)`` of each class, and the others.

    Parameters
    ----------
    labels
        ``(n,)`` int64.
    train_share
        From 0 to 1.
    seed
        Of NumPy's ``RandomState``, whose numbers are the same in every version.

    Raises
    ------
    ValueError
        ``train_share`` is outside [0, 1].

    >>> train, test = split_per_class(np.repeat([0, 1], 10))
    >>> len(train), test // 10
    (18, array([0, 1]))
    """
    if not 0 <= train_share <= 1:
        raise ValueError(f"train_share must be in [0, 1], got {train_share}")
    random = np.random.RandomState(seed)
    is_train = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        # The epsilon keeps products such as 0.9 * 10 from falling below their integer.
        is_train[members[: int(train_share * len(members) + 1e-9)]] = True
    return np.flatnonzero(is_train), np.flatnonzero(~is_train)
