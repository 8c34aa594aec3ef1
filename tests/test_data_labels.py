"""Labels and numbers that must not be rounded, wrapped or run away, wherever they come from."""

import math
import pickle
import re

import numpy as np
import pytest
import torch

from dynal_fast.cli import main
from dynal_fast.data import DatasetCorruptError, load
from dynal_fast.data.augment import random_crop
from dynal_fast.data.cifar import CIFAR10
from dynal_fast.data.image_folder import split_per_class
from dynal_fast.data.inflate import MAX_ENTRIES, inflate, original_pool
from dynal_fast.data.labels import class_labels
from dynal_fast.experiment.config import Protocol, RunConfig
from dynal_fast.experiment.data import ExperimentData, load_data
from tests.test_data_cifar import batches, write_folder
from tests.test_data_svhn import write_mat

NAN, INFINITY = float("nan"), float("inf")
BAD_LABELS = {
    "fraction": ([0, 1.9], "whole numbers, got 1.9"),
    "NaN": ([0, NAN], "whole numbers, got nan"),
    "infinity": ([0, INFINITY], "whole numbers, got inf"),
    "beyond": ([0, 10], r"in \[0, 10\), got 0 to 10"),
    "whole float beyond": ([0.0, 1e300], r"got 0.0 to 1e\+300"),
    "negative": ([-1, 0], "got -1 to 0"),
    "bool": ([True, False], "got a bool"),
    "text": (["3"], "got a str"),
    "bytes": ([b"3"], "got a bytes"),
    "none": ([None], "got a NoneType"),
    "list": ([[1]], "got a list"),
    "huge": ([2**64], r"got one of 2\^63 or more"),
    "huge beside a fraction": ([2**5000, 0.5], r"got one of 2\^63 or more"),
}
BAD_ARRAYS = {
    "wraps": (np.array([2**64 - 1], np.uint64), "got 18446744073709551615"),
    "bools": (np.array([True]), r"whole numbers \(n,\), got bool \(1,\)"),
    "texts": (np.array(["3"]), "got <U1"),
    "objects": (np.array([1], object), "got object"),
    "complex": (np.array([1j]), "got complex128"),
    "times": (np.array([1], "m8[s]"), "got timedelta64"),
    "matrix": (np.array([[1]]), r"got int64 \(1, 1\)"),
    "halves": (np.array([0.5], np.float16), "got 0.5"),
}


@pytest.mark.parametrize(
    ("labels", "message"),
    [*BAD_LABELS.values(), *BAD_ARRAYS.values()],
    ids=[*BAD_LABELS, *BAD_ARRAYS],
)
def test_what_is_no_label_is_refused(labels, message):
    with pytest.raises(DatasetCorruptError, match=f"y should .*{message}"):
        class_labels(labels, 0, 10, "y")


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u4", "i8", "u8", "f2", "f4", ">f8"])
def test_whole_numbers_of_every_kind_are_labels(dtype):
    labels = class_labels(np.array([9, 0, 3], dtype), 0, 10, "y")
    assert (labels.dtype, labels.tolist()) == (np.int64, [9, 0, 3])
    assert class_labels([], 0, 10, "y").shape == (0,)


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_cifar_refuses_them_by_file(tmp_path, labels, message):
    content = batches(CIFAR10)
    wrong = content["data_batch_2"]
    wrong[b"labels"] = labels
    wrong[b"data"] = wrong[b"data"][: len(labels)]
    write_folder(
        tmp_path, CIFAR10, {name: pickle.dumps(item, protocol=2) for name, item in content.items()}
    )
    with pytest.raises(DatasetCorruptError, match=rf"data_batch_2 .*(a list holds|{message})"):
        load("cifar10", tmp_path, verify=False)


def test_svhn_takes_whole_floats_as_matlab_writes_them_and_no_others(tmp_path):
    images = np.zeros((3, 3, 32, 32), np.uint8)
    for name in ("train", "test"):
        write_mat(tmp_path / f"{name}_32x32.mat", images, np.array([1.0, 10.0, 2.0]))
    assert load("svhn", tmp_path, verify=False).test_labels.tolist() == [1, 0, 2]
    for label, message in ((1.9, "got 1.9"), (NAN, "got nan"), (11.0, "got 1.0 to 11.0")):
        write_mat(tmp_path / "test_32x32.mat", images, np.array([1.0, 10.0, label]))
        with pytest.raises(DatasetCorruptError, match=f"y of .*test_32x32.mat should .*{message}"):
            load("svhn", tmp_path, verify=False)


class Items:
    """A map-style data set without an attribute that lists its labels."""

    def __init__(self, labels):
        self.hidden = labels

    def __len__(self):
        return len(self.hidden)

    def __getitem__(self, i):
        return torch.zeros(2), self.hidden[i]


class Targets(Items):
    def __init__(self, labels):
        super().__init__(labels)
        self.targets = labels


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1.9],
        [0, NAN],
        [True, False],
        ["0", "1"],
        [None, 1],
        [0, 2**70],
        [0, -1],
        [0, 1j],
        [[0], 1],
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [Items, Targets])
def test_data_sets_with_labels_that_are_no_integers_are_refused(kind, labels):
    good = kind([0, 1])
    for pair in ((kind(labels), good), (good, kind(labels))):
        with pytest.raises(ValueError, match=r"integer|must be in 0 \.\."):
            ExperimentData.from_datasets(*pair)


