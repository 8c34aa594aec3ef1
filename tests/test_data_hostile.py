"""Files made to exhaust memory or time, or to reach beyond their folder: refused early, by name."""

import dataclasses
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, cifar_pickle, load
from dynal_fast.data.archive import archive_files
from dynal_fast.data.cifar import CIFAR10
from dynal_fast.data.cifar10_jpeg import FILE_LIMIT
from dynal_fast.data.cifar_pickle import loads
from dynal_fast.data.idx import FASHION_MNIST, FILES, read_idx_dataset
from tests.test_data_cifar import files, python2_pickle, write_folder

MEGABYTE = 1 << 20


@contextmanager
def memory_below(limit):
    """Fail where Python's memory grows by ``limit`` bytes or more on the way."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def idx_header(*shape):
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


@pytest.fixture
def mnist(tmp_path):
    """Write four small .gz files and return their folder."""
    for images, labels in FILES.values():
        (tmp_path / f"{images}.gz").write_bytes(gzip.compress(idx_header(2, 3, 3) + bytes(18)))
        (tmp_path / f"{labels}.gz").write_bytes(gzip.compress(idx_header(2) + bytes(2)))
    load("mnist", tmp_path, verify=False)
    return tmp_path


@pytest.mark.parametrize("verify", [True, False])
def test_a_gz_is_read_no_further_than_its_header_says(mnist, verify):
    bomb = gzip.compress(idx_header(2, 3, 3) + bytes(24 * MEGABYTE))
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with memory_below(4 * MEGABYTE), pytest.raises(DatasetCorruptError, match="it has more"):
        load("mnist", mnist, verify=verify)


def test_a_header_that_promises_more_than_the_official_file_is_refused_at_once(mnist):
    bomb = gzip.compress(idx_header(10**6, 28, 28) + bytes(24 * MEGABYTE))
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with (
        memory_below(4 * MEGABYTE),
        pytest.raises(
            DatasetCorruptError, match=r"says that it has 784,000,016 bytes.*at most 47,040,016"
        ),
    ):
        load("mnist", mnist)


@pytest.mark.parametrize("packed", [True, False])
def test_memory_is_not_taken_for_what_a_header_promises(mnist, packed):
    content = idx_header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100)
    name = "train-images-idx3-ubyte"
    (mnist / f"{name}.gz").unlink()
    path = mnist / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    with memory_below(4 * MEGABYTE), pytest.raises(DatasetCorruptError, match="it has 116"):
        load("mnist", mnist, verify=False)


def test_the_checksum_of_a_gz_is_compared_before_it_is_unpacked(mnist, monkeypatch):
    source = dataclasses.replace(
        FASHION_MNIST,
        gzip_md5=dict.fromkeys([n for pair in FILES.values() for n in pair], "0" * 32),
    )

    def unpack(*_):
        raise AssertionError("unpacked")

    monkeypatch.setattr(gzip, "open", unpack)
    with pytest.raises(DatasetCorruptError, match=r"train-images-idx3-ubyte.gz has MD5"):
        read_idx_dataset(source, mnist, verify=True)


@pytest.mark.parametrize("shape", [(0, 28, 28), (2, 0, 28), (2, 28, 0)])
def test_a_data_set_without_pixels_is_refused(mnist, shape):
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_header(*shape)))
    labels = gzip.compress(idx_header(shape[0]) + bytes(shape[0]))
    (mnist / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(DatasetCorruptError, match="MNIST: no pixels to train on"):
        load("mnist", mnist, verify=False)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "train-images-idx3-ubyte"),
        ("fashion-mnist", "train-images-idx3-ubyte.gz"),
        ("svhn", "train_32x32.mat"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar10-jpeg", "cifar10_jpegs.tar"),
        ("cifar10-jpeg", "train/dog/0000.jpg"),
    ],
)
def test_pipes_are_refused_and_not_waited_for(mnist, name, file, verify):
    for plain in ("mnist", "fashion-mnist"):
        if name == plain:
            (mnist / "train-images-idx3-ubyte.gz").unlink()
    path = mnist / file
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    (mnist / "test_32x32.mat").write_bytes(b"")
    with pytest.raises(DatasetCorruptError, match=r"no regular file|has no train images"):
        load(name, mnist, verify=verify)


def write_tar(path, members, pack=lambda content: content):
    """Write a tar of (header, content) pairs, of which a header may tell what it likes."""
    content = b"".join(
        member.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
        for member, data in members
    )
    path.write_bytes(pack(content + bytes(1024)))


def member(name, size=0, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def read_all(path, limit=MEGABYTE, file_limit=MEGABYTE):
    return dict(archive_files("Toy", path, lambda name: True, limit, file_limit))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_links_devices_and_folders_in_an_archive_are_passed_over(tmp_path, pack):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    members = [(member(f"member {kind}", 0, kind, str(secret)), b"") for kind in kinds]
    members.append((member("../../escaped", 4), b"data"))
    write_tar(tmp_path / "toy.tar", members, pack)
    assert read_all(tmp_path / "toy.tar") == {"../../escaped": b"data"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "toy.tar"]
    assert not (tmp_path.parent.parent / "escaped").exists()


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, pack):
    write_tar(tmp_path / "toy", [(member("x", 24 * MEGABYTE), bytes(24 * MEGABYTE))], pack)
    for file_limit, message in (
        (1 << 40, "holds more than 1,048,576 bytes"),
        (1000, "x has 25,165,824 bytes, expected at most 1,000"),
    ):
        with memory_below(12 * MEGABYTE), pytest.raises(DatasetCorruptError, match=message):
            read_all(tmp_path / "toy", file_limit=file_limit)
    # What is not wanted is not skipped for ever either.
    with pytest.raises(DatasetCorruptError, match="holds more than 1,048,576 bytes"):
        list(archive_files("Toy", tmp_path / "toy", lambda name: False, MEGABYTE, MEGABYTE))


def test_a_sparse_member_does_not_grow(tmp_path):
    header = bytearray(member("x", 0, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)  # no data
    header[483:495] = b"%011o\0" % (1 << 32)  # and 4 GB of holes
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "toy").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(DatasetCorruptError, match="x has 4,294,967,296 bytes"):
        read_all(tmp_path / "toy", file_limit=1 << 40)


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
def test_a_member_of_negative_size_is_refused(tmp_path, size):
    write_tar(tmp_path / "toy", [(member("x", size), b""), (member("y", 1), b"y")])
    with pytest.raises(DatasetCorruptError, match=r"does not unpack|expected at most"):
        read_all(tmp_path / "toy")


def test_many_headers_are_not_kept(tmp_path):
    content = b"".join(member(f"{i}").tobuf() for i in range(3000)) + bytes(1024)
    (tmp_path / "toy").write_bytes(gzip.compress(content))
    with memory_below(2 * MEGABYTE):
        assert sum(1 for _ in archive_files("", tmp_path / "toy", bool, 1 << 24, 10)) == 3000


def test_a_jpeg_of_the_wrong_size_or_far_too_long_is_refused(tmp_path):
    image = pytest.importorskip("PIL.Image").new("RGB", (33, 32))
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    path = tmp_path / "train" / "dog" / "0000.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(stream.getvalue())
    with pytest.raises(DatasetCorruptError, match=r"0000.jpg is not .*32x32 pixels, got 32x33"):
        load("cifar10-jpeg", tmp_path, verify=False)
    path.write_bytes(stream.getvalue() + bytes(FILE_LIMIT))
    with pytest.raises(DatasetCorruptError, match=r"0000.jpg holds more than 1,048,576 bytes"):
        load("cifar10-jpeg", tmp_path, verify=False)


def test_jpegs_that_would_take_each_others_place_are_refused(tmp_path):
    names = ("a/train/dog/1.jpg", "b/train/dog/1.jpg")
    write_tar(tmp_path / "cifar10_jpegs.tar", [(member(name, 1), b"x") for name in names])
    with pytest.raises(DatasetCorruptError, match=r"holds both a/train/dog/1.jpg and b/train"):
        load("cifar10-jpeg", tmp_path, verify=False)


def doubled(depth, join):
    """Return an object of 2 ** depth leaves that a few bytes describe."""
    item = join([])
    for _ in range(depth):
        item = join([item, item])
    return item


def circular():
    item = []
    item.append(item)
    return item


TEXT = b"X" + struct.pack("<I", 5000) + b"x" * 5000
PICKLE_BOMBS = {
    "lists": pickle.dumps({"labels": doubled(60, list)}),
    "lists of protocol 0": pickle.dumps({"labels": doubled(60, list)}, protocol=0),
    "tuples": pickle.dumps({"labels": doubled(60, tuple)}),
    "tuples alone": pickle.dumps(doubled(60, tuple)),
    "tuples as keys, whose hash takes for ever": pickle.dumps(doubled(9, tuple))[:-1]
    + b"0}(" + b"h\x00" + b"".join(b"h\x00\x86" for _ in range(60)) + b"K\x01u.",
    "dicts": pickle.dumps({"a": {"b": doubled(60, lambda pair: dict(enumerate(pair)))}}),
    "circular": pickle.dumps({"labels": circular()}),
    "flat lists in a list": pickle.dumps([[1] * 9] * 9),
    "sets": pickle.dumps({"labels": {1, 2}}),
    "frozen sets": pickle.dumps(frozenset([1])),
    "bytearrays": pickle.dumps(bytearray(9), protocol=5),
    "texts encoded again and again": b"\x80\x02" + TEXT + b"q\x00c_codecs\nencode\nq\x01]("
    + b"".join(b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R" for _ in range(50)) + b"e.",
    "repeated shape": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t"
    b"U\x01btR(K\x01(]K\x01aJ\xff\xff\xff\x7ftcnumpy\ndtype\n(U\x02u1K\x00K\x01tR\x89U\x00tb.",
    "huge memory number": b"\x80\x02Nr\xff\xff\xff\xff0r\xff\xff\xff\xff.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
    "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b".",
    "changed name": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
    "no data": b"\x80\x02.",
    "data left over": b"\x80\x02K\x01K\x02.",
    "only a name": b"\x80\x02cnumpy\nndarray\n.",
    "only a mark": b"\x80\x02(.",
    "an array without values": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"(K\x00tU\x01btR.",
}  # fmt: skip


@pytest.mark.parametrize("content", PICKLE_BOMBS.values(), ids=PICKLE_BOMBS)
def test_a_pickle_that_grows_is_refused(content):
    with memory_below(MEGABYTE), pytest.raises(pickle.UnpicklingError) as caught:
        loads(content)
    assert len(str(caught.value)) < 300


def test_a_pickle_of_shared_lists_is_refused_as_a_batch(tmp_path):
    bomb = python2_pickle({b"labels": [], b"data": 0})[:-2] + b"(U\x06labels"
    bomb += b"]q\x00" + b"".join(
        b"]q" + bytes([i + 1]) + b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e"
        for i in range(90)
    )
    write_folder(tmp_path, CIFAR10, {**files(CIFAR10), "data_batch_1": bomb + b"u."})
    with pytest.raises(DatasetCorruptError, match=r"data_batch_1 is refused: a list holds"):
        load("cifar10", tmp_path, verify=False)


def test_a_pickle_takes_no_more_instructions_than_it_may(monkeypatch):
    monkeypatch.setattr(cifar_pickle, "MAX_INSTRUCTIONS", 1000)
    assert loads(pickle.dumps(list(range(400)))) == list(range(400))
    with pytest.raises(pickle.UnpicklingError, match="more than 1,000 instructions"):
        loads(b"\x80\x02" + b"]" * 2000 + b".")


def test_lists_may_be_shared_and_repeated_arrays_are_the_same():
    labels, data = [1, 2], np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = {"fine": labels, "coarse": labels, "a": data, "b": data}
    read = loads(pickle.dumps(content, protocol=2))
    assert read["fine"] == read["coarse"] == labels
    assert np.array_equal(read["a"], data)
    assert read["a"] is read["b"]


def test_long_names_do_not_fill_the_message():
    with pytest.raises(pickle.UnpicklingError) as caught:
        loads(b"c" + b"o" * 5000 + b"\nsystem\n.")
    assert len(str(caught.value)) < 200
