"""CIFAR's format as Python 2 wrote it, and pickles that must never be obeyed."""

import dataclasses
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, DatasetNotFoundError, load
from dynal_fast.data.cifar import CIFAR10, CIFAR100, read_cifar
from dynal_fast.data.cifar_pickle import loads
from dynal_fast.data.source import NOT_CHECKED, VERIFIED, md5

NAMES = {
    CIFAR10.title: [f"class {i}" for i in range(10)],
    CIFAR100.title: [f"fine {i}" for i in range(100)],
}


def python2_pickle(item):
    """Write an object as Python 2's pickle module did with protocol 2, byte strings included."""
    return b"\x80\x02" + opcodes(item) + b"."


def opcodes(item):
    if isinstance(item, bytes):
        if len(item) < 256:
            return b"U" + bytes([len(item)]) + item
        return b"T" + struct.pack("<i", len(item)) + item
    if isinstance(item, int):
        return b"J" + struct.pack("<i", item)
    if isinstance(item, list):
        return b"](" + b"".join(map(opcodes, item)) + b"e"
    if isinstance(item, dict):
        return b"}(" + b"".join(opcodes(key) + opcodes(item[key]) for key in item) + b"u"
    assert isinstance(item, np.ndarray)
    fortran = item.flags.f_contiguous and not item.flags.c_contiguous
    state = b"(K\x03U\x01|NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00t"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR" + state + b"b"
    shape = b"(" + b"".join(map(opcodes, item.shape)) + b"t"
    new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    data = opcodes(item.tobytes(order="F" if fortran else "C"))
    return new + b"(K\x01" + shape + dtype + (b"\x88" if fortran else b"\x89") + data + b"tb"


def batch(source, rows, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(NAMES[source.title]), rows).tolist()
    content = {
        b"batch_label": b"a batch",
        source.labels_key: labels,
        b"data": random.integers(0, 256, (rows, 3072), dtype=np.uint8),
        b"filenames": [f"{i}.png".encode() for i in range(rows)],
    }
    return {**content, b"coarse_labels": labels} if source is CIFAR100 else content


def batches(source):
    content = {
        name: batch(source, 4, seed) for seed, name in enumerate([*source.train, *source.test])
    }
    (meta,) = source.meta
    return {**content, meta: {source.names_key: [name.encode() for name in NAMES[source.title]]}}


def files(source, write=python2_pickle):
    return {name: write(item) for name, item in batches(source).items()}


def write_folder(root, source, contents):
    folder = root / source.folder
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def write_archive(root, source, contents, prefix=""):
    root.mkdir(exist_ok=True)
    with tarfile.open(root / source.archive, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{prefix}{source.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def check(dataset, source):
    expected = batches(source)
    for split, names in (("train", source.train), ("test", source.test)):
        images = np.concatenate([expected[name][b"data"] for name in names])
        labels = np.concatenate([expected[name][source.labels_key] for name in names])
        # A row is 1,024 red, 1,024 green, 1,024 blue values, each plane row by row.
        read = getattr(dataset, f"{split}_images")
        assert np.array_equal(read, images.reshape(-1, 3, 32, 32))
        assert np.array_equal(getattr(dataset, f"{split}_labels"), labels)
        assert read.flags.writeable
    assert dataset.class_names == tuple(NAMES[source.title])


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100], ids=lambda source: source.title)
def test_reads_the_folder_and_the_archive(tmp_path, source):
    name = source.title.lower().replace("-", "")
    write_folder(tmp_path / "a", source, files(source))
    write_archive(tmp_path / "b", source, files(source))
    write_archive(tmp_path / "c", source, files(source), prefix="./")
    for folder in "abc":
        dataset = load(name, tmp_path / folder, verify=False)
        check(dataset, source)
        assert (dataset.name, dataset.provenance) == (source.title, NOT_CHECKED)


@pytest.mark.parametrize("protocol", [2, 3])
def test_reads_batches_rewritten_by_python_3(tmp_path, protocol):
    contents = files(CIFAR10, lambda item: pickle.dumps(item, protocol=protocol))
    write_folder(tmp_path, CIFAR10, contents)
    check(load("cifar10", tmp_path, verify=False), CIFAR10)


def test_arrays_in_column_order_are_read(tmp_path):
    array = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert np.array_equal(loads(python2_pickle(array)), array)
    assert np.array_equal(loads(pickle.dumps(array, protocol=2)), array)


def test_official_checksums_are_verified_in_the_folder(tmp_path):
    contents = files(CIFAR10)
    write_folder(tmp_path, CIFAR10, contents)

    def official(names):
        return {name: md5(contents[name]) for name in names}

    source = dataclasses.replace(
        CIFAR10,
        train=official(CIFAR10.train),
        test=official(CIFAR10.test),
        meta=official(CIFAR10.meta),
    )
    assert read_cifar(source, tmp_path, verify=True).provenance == VERIFIED
    path = tmp_path / CIFAR10.folder / "data_batch_3"
    path.write_bytes(contents["data_batch_2"])
    with pytest.raises(DatasetCorruptError, match=r"data_batch_3 has MD5 .*official one is"):
        read_cifar(source, tmp_path, verify=True)


