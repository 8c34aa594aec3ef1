"""Cityscapes as the tests write it, and the official label ids."""

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, DatasetNotFoundError, load
from dynal_fast.data.cityscapes import CLASSES, TRAIN_IDS

Image = pytest.importorskip("PIL.Image")


def pixels(seed, height=6, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_the_label_ids_are_those_of_the_official_scripts():
    official = {
        "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
        "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
        "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31,
        "motorcycle": 32, "bicycle": 33,
    }  # fmt: skip
    assert {name: label for label, name in CLASSES.items()} == official
    assert [TRAIN_IDS[label] for label in official.values()] == list(range(19))
    assert (TRAIN_IDS == 255).sum() == 256 - 19


@pytest.fixture
def streets(tmp_path):
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau")):
        stem = f"{city}_000000_000019"
        image = tmp_path / "cityscapes" / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        save(image, pixels(len(city), 4, 8))
        labels = np.arange(32, dtype=np.uint8).reshape(4, 8) + len(split)
        save(tmp_path / "cityscapes/gtFine" / split / city / f"{stem}_gtFine_labelIds.png", labels)
    return tmp_path


def test_cityscapes_pairs_images_with_train_ids(streets):
    dataset = load("cityscapes", streets, image_size=(4, 8))
    assert dataset.num_classes == 19
    assert dataset.train_images.shape == (2, 3, 4, 8)
    assert dataset.train_labels.shape == (2, 4, 8)
    assert dataset.test_labels.shape == (1, 4, 8)
    assert np.array_equal(dataset.train_images[0], pixels(6, 4, 8).transpose(2, 0, 1))
    assert np.array_equal(dataset.test_labels[0].ravel(), TRAIN_IDS[np.arange(3, 35)])


def test_cityscapes_label_maps_are_scaled_to_the_nearest_never_mixed(streets):
    dataset = load("cityscapes", streets, image_size=(2, 4))
    whole = TRAIN_IDS[np.arange(5, 37)].reshape(4, 8)
    assert dataset.train_labels.shape == (2, 2, 4)
    assert set(dataset.train_labels[0].ravel()) <= set(whole.ravel())


def test_cityscapes_without_a_label_map_is_an_error_that_names_it(streets):
    (missing,) = streets.glob("cityscapes/gtFine/train/bochum/*")
    missing.unlink()
    with pytest.raises(DatasetNotFoundError, match=rf"{missing.name} is missing.*gtFine_trainval"):
        load("cityscapes", streets)


def test_a_coloured_label_map_is_refused(streets):
    (path,) = streets.glob("cityscapes/gtFine/train/bochum/*")
    save(path, pixels(0, 4, 8))
    with pytest.raises(DatasetCorruptError, match="expected one channel of 8 bits"):
        load("cityscapes", streets, image_size=(4, 8)).train_labels[1]
