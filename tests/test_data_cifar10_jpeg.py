"""CIFAR-10 as JPEG: folder and archive, the cache, and the real set where it is present."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, load
from dynal_fast.data.cifar10_jpeg import CLASS_NAMES
from dynal_fast.data.source import NOT_CHECKED

Image = pytest.importorskip("PIL.Image")
REAL = Path(os.environ.get("DYNAL_FAST_DATA", Path(__file__).parents[1] / "../shared/data"))


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=75)
    return stream.getvalue()


@pytest.fixture
def jpegs():
    """Two training images and one test image of each class, in no order."""
    names = [
        f"{split}/{name}/{i:04}.jpg"
        for split, count in (("train", 2), ("test", 1))
        for name in CLASS_NAMES
        for i in range(count)
    ]
    order = np.random.default_rng(0).permutation(len(names))
    return {names[i]: jpeg(i) for i in order}


def write_tree(root, contents):
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_tar(path, contents, mode="w:xz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_cifar10_jpeg_reads_folder_and_archive_alike(tmp_path, jpegs):
    write_tree(tmp_path / "tree" / "cifar10-jpeg", jpegs)
    write_tar(tmp_path / "tar" / "cifar10-jpeg" / "cifar10_jpegs.tar.xz", jpegs)
    nested = {f"CIFAR-10-images/{name}": content for name, content in jpegs.items()}
    write_tree(tmp_path / "clone", nested)
    for folder in ("tree", "tar", "clone"):
        dataset = load("cifar10-jpeg", tmp_path / folder, verify=False)
        assert dataset.name == "CIFAR-10 (JPEG q75)"
        assert dataset.provenance == NOT_CHECKED
        assert dataset.train_labels.tolist() == np.repeat(np.arange(10), 2).tolist()
        assert dataset.test_labels.tolist() == list(range(10))
        for position, name in ((0, "train/airplane/0000.jpg"), (5, "train/bird/0001.jpg")):
            image = np.asarray(Image.open(io.BytesIO(jpegs[name])))
            assert np.array_equal(dataset.train_images[position], image.transpose(2, 0, 1))


def test_cifar10_jpeg_checks_the_number_of_images_per_class(tmp_path, jpegs):
    write_tar(tmp_path / "cifar10_jpegs.tar.xz", jpegs)
    with pytest.raises(
        DatasetCorruptError, match=r"has 2 images in train/airplane, expected 5000.*https://github"
    ):
        load("cifar10-jpeg", tmp_path)


def test_cifar10_jpeg_refuses_damaged_archives_images_and_strange_classes(tmp_path, jpegs):
    path = tmp_path / "cifar10_jpegs.tar.xz"
    write_tar(path, jpegs)
    whole = path.read_bytes()
    for keep in (0, 30, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:keep])
        with pytest.raises(DatasetCorruptError, match="does not unpack"):
            load("cifar10-jpeg", tmp_path, verify=False)
    write_tar(path, {**jpegs, "test/ship/0000.jpg": b"no image"})
    with pytest.raises(DatasetCorruptError, match=r"test/ship/0000.jpg is not a readable image"):
        load("cifar10-jpeg", tmp_path, verify=False)
    write_tar(path, {**jpegs, "train/lion/0000.jpg": jpeg(0)})
    with pytest.raises(DatasetCorruptError, match=r"train/lion/0000.jpg is in no class"):
        load("cifar10-jpeg", tmp_path, verify=False)
    write_tar(path, {name: jpegs[name] for name in jpegs if name.startswith("train")})
    with pytest.raises(DatasetCorruptError, match=r"has no test images.*https://github"):
        load("cifar10-jpeg", tmp_path, verify=False)


def test_decoded_images_are_cached_only_where_asked_and_then_not_decoded_again(
    tmp_path, jpegs, monkeypatch
):
    data, cache = tmp_path / "data", tmp_path / "cache"
    write_tar(data / "cifar10_jpegs.tar.xz", jpegs)
    without = load("cifar10-jpeg", data, verify=False)
    assert not cache.exists()
    first = load("cifar10-jpeg", data, verify=False, cache_dir=str(cache))
    assert [path.name for path in data.iterdir()] == ["cifar10_jpegs.tar.xz"]
    (entry,) = cache.iterdir()
    assert "pillow" in entry.name

    def decode(path):
        raise AssertionError("decoded again")

    monkeypatch.setattr("dynal_fast.data.cifar10_jpeg._decode", decode)
    again = load("cifar10-jpeg", data, verify=False, cache_dir=cache)
    for dataset in (first, again):
        assert np.array_equal(dataset.train_images, without.train_images)
        assert np.array_equal(dataset.test_labels, without.test_labels)
    write_tar(data / "cifar10_jpegs.tar.xz", {**jpegs, "train/dog/0007.jpg": jpeg(99)})
    with pytest.raises(AssertionError, match="decoded again"):
        load("cifar10-jpeg", data, verify=False, cache_dir=cache)


def test_a_changed_file_in_the_folder_is_decoded_again(tmp_path, jpegs):
    write_tree(tmp_path / "data", jpegs)
    load("cifar10-jpeg", tmp_path / "data", verify=False, cache_dir=tmp_path / "cache")
    (tmp_path / "data/train/dog/0000.jpg").write_bytes(jpeg(99))
    changed = load("cifar10-jpeg", tmp_path / "data", verify=False, cache_dir=tmp_path / "cache")
    image = np.asarray(Image.open(io.BytesIO(jpeg(99)))).transpose(2, 0, 1)
    assert np.array_equal(changed.train_images[10], image)


def test_a_cache_interrupted_while_it_is_written_is_never_seen(tmp_path, jpegs, monkeypatch):
    write_tar(tmp_path / "cifar10_jpegs.tar.xz", jpegs)
    save_array = np.save

    def interrupted(file, array, **options):
        if array.ndim == 1:
            raise KeyboardInterrupt
        save_array(file, array, **options)

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10-jpeg", tmp_path, verify=False, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    load("cifar10-jpeg", tmp_path, verify=False, cache_dir=tmp_path / "cache")


def test_a_damaged_cache_is_an_error_that_says_what_to_delete(tmp_path, jpegs):
    write_tar(tmp_path / "cifar10_jpegs.tar.xz", jpegs)
    load("cifar10-jpeg", tmp_path, verify=False, cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / "train_images.npy").write_bytes(b"\x93NUMPY damaged")
    with pytest.raises(DatasetCorruptError, match=f"{entry.name} cannot be read.*delete it"):
        load("cifar10-jpeg", tmp_path, verify=False, cache_dir=tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "cifar10-jpeg").is_dir(), reason=f"no cifar10-jpeg in {REAL}")
def test_the_real_cifar10_jpeg_is_whole():
    dataset = load("cifar10-jpeg", REAL)
    assert dataset.train_images.shape == (50000, 3, 32, 32)
    assert dataset.test_images.shape == (10000, 3, 32, 32)
    # Compression hardly moves the statistics of CIFAR-10 itself.
    assert dataset.mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-3)
    assert dataset.std == pytest.approx([0.2470, 0.2435, 0.2616], abs=3e-3)
