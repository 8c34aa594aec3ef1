"""CIFAR-10 and CIFAR-100 as published for Python: a .tar.gz of pickles, packed or unpacked."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynal_fast.data.archive import archive_files, read_bounded
from dynal_fast.data.cifar_pickle import loads
from dynal_fast.data.dataset import ImageDataset, dataset_in_memory
from dynal_fast.data.labels import class_labels
from dynal_fast.data.source import (
    NOT_CHECKED,
    VERIFIED,
    DatasetCorruptError,
    Source,
    check_md5,
)

# All batches together are 186 MB; written by Python 3 they can be half as large again.
LIMIT = 1 << 29


@dataclass(frozen=True)
class CifarSource(Source):
    """One of the two sets: its archive, the files in it, and the official MD5 of each."""

    archive: str = ""
    archive_md5: str = ""
    folder: str = ""
    train: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    labels_key: bytes = b""
    names_key: bytes = b""


CIFAR10 = CifarSource(
    title="CIFAR-10",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    folders=(".", "cifar10", "cifar-10"),
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels_key=b"labels",
    names_key=b"label_names",
)

CIFAR100 = CifarSource(
    title="CIFAR-100",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    folders=(".", "cifar100", "cifar-100"),
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels_key=b"fine_labels",
    names_key=b"fine_label_names",
)


def read_cifar10(root: Path, verify: bool = True) -> ImageDataset:
    """Return CIFAR-10: 50,000 + 10,000 images of 3x32x32."""
    return read_cifar(CIFAR10, root, verify)


def read_cifar100(root: Path, verify: bool = True) -> ImageDataset:
    """Return CIFAR-100 with its 100 fine labels: 50,000 + 10,000 images of 3x32x32."""
    return read_cifar(CIFAR100, root, verify)


def read_cifar(source: CifarSource, root: Path, verify: bool) -> ImageDataset:
    """Return the data set that a source describes, from its folder or else its archive.

    Raises
    ------
    DatasetNotFoundError
        Neither the unpacked folder nor the archive is under the root.
    DatasetCorruptError
        A file is missing from it, truncated, has another checksum, or asks for more than a data set
        needs (see :mod:`dynal_fast.data.cifar_pickle`).
    """
    path = source.find(root, source.folder, source.archive)
    files = {**source.train, **source.test, **source.meta}
    if path.is_dir():
        contents = {name: _from_folder(source, path / name) for name in files}
        official = files
    else:
        if verify:
            check_md5(source.title, path, path, source.archive_md5)
        contents = _from_archive(source, path, files)
        official = {}
    if verify:
        for name, md5 in official.items():
            check_md5(source.title, path / name, contents[name], md5)
    batches = {name: _loads(source, name, content) for name, content in contents.items()}
    (meta,) = source.meta
    names = _entry(source, meta, batches[meta], source.names_key)
    if not all(isinstance(name, bytes | str) for name in names):
        raise DatasetCorruptError(f"{source.title}: the class names in {meta} must be texts")
    train, test = (
        _split(source, {name: batches[name] for name in split}, len(names))
        for split in (source.train, source.test)
    )
    return dataset_in_memory(
        source.title,
        train,
        test,
        [name.decode(errors="replace") if isinstance(name, bytes) else name for name in names],
        VERIFIED if verify else NOT_CHECKED,
    )


def _from_folder(source: CifarSource, path: Path) -> bytes:
    if not path.exists():
        raise DatasetCorruptError(
            f"{source.title}: {path.name} is missing from {path.parent}; unpack "
            f"{source.archive} ({source.home}) again"
        )
    return read_bounded(source.title, path, LIMIT)


def _from_archive(source: CifarSource, path: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    inside = {f"{source.folder}/{name}": name for name in names}

    def wanted(name: str) -> bool:
        return name.removeprefix("./") in inside

    contents = {
        inside[name.removeprefix("./")]: content
        for name, content in archive_files(source.title, path, wanted, LIMIT, LIMIT)
    }
    if missing := sorted(set(names) - set(contents)):
        raise DatasetCorruptError(
            f"{source.title}: {', '.join(missing)} is missing from {path}. {source.how_to_get}"
        )
    return contents


def _loads(source: CifarSource, name: str, content: bytes) -> dict:
    try:
        batch = loads(content)
    except pickle.UnpicklingError as error:
        raise DatasetCorruptError(f"{source.title}: {name} is refused: {error}") from error
    if not isinstance(batch, dict):
        raise DatasetCorruptError(f"{source.title}: {name} holds a {type(batch).__name__}, no dict")
    return batch


def _entry(source: CifarSource, name: str, batch: dict, key: bytes) -> list:
    """Return a list of a batch by its key, which Python 3 writers store as text."""
    entry = batch.get(key, batch.get(key.decode()))
    if not isinstance(entry, list):
        raise DatasetCorruptError(f"{source.title}: {name} has no list {key.decode()!r}")
    return entry


def _split(
    source: CifarSource, batches: dict[str, dict], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for name, batch in batches.items():
        data = batch.get(b"data", batch.get("data"))
        batch_labels = _entry(source, name, batch, source.labels_key)
        if not isinstance(data, np.ndarray) or data.shape != (len(batch_labels), 3072):
            got = data.shape if isinstance(data, np.ndarray) else type(data).__name__
            raise DatasetCorruptError(
                f"{source.title}: data of {name} should be ({len(batch_labels)}, 3072), got {got}"
            )
        images.append(data.reshape(-1, 3, 32, 32))
        where = f"{source.title}: labels of {name}"
        labels.append(class_labels(batch_labels, 0, num_classes, where))
    return np.concatenate(images), np.concatenate(labels)
