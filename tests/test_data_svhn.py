"""SVHN's MATLAB files that the tests write."""

import dataclasses

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, load
from dynal_fast.data.source import VERIFIED, md5
from dynal_fast.data.svhn import SVHN, read_svhn_source


def write_mat(path, images, labels):
    savemat = pytest.importorskip("scipy.io").savemat
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]}, do_compression=True)


@pytest.fixture
def numbers(tmp_path):
    random = np.random.default_rng(0)
    written = {}
    for name, count in (("train", 12), ("test", 5)):
        images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)  # 1 to 10, 10 being the digit 0
        write_mat(tmp_path / "svhn" / f"{name}_32x32.mat", images, labels)
        written[name] = images, labels
    return tmp_path, written


def test_svhn_reads_what_was_written_with_10_as_the_digit_0(numbers):
    root, written = numbers
    dataset = load("svhn", root, verify=False)
    assert np.array_equal(dataset.train_images, written["train"][0])
    assert dataset.train_images.flags.c_contiguous
    assert dataset.train_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert np.array_equal(dataset.test_images, written["test"][0])


def test_svhn_checksums(numbers):
    root, _ = numbers
    official = {name: md5(root / "svhn" / name) for name in SVHN.files}
    source = dataclasses.replace(SVHN, files=official)
    assert read_svhn_source(source, root, verify=True).provenance == VERIFIED
    with pytest.raises(DatasetCorruptError, match=r"train_32x32.mat has MD5"):
        load("svhn", root)


def test_svhn_refuses_damaged_files(numbers):
    root, written = numbers
    path = root / "svhn" / "test_32x32.mat"
    whole = path.read_bytes()
    for content in (b"", b"no mat file" * 20, whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DatasetCorruptError, match=r"test_32x32.mat is not a readable .mat"):
            load("svhn", root, verify=False)
    images, labels = written["test"]
    write_mat(path, images[:4], labels)
    with pytest.raises(DatasetCorruptError, match=r"should be uint8 \(32, 32, 3, 5\), got"):
        load("svhn", root, verify=False)
    write_mat(path, images, labels - 1)
    with pytest.raises(DatasetCorruptError, match=r"should lie in 1..10, got 0 to 4"):
        load("svhn", root, verify=False)
