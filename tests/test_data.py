"""What all readers share: the registry, the data set they return, lazy stacks, the digits."""

import pickle
from functools import partial

import numpy as np
import pytest

from dynal_fast.data import (
    READERS,
    SOURCES,
    DatasetNotFoundError,
    ImageDataset,
    LazyStack,
    load,
)
from dynal_fast.data.dataset import channel_statistics, dataset_in_memory
from dynal_fast.data.idx import MNIST
from dynal_fast.data.image_folder import split_per_class


def toy(**changes):
    fields = {
        "name": "toy",
        "train_images": np.zeros((4, 3, 2, 2), np.uint8),
        "train_labels": np.array([0, 1, 1, 0]),
        "test_images": np.zeros((1, 3, 2, 2), np.uint8),
        "test_labels": np.array([1]),
        "class_names": ("a", "b"),
        "mean": np.zeros(3, np.float32),
        "std": np.ones(3, np.float32),
        "provenance": "made up",
    }
    return ImageDataset(**{**fields, **changes})


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"cifar10, .*svhn, got 'imagenet'"):
        load("imagenet")


def test_unknown_option_is_refused_with_the_ones_that_exist(tmp_path):
    with pytest.raises(ValueError, match=r"mnist does not take image_size; its options: verify"):
        load("mnist", tmp_path, image_size=(32, 32))
    with pytest.raises(ValueError, match=r"digits does not take verify; its options: none"):
        load("digits", verify=True)


def test_missing_root_is_an_error():
    with pytest.raises(ValueError, match=f"mnist needs root.* get it from {MNIST.home} and"):
        load("mnist")
    with pytest.raises(ValueError, match=r"image-folder needs root: the folder that holds it\.$"):
        load("image-folder")


def test_root_that_is_no_folder_is_an_error(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=f"nowhere is none.* get it from {MNIST.home}"):
        load("mnist", tmp_path / "nowhere")


def test_every_data_set_of_its_own_files_has_a_home():
    assert SOURCES.keys() == READERS.keys() - {"digits", "image-folder"}
    assert all(source.home.startswith("http") for source in SOURCES.values())


@pytest.mark.parametrize("name", sorted(set(READERS) - {"digits", "image-folder"}))
def test_missing_files_are_named_with_where_they_were_looked_for_and_where_to_get_them(
    name, tmp_path
):
    with pytest.raises(DatasetNotFoundError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert " is missing" in message
    assert str(tmp_path) in message
    assert "http" in message
    assert "othing is downloaded" in message


@pytest.mark.parametrize("where", ["elsewhere", "nowhere"])
def test_digits_are_the_same_where_their_file_is_not_found(monkeypatch, tmp_path, where):
    """Read by scikit-learn then, whose import takes seconds."""
    from types import SimpleNamespace

    from dynal_fast.data import digits

    known = digits.read_digits()
    spec = SimpleNamespace(origin=str(tmp_path / "sklearn" / "__init__.py"))
    monkeypatch.setattr(digits, "find_spec", lambda name: spec if where == "elsewhere" else None)
    other = digits.read_digits()
    for name in ("train_images", "train_labels", "test_images", "test_labels", "mean", "std"):
        assert np.array_equal(getattr(known, name), getattr(other, name))
        assert getattr(known, name).dtype == getattr(other, name).dtype


def test_digits_have_a_fixed_split_that_covers_the_set_once():
    from sklearn.datasets import load_digits

    digits = load("digits")
    assert digits.train_labels.shape == (1297,)
    assert digits.class_names == tuple("0123456789")
    together = np.concatenate([digits.train_images, digits.test_images]).reshape(1797, 64)
    expected = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert np.array_equal(np.unique(together, axis=0), np.unique(expected, axis=0))
    assert np.array_equal(digits.test_labels, load("digits").test_labels)
    assert digits.train_labels[:5].tolist() == [9, 1, 5, 2, 2]  # on every machine


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 3, 4, 7), (4097, 2, 3, 3)])
def test_channel_statistics_equal_those_of_the_float64_images(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-6)
    expected = scaled.std((0, 2, 3))
    expected[expected == 0] = 1
    np.testing.assert_allclose(std, expected, rtol=1e-6)
    assert mean.dtype == std.dtype == np.float32


