"""Data of which most has no label yet: folders of images, for a run whose oracle is a person."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.data.catalogue import Catalogue
from dynal_fast.data.dataset import IMAGENET_MEAN, IMAGENET_STD, LazyStack
from dynal_fast.data.decode import decode_image
from dynal_fast.data.image_folder import (
    SUFFIXES,
    TEST_FOLDERS,
    check_image_size,
    list_class_folders,
)
from dynal_fast.data.source import DatasetCorruptError, DatasetNotFoundError
from dynal_fast.plain import shown

UNLABELED = "unlabeled"  # the folder of images without labels
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class PartlyLabeled:
    """Samples, some of them labeled, and a labeled hold-out that may be empty.

    Attributes
    ----------
    name
        As results call it.
    catalogue
        The names of the samples.
    inputs, test_inputs
        ``(n, ...)``: images as a :class:`LazyStack`, or embeddings as float32.
    labels
        ``(n,)`` int64: a class, or -1 where there is no label yet.
    test_labels
        ``(m,)`` int64.
    class_names
        The name of each class.
    mean, std
        Of the channels of images; None for embeddings.
    """

    name: str
    catalogue: Catalogue
    inputs: Any
    labels: np.ndarray
    test_inputs: Any
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    mean: np.ndarray | None = None
    std: np.ndarray | None = None


def read_partly_labeled(
    root: Path,
    image_size: tuple[int, int] = (224, 224),
    classes: Sequence[str] = (),
    holdout: Path | None = None,
) -> PartlyLabeled:
    """Return the images under ``root``, of which most have no label.

    With a folder ``root/unlabeled``, in which images may lie at any depth, the labeled images are
    in ``root/train/<class>/``, or in ``root/<class>/`` where there is no folder ``train``. Without,
    no image below ``root`` has a label, whatever its folder. ``root/test/<class>/`` is the
    hold-out; ``val``, ``valid`` and ``validation`` are taken for ``test``. Hidden files and
    folders are left out, and links to folders are not followed.

    Parameters
    ----------
    root
        The folder.
    image_size
        ``(height, width)`` to which images are scaled as they are decoded.
    classes
        The names of the classes; by default those of all class folders, in alphabetical order.
    holdout
        The folder of the hold-out, ``holdout/<class>/<image>``, instead of ``root/test``.

    Raises
    ------
    ValueError
        There are fewer than two classes, or a folder is none of ``classes``.
    DatasetNotFoundError
        There is no image without a label, or a folder holds no images.
    """
    check_image_size(image_size)
    beside = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    unlabeled = root / UNLABELED
    labeled_names: list[str] = []
    labeled: list[Path] = []
    labels = np.empty(0, np.int64)
    if unlabeled.is_dir():
        folder = root / "train" if (root / "train").is_dir() else root
        others = (UNLABELED, *TEST_FOLDERS)
        if folder != root or any(
            entry.is_dir() and not entry.name.startswith(".") and entry.name not in others
            for entry in root.iterdir()
        ):
            labeled_names, labeled, labels = list_class_folders(folder, others)
        pool = list(_images_below(unlabeled, ()))
    else:
        pool = list(_images_below(root, tuple(p for p in (beside, holdout) if p is not None)))
    if not pool:
        raise DatasetNotFoundError(
            f"{unlabeled if unlabeled.is_dir() else root} holds no images ({sorted(SUFFIXES)}), "
            "so there is nothing to ask for"
        )
    test_names, test_paths, test_labels = _holdout(holdout or beside)
    names = class_names(classes, sorted({*labeled_names, *test_names}), root, len(pool))
    for name in (*labeled_names, *test_names):
        if name not in names:
            raise ValueError(f"classes must name every class folder, and {name!r} is one")
    paths = sorted(
        [
            (path, names.index(labeled_names[label]))
            for path, label in zip(labeled, labels, strict=True)
        ]
        + [(path, NO_LABEL) for path in pool]
    )
    decode = partial(decode_image, image_size=image_size)
    files = [path for path, _ in paths]
    relative = tuple(_name_of(path, root) for path in files)
    shape = (3, *image_size)
    return PartlyLabeled(
        root.resolve().name,
        Catalogue(root, relative, "file", tuple(str(path.stat().st_size) for path in files)),
        LazyStack(files, decode, shape),
        np.array([label for _, label in paths], np.int64),
        LazyStack(test_paths, decode, shape),
        np.array([names.index(test_names[label]) for label in test_labels], np.int64),
        names,
        np.array(IMAGENET_MEAN, np.float32),
        np.array(IMAGENET_STD, np.float32),
    )


def class_names(
    given: Sequence[str], found: Sequence[str], source: Path, samples: int
) -> tuple[str, ...]:
    """Return the names of the classes: those given, or else those found among the data.

    Raises
    ------
    ValueError
        There are fewer than two, one is there twice, or one is empty or begins with a blank.
    """
    names = tuple(given or found)
    if len(names) < 2:
        known = f"only the class {names[0]!r}" if names else f"no label for its {samples:,} samples"
        raise ValueError(f"classes must name at least two classes: {source} has {known}")
    for name in names:
        if not name or name != name.strip():
            raise ValueError(f"classes must be names without blanks around them, got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"classes must be distinct, and {name!r} is there twice")
    return names


def _holdout(folder: Path | None) -> tuple[list[str], list[Path], np.ndarray]:
    if folder is None:
        return [], [], np.empty(0, np.int64)
    if not folder.is_dir():
        raise DatasetNotFoundError(f"holdout must be a folder of class folders, {folder} is none")
    return list_class_folders(folder)


def _images_below(folder: Path, excluded: Sequence[Path]) -> Iterator[Path]:
    left_out = {path.resolve() for path in excluded}
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(where) / name).resolve() not in left_out
        )
        for name in files:
            path = Path(where) / name
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                yield path


def _name_of(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DatasetCorruptError(
            f"{root} holds a file whose name is not UTF-8: {shown(name)!a}; rename it"
        ) from error
    return name
