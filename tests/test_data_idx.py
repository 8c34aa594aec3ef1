"""MNIST's format on files the tests write, and on the real set where it is present."""

import dataclasses
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, DatasetNotFoundError, load
from dynal_fast.data.idx import FASHION_MNIST, FILES, MNIST, parse_idx, read_idx_dataset
from dynal_fast.data.source import NOT_CHECKED, UNPACKED, VERIFIED, md5

REAL = Path(os.environ.get("DYNAL_FAST_DATA", Path(__file__).parents[1] / "../shared/data"))


def idx_bytes(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": random.integers(0, 256, (7, 4, 5), dtype=np.uint8),
        "train-labels-idx1-ubyte": random.integers(0, 10, 7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (3, 4, 5), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": random.integers(0, 10, 3, dtype=np.uint8),
    }


def write(folder, arrays, compress):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        content = idx_bytes(array)
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("mnist", "."),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_reads_what_was_written(tmp_path, arrays, name, folder, compress):
    write(tmp_path / folder, arrays, compress)
    dataset = load(name, tmp_path, verify=False)
    for split, (images, labels) in FILES.items():
        read = getattr(dataset, f"{split}_images")
        assert np.array_equal(read, arrays[images][:, None])
        assert read.flags.writeable  # torch.from_numpy warns otherwise
        assert np.array_equal(getattr(dataset, f"{split}_labels"), arrays[labels])
    assert dataset.provenance == NOT_CHECKED
    assert dataset.num_classes == 10


@pytest.mark.parametrize("missing", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_a_missing_file_is_named(tmp_path, arrays, missing):
    write(tmp_path / "mnist", arrays, compress=True)
    (tmp_path / "mnist" / f"{missing}.gz").unlink()
    with pytest.raises(DatasetNotFoundError, match=f"{missing}.gz or {missing} is missing"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("compress", [True, False])
def test_a_checksum_of_the_content_is_verified_in_either_form(tmp_path, arrays, compress):
    write(tmp_path, arrays, compress)
    official = {name: md5(idx_bytes(array)) for name, array in arrays.items()}
    source = dataclasses.replace(MNIST, content_md5=official)
    assert read_idx_dataset(source, tmp_path, verify=True).provenance == VERIFIED
    official["t10k-labels-idx1-ubyte"] = "0" * 32
    with pytest.raises(DatasetCorruptError, match=r"t10k-labels.*has MD5 .*official one is 0000"):
        read_idx_dataset(source, tmp_path, verify=True)


def test_a_checksum_of_the_gz_is_verified_and_raw_files_are_reported_as_unverifiable(
    tmp_path, arrays
):
    write(tmp_path / "packed", arrays, compress=True)
    write(tmp_path / "raw", arrays, compress=False)
    official = {name: md5(tmp_path / "packed" / f"{name}.gz") for name in arrays}
    source = dataclasses.replace(FASHION_MNIST, gzip_md5=official)
    assert read_idx_dataset(source, tmp_path / "packed", verify=True).provenance == VERIFIED
    assert read_idx_dataset(source, tmp_path / "raw", verify=True).provenance == UNPACKED
    official["train-images-idx3-ubyte"] = "0" * 32
    with pytest.raises(DatasetCorruptError, match=r"train-images-idx3-ubyte.gz has MD5"):
        read_idx_dataset(source, tmp_path / "packed", verify=True)


def test_the_official_checksum_refuses_other_files(tmp_path, arrays):
    write(tmp_path, arrays, compress=True)
    for name in ("mnist", "fashion-mnist"):
        with pytest.raises(DatasetCorruptError, match="the official one is"):
            load(name, tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 10, 100])
def test_a_truncated_gz_is_refused(tmp_path, arrays, keep):
    write(tmp_path, arrays, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetCorruptError, match=r"train-images-idx3-ubyte.gz"):
        load("mnist", tmp_path, verify=False)


def test_a_gz_with_a_flipped_bit_is_refused(tmp_path, arrays):
    write(tmp_path, arrays, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetCorruptError, match="does not decompress"):
        load("mnist", tmp_path, verify=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got nothing"),
        (bytes([0, 0, 8]), "got 00 00 08"),
        (idx_bytes(np.zeros((2, 3), np.uint8)), "expected the bytes 00 00 08 01, got 00 00 08 02"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]), "got 00 00 0d 01"),  # float32
        (bytes([0, 0, 8, 1, 0, 0]), "does not start as an idx file"),
        (
            idx_bytes(np.zeros(3, np.uint8))[:-1],
            r"should have 11 bytes for shape \(3,\), it has 10",
        ),
        (idx_bytes(np.zeros(3, np.uint8)) + b"x", "it has 12"),
    ],
)
def test_what_is_no_idx_file_of_one_axis_is_refused(content, message):
    with pytest.raises(DatasetCorruptError, match=f"labels.*{message}"):
        parse_idx(content, 1, "labels")


def test_images_and_labels_must_be_as_many(tmp_path, arrays):
    arrays["train-labels-idx1-ubyte"] = arrays["train-labels-idx1-ubyte"][:5]
    write(tmp_path, arrays, compress=False)
    with pytest.raises(DatasetCorruptError, match="7 train images but 5 labels"):
        load("mnist", tmp_path, verify=False)


def test_labels_beyond_the_classes_are_refused(tmp_path, arrays):
    arrays["t10k-labels-idx1-ubyte"][1] = 10
    write(tmp_path, arrays, compress=False)
    with pytest.raises(DatasetCorruptError, match="a test label is 10, expected at most 9"):
        load("mnist", tmp_path, verify=False)


@pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason=f"no MNIST in {REAL}")
def test_the_real_mnist_passes_its_official_checksums():
    mnist = load("mnist", REAL)
    assert mnist.train_images.shape == (60000, 1, 28, 28)
    assert mnist.test_images.shape == (10000, 1, 28, 28)
    assert mnist.provenance == VERIFIED
    # The mean and standard deviation that everybody normalises MNIST by.
    assert mnist.mean == pytest.approx([0.1307], abs=5e-5)
    assert mnist.std == pytest.approx([0.3081], abs=5e-5)
    assert np.bincount(mnist.train_labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