def test_dataset_in_memory_takes_statistics_from_the_training_images_alone():
    train = np.full((2, 1, 2, 2), 255, np.uint8)
    test = np.zeros((1, 1, 2, 2), np.uint8)
    dataset = dataset_in_memory("toy", (train, np.array([0, 0])), (test, np.array([0])), "a", "")
    assert dataset.mean.tolist() == [1]
    assert dataset.std.tolist() == [1]
    assert dataset.num_classes == 1
    assert dataset.image_shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((4, 3, 2, 2), np.float32)}, "train_images must be uint8"),
        ({"test_images": np.zeros((1, 2, 2), np.uint8)}, r"test_images must be .*got uint8 \(1, 2"),
        ({"train_labels": np.array([0, 1])}, "4 train_images but 2 train_labels"),
        ({"test_labels": np.array([1], np.int32)}, "test_labels must be int64"),
        ({"train_labels": np.array([0, 1, 2, 0])}, r"in \[0, 2\), got 0 to 2"),
        ({"train_labels": np.array([0, -1, 1, 0])}, "got -1 to 1"),
        ({"test_images": np.zeros((1, 3, 2, 3), np.uint8)}, "test_images \\(3, 2, 3\\)"),
        ({"mean": np.zeros(1, np.float32)}, r"mean must be \(3,\), got \(1,\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    toy()
    with pytest.raises(ValueError, match=message):
        toy(**changes)


def decode_stem(path, offset):
    return np.full((1, 2, 2), int(path.stem) + offset, np.uint8)


@pytest.fixture
def stack(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    return LazyStack(paths, partial(decode_stem, offset=10), (1, 2, 2))


@pytest.mark.parametrize(
    "ids",
    [
        0,
        -1,
        np.int64(3),
        slice(1, 4),
        slice(None),
        [4, 0, 0],
        np.array([2, 1]),
        [],
        np.arange(5) > 2,
    ],
)
def test_lazy_stack_indexes_like_the_array_of_its_items(stack, ids):
    array = np.stack([np.full((1, 2, 2), i + 10, np.uint8) for i in range(5)])
    ids_of_array = np.array(ids, int) if isinstance(ids, list) else ids
    assert np.array_equal(stack[ids], array[ids_of_array])
    assert stack[ids].shape == array[ids_of_array].shape
    assert (stack.shape, stack.ndim, stack.dtype, len(stack)) == (array.shape, 4, array.dtype, 5)


def test_lazy_stack_decodes_only_what_is_asked_for(tmp_path):
    decoded = []

    def decode(path):
        decoded.append(path.name)
        return np.zeros((1, 2, 2), np.uint8)

    stack = LazyStack([tmp_path / name for name in "abc"], decode, (1, 2, 2))
    assert decoded == []
    stack[[2, 0]]
    assert decoded == ["c", "a"]


def test_lazy_stack_out_of_range_raises(stack):
    with pytest.raises(IndexError):
        stack[5]
    with pytest.raises(IndexError):
        stack[[0, 5]]


def test_lazy_stack_survives_pickling_as_data_loading_workers_need(stack):
    assert np.array_equal(pickle.loads(pickle.dumps(stack))[3], stack[3])


def test_lazy_stack_refuses_an_item_of_another_shape(tmp_path):
    stack = LazyStack([tmp_path / "7.png"], partial(decode_stem, offset=0), (1, 3, 3))
    with pytest.raises(ValueError, match=r"7.png decodes to uint8 \(1, 2, 2\), expected"):
        stack[0]


def test_split_per_class_keeps_the_share_of_every_class_and_every_position_once():
    labels = np.repeat([0, 1, 2], [10, 31, 1])
    train, test = split_per_class(labels)
    assert np.bincount(labels[train], minlength=3).tolist() == [9, 27, 0]
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(42))
    assert np.array_equal(train, split_per_class(labels)[0])
    assert not np.array_equal(train, split_per_class(labels, seed=1)[0])