@pytest.mark.parametrize(
    "labels", [[np.int64(1), 0], [torch.tensor(1), torch.tensor([0])], [np.array(1), np.uint8(0)]]
)
def test_data_sets_may_give_labels_as_any_integer(labels):
    data = ExperimentData.from_datasets(Items(labels), Items([0, 1]))
    assert data.oracle.label(torch.arange(2)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 1.9]), "one integer .*float32"),
        (torch.tensor([0.0, NAN]), "one integer .*float32"),
        (torch.tensor([True, False]), "one integer .*bool"),
        (torch.tensor([0, 1j]), "one integer .*complex"),
        (torch.tensor([0, -100]), "in 0 .. 1, got -100 to 0"),
        (torch.tensor([0, 2**63], dtype=torch.uint64), "got -9223372036854775808 to 0"),
        (torch.tensor([], dtype=torch.int64), "at least one, got torch.int64 of shape"),
    ],
)
def test_tensors_that_hold_no_labels_are_refused(labels, message):
    inputs, good = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=f"^labels must .*{message}"):
        ExperimentData.from_tensors(inputs[: len(labels)], labels, inputs, good)
    with pytest.raises(ValueError, match=f"^test_labels must .*{message}"):
        ExperimentData.from_tensors(inputs, good, inputs[: len(labels)], labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint64])
def test_tensors_of_any_integer_hold_labels(dtype):
    labels = torch.tensor([2, 0], dtype=dtype)
    data = ExperimentData.from_tensors(torch.zeros(2, 3), labels, torch.zeros(2, 3), labels)
    assert data.num_classes == 3
    assert data.oracle.label(torch.arange(2)).tolist() == [2, 0]


FACTORS = {
    "inf": INFINITY,
    "-inf": -INFINITY,
    "nan": NAN,
    "0": 0.0,
    "-1": -1.0,
    "1e300": 1e300,
    "1001": 1001.0,
}


@pytest.mark.parametrize(("text", "factor"), FACTORS.items())
def test_pool_factors_that_make_no_pool_are_refused_in_one_line(tmp_path, capsys, text, factor):
    expected = "positive and at most 1000" if math.isfinite(factor) else "a finite number"
    message = f"pool_factor must be {expected}, got {factor}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Protocol(pool_factor=factor)
    with pytest.raises(ValueError, match=re.escape(message)):
        RunConfig.from_mapping({"protocol": {"pool_factor": factor}})
    config = tmp_path / "run.toml"
    config.write_text(f"[protocol]\npool_factor = {text if text != '0' else '0.0'}\n")
    for arguments in (["--pool-factor", text], [f"--pool-factor={text}"], [str(config)]):
        if text.startswith("-") and arguments[0] == "--pool-factor":
            continue  # argparse takes it for an option
        assert main(["run", "-o", str(tmp_path / "out"), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("dynal-fast: error: ")
        assert f"pool_factor must be {expected}, got " in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (INFINITY, ValueError, "positive and finite, got inf"),
        (NAN, ValueError, "positive and finite, got nan"),
        (1e-9, ValueError, "lead to 1 to 1,073,741,824 entries, got 1e-09 times 3"),
        (1e300, ValueError, r"entries, got 1e\+300 times 3"),
        (MAX_ENTRIES, ValueError, "entries, got 1073741824 times 3"),
        ("3", TypeError, "factor must be a number, got '3'"),
        (True, TypeError, "got True"),
        (None, TypeError, "got None"),
    ],
)
def test_factors_of_inflate_are_checked(factor, error, message):
    with pytest.raises(error, match=message):
        inflate(original_pool(3), factor, torch.Generator())


@pytest.mark.parametrize("size", [(True, True), (10**9, 10**9), (1, 10**18), ("8", "8"), (-1, 8)])
@pytest.mark.parametrize("name", ["image-folder", "caltech101", "cityscapes"])
def test_image_sizes_beyond_reason_are_refused(tmp_path, name, size):
    with pytest.raises(ValueError, match="image_size must"):
        load(name, tmp_path, image_size=size)


@pytest.mark.parametrize(
    ("padding", "error", "message"),
    [
        (1.5, TypeError, "number of pixels, got 1.5"),
        (True, TypeError, "got True"),
        (-1, ValueError, "at least 1, got -1"),
        (6, ValueError, "at most the shorter side of images of 8x5, got 6"),
        (10**12, ValueError, "got 1000000000000"),
    ],
)
def test_paddings_that_leave_nothing_of_an_image_are_refused(padding, error, message):
    with pytest.raises(error, match=message):
        random_crop(torch.zeros(2, 3, 8, 5), padding, torch.Generator())


@pytest.mark.parametrize("share", [0, -1, 1.5, NAN, INFINITY, 1e-9])
def test_shares_of_a_data_set_are_checked(share):
    with pytest.raises(ValueError, match="share must"):
        load_data("digits", share=share)


@pytest.mark.parametrize("share", [-0.1, 1.1, NAN])
def test_shares_to_train_on_are_checked(share):
    with pytest.raises(ValueError, match=r"train_share must be in \[0, 1\]"):
        split_per_class(np.zeros(4, np.int64), share)