def test_the_official_checksum_is_verified_for_the_archive(tmp_path):
    write_archive(tmp_path, CIFAR10, files(CIFAR10))
    source = dataclasses.replace(CIFAR10, archive_md5=md5(tmp_path / CIFAR10.archive))
    assert read_cifar(source, tmp_path, verify=True).provenance == VERIFIED
    with pytest.raises(DatasetCorruptError, match=r"tar.gz has MD5"):
        load("cifar10", tmp_path)


def test_a_truncated_archive_is_refused(tmp_path):
    write_archive(tmp_path, CIFAR10, files(CIFAR10))
    path = tmp_path / CIFAR10.archive
    whole = path.read_bytes()
    for keep in (0, 5, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:keep])
        with pytest.raises(DatasetCorruptError, match=r"does not unpack|is missing from"):
            load("cifar10", tmp_path, verify=False)


def test_an_archive_or_folder_without_a_batch_is_refused(tmp_path):
    contents = files(CIFAR10)
    del contents["data_batch_4"]
    write_archive(tmp_path / "a", CIFAR10, contents)
    with pytest.raises(DatasetCorruptError, match=r"data_batch_4 is missing from.*kriz/cifar"):
        load("cifar10", tmp_path / "a", verify=False)
    write_folder(tmp_path / "b", CIFAR10, contents)
    with pytest.raises(DatasetCorruptError, match=r"data_batch_4 is missing from.*kriz/cifar"):
        load("cifar10", tmp_path / "b", verify=False)


def test_neither_folder_nor_archive_is_an_error_that_names_both(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"cifar-100-python or cifar-100-python.tar.gz"):
        load("cifar100", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop(b"labels"), "no list 'labels'"),
        (lambda b: b.pop(b"data"), r"data of data_batch_2 should be \(4, 3072\), got NoneType"),
        (lambda b: b.update({b"data": b[b"data"][:3]}), r"got \(3, 3072\)"),
        (lambda b: b.update({b"labels": [0, 1, 2, 10]}), r"in \[0, 10\), got 0 to 10"),
    ],
)
def test_batches_that_do_not_fit_are_refused(tmp_path, change, message):
    content = {**batches(CIFAR10)}
    for name in CIFAR10.train:
        content[name][b"labels"] = [0, 1, 2, 3]
    for name in CIFAR10.test:
        content[name][b"labels"] = [0, 1, 2, 3]
    change(content["data_batch_2"])
    write_folder(tmp_path, CIFAR10, {name: python2_pickle(item) for name, item in content.items()})
    with pytest.raises(DatasetCorruptError, match=message):
        load("cifar10", tmp_path, verify=False)


def test_a_batch_that_is_no_dictionary_is_refused(tmp_path):
    write_folder(tmp_path, CIFAR10, {**files(CIFAR10), "test_batch": python2_pickle([1])})
    with pytest.raises(DatasetCorruptError, match="test_batch holds a list, no dict"):
        load("cifar10", tmp_path, verify=False)


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_batch_is_refused_and_nothing_runs(tmp_path, protocol):
    proof = tmp_path / "was here"
    attack = pickle.dumps({b"data": Calls(os.system, f"touch '{proof}'")}, protocol=protocol)
    write_folder(tmp_path, CIFAR10, {**files(CIFAR10), "data_batch_1": attack})
    with pytest.raises(DatasetCorruptError, match=r"data_batch_1 is refused: .*may not name"):
        load("cifar10", tmp_path, verify=False)
    assert not proof.exists()
    pickle.loads(attack)  # the attack is real: pickle itself obeys it
    assert proof.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(eval),
        pickle.dumps(Calls(eval, "1 + 1"), protocol=2),
        pickle.dumps(Calls(getattr, "text", "upper")),
        pickle.dumps(np.float64(1)),
        pickle.dumps(np.arange(3)),  # int64, or NumPy's _frombuffer
        pickle.dumps(np.arange(3), protocol=2),
        pickle.dumps(np.array([{}, os], object)[:1], protocol=2),
        pickle.dumps(np.zeros(2, "V1"), protocol=2),
        pickle.dumps(Calls(np.load, "x.npy"), protocol=2),
        pickle.dumps(np.ma.masked_array([1]), protocol=2),
        b"cnumpy\ndtype\n(Vf8\ntR.",
        b"c_codecs\nencode\n(Vtext\nVzip\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tVb\ntR.",
        b"\x80\x02Pname\n.",  # a persistent id
        python2_pickle(np.zeros(300, np.uint8)).replace(b"J\x2c\x01\x00\x00", b"J\x2d\x01\x00\x00"),
    ],
)
def test_anything_but_plain_data_is_refused(content):
    with pytest.raises(pickle.UnpicklingError):
        loads(content)


def test_every_truncation_is_refused():
    content = python2_pickle(batch(CIFAR10, 1, 0))
    for keep in [*range(60), *range(60, len(content), 97), len(content) - 1]:
        with pytest.raises(pickle.UnpicklingError):
            loads(content[:keep])
