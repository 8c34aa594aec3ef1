"""Folders of images, Caltech-101 among them, that the tests write."""

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, DatasetNotFoundError, load

Image = pytest.importorskip("PIL.Image")


def pixels(seed, height=6, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for split, count in (("train", 2), ("val", 1)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                save(root / split / name / f"{i}.png", pixels(10 * label + i))
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    (root / "train" / ".cache").mkdir()
    return root


def test_image_folder_reads_classes_in_order_and_pixels_exactly(photos):
    dataset = load("image-folder", photos, image_size=(6, 8))
    assert dataset.name == "photos"
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train_labels.tolist() == [0, 0, 1, 1]
    assert dataset.test_labels.tolist() == [0, 1]
    expected = np.stack([pixels(seed) for seed in (0, 1, 10, 11)]).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.train_images[:], expected)
    assert dataset.image_shape == (3, 6, 8)


def test_image_folder_scales_to_the_size_asked_for(photos):
    flat = np.full((40, 20, 3), [10, 200, 30], np.uint8)
    save(photos / "train" / "cat" / "0.png", flat)
    dataset = load("image-folder", photos, image_size=(5, 7))
    assert np.array_equal(
        dataset.train_images[0], np.broadcast_to(flat[0, 0, :, None, None], (3, 5, 7))
    )


def test_grey_palette_and_transparent_images_become_rgb(photos):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(grey).save(photos / "train" / "cat" / "0.png")
    transparent = np.dstack([pixels(5), np.full((6, 8), 128, np.uint8)])
    Image.fromarray(transparent, "RGBA").save(photos / "train" / "cat" / "1.png")
    dataset = load("image-folder", photos, image_size=(6, 8))
    assert np.array_equal(dataset.train_images[0], np.stack([grey] * 3))
    assert np.array_equal(dataset.train_images[1], pixels(5).transpose(2, 0, 1))


def test_without_a_train_folder_a_fixed_tenth_of_each_class_is_for_the_test(tmp_path):
    for name, count in (("a", 10), ("b", 20)):
        for i in range(count):
            save(tmp_path / name / f"{i:02}.png", pixels(i))
    dataset = load("image-folder", tmp_path, image_size=(6, 8))
    assert np.bincount(dataset.train_labels).tolist() == [9, 18]
    assert np.bincount(dataset.test_labels).tolist() == [1, 2]
    assert not set(dataset.train_images.paths) & set(dataset.test_images.paths)
    assert "a tenth of each class" in dataset.provenance


def test_image_folder_errors_say_what_is_wrong(tmp_path, photos):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetNotFoundError, match="empty holds no class folders"):
        load("image-folder", empty)
    (photos / "val" / "cat").rename(photos / "val" / "cow")
    with pytest.raises(DatasetCorruptError, match=r"classes of train and val differ: .*'cow'"):
        load("image-folder", photos)
    (photos / "val").rename(photos / "holdout")
    with pytest.raises(DatasetNotFoundError, match="none of test, val"):
        load("image-folder", photos)
    (photos / "train" / "bird").mkdir()
    (photos / "holdout").rename(photos / "test")
    with pytest.raises(DatasetNotFoundError, match="bird holds no images"):
        load("image-folder", photos)


@pytest.mark.parametrize("size", [32, (32,), (32, 0), (32.0, 32)])
@pytest.mark.parametrize("name", ["image-folder", "caltech101", "cityscapes"])
def test_an_image_size_that_is_no_pair_of_pixels_is_refused(photos, name, size):
    with pytest.raises(ValueError, match=r"image_size must be \(height, width\) in pixels, got"):
        load(name, photos, image_size=size)


def test_a_folder_can_be_given_a_name(photos):
    assert load("image-folder", photos, title="Pets").name == "Pets"


@pytest.mark.parametrize("damage", [lambda content: b"no image", lambda content: content[:60]])
def test_an_image_that_cannot_be_decoded_is_named(photos, damage):
    path = photos / "train" / "dog" / "1.png"
    path.write_bytes(damage(path.read_bytes()))
    dataset = load("image-folder", photos, image_size=(6, 8))
    dataset.train_images[:3]
    with pytest.raises(DatasetCorruptError, match=r"dog/1.png is not a readable image"):
        dataset.train_images[3]


def test_caltech101_leaves_the_background_out_and_cuts_the_centre(tmp_path):
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    for name in ("Faces", "ant", "BACKGROUND_Google"):
        for i in range(10):
            save(folder / name / f"image_{i + 1:04}.jpg", pixels(i, 16, 32))
    dataset = load("caltech101", tmp_path, image_size=(14, 14))
    assert dataset.class_names == ("Faces", "ant")
    assert dataset.provenance.startswith("not verified: official checksums, where there are any,")
    assert np.bincount(dataset.train_labels).tolist() == [9, 9]
    image = Image.open(dataset.train_images.paths[0]).resize((16, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(image)[1:15, 1:15].transpose(2, 0, 1)
    assert np.array_equal(dataset.train_images[0], expected)


def test_caltech101_says_what_to_do_about_what_is_missing(tmp_path):
    (tmp_path / "caltech-101.zip").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=r"caltech-101\.zip is there: unpack it\.$"):
        load("caltech101", tmp_path)
    (tmp_path / "101_ObjectCategories.tar.gz").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=r"tar\.gz is there: unpack it\.$"):
        load("caltech101", tmp_path)
    (tmp_path / "101_ObjectCategories" / "ant").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=r"ant holds no images .*https://data\.caltech"):
        load("caltech101", tmp_path)
