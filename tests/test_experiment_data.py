"""Samples with ids, the oracle, and what they are built from."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dynal_fast.data import ImageInputs, LazyStack, load
from dynal_fast.data.augment import Augmentation
from dynal_fast.experiment import (
    ActiveLearningExperiment,
    ExperimentData,
    Oracle,
    Protocol,
    SampleSet,
    Training,
    load_data,
)
from dynal_fast.experiment.models import model_factory

REAL_DATA = Path(
    os.environ.get("DYNAL_FAST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
)


class Pairs(Dataset):
    """(input, label) items, and nothing else that a data set might have."""

    def __init__(self, inputs, labels):
        self.inputs, self.hidden = inputs, labels

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], int(self.hidden[index])


INPUTS = torch.arange(20.0).reshape(10, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("source", [INPUTS, Pairs(INPUTS, LABELS)], ids=["tensor", "dataset"])
def test_samples_carry_their_ids_in_any_order(source):
    samples = SampleSet(source)
    wanted = torch.tensor([7, 0, 3])
    ids, inputs = samples[wanted]
    assert ids.tolist() == [7, 0, 3]
    assert torch.equal(inputs, INPUTS[wanted])
    batches = list(samples.loader(wanted, batch_size=2))
    assert [ids.tolist() for ids, _ in batches] == [[7, 0], [3]]
    assert torch.equal(torch.cat([inputs for _, inputs in batches]), INPUTS[wanted])


@pytest.mark.parametrize("source", [INPUTS, Pairs(INPUTS, LABELS)], ids=["tensor", "dataset"])
def test_a_plain_shuffled_dataloader_yields_ids(source):
    for ids, inputs in DataLoader(SampleSet(source), batch_size=4, shuffle=True):
        assert torch.equal(inputs, INPUTS[ids])


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    list(SampleSet(INPUTS).loader(torch.arange(10), 3))
    assert torch.equal(torch.rand(4), expected)


def test_datasets_give_their_labels_to_the_oracle():
    class WithTargets(Pairs):
        targets = LABELS.tolist()

        def __getitem__(self, index):
            raise AssertionError("the labels are in targets: no item need be read")

    for train in (Pairs(INPUTS, LABELS), WithTargets(INPUTS, LABELS)):
        built = ExperimentData.from_datasets(train, Pairs(INPUTS, LABELS))
        assert built.num_classes == 3
        assert torch.equal(built.oracle.label(torch.arange(10)), LABELS)


@pytest.mark.parametrize("size", [3, 6, 7, 8])
def test_a_balanced_initial_set_has_equal_numbers_of_every_class(size):
    generator = torch.Generator().manual_seed(size)
    drawn = Oracle(LABELS, 3).initial_set(size, balanced=True, generator=generator)
    counts = LABELS[drawn].bincount(minlength=3)
    assert len(drawn.unique()) == size
    assert counts.max() - counts.min() <= 1


def test_the_initial_set_depends_on_the_generator_alone():
    def draw(seed, balanced):
        return Oracle(LABELS, 3).initial_set(6, balanced, torch.Generator().manual_seed(seed))

    for balanced in (False, True):
        assert torch.equal(draw(1, balanced), draw(1, balanced))
        assert any(not torch.equal(draw(1, balanced), draw(seed, balanced)) for seed in (2, 3, 4))


def test_the_initial_set_cannot_be_larger_than_what_there_is():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="initial must be at most the 10 samples, got 11"):
        Oracle(LABELS, 3).initial_set(11, False, generator)
    with pytest.raises(ValueError, match="asks for 2 samples of class 0, which has 0"):
        Oracle(LABELS[LABELS != 0], 3).initial_set(6, True, generator)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:9], "labels must hold one integer for each of the 10 samples"),
        (LABELS.float(), "got torch.float32 of shape"),
        (LABELS - 1, "labels must be in 0 .. 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        ExperimentData("x", SampleSet(INPUTS), labels, SampleSet(INPUTS), LABELS, 3)


def test_images_are_normalised_batch_by_batch():
    images = load("digits")
    data = ExperimentData.from_images(images)
    ids, inputs = data.samples[torch.arange(len(data.samples))]
    assert inputs.dtype == torch.float32
    assert abs(inputs.mean().item()) < 1e-4
    assert abs(inputs.std(correction=0).item() - 1) < 1e-4
    assert torch.equal(data.oracle.label(ids), torch.from_numpy(images.train_labels))


def test_images_that_are_decoded_when_asked_for_are_gathered_the_same(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.full((1, 2, 2), i, np.uint8))
    stack = LazyStack([tmp_path / f"{i}.npy" for i in range(4)], np.load, (1, 2, 2))
    samples = SampleSet(ImageInputs(stack, mean=0, std=1 / 255))
    assert samples[torch.tensor([3, 1])][1][:, 0, 0, 0].tolist() == [3, 1]
    assert samples[2][1].shape == samples.input_shape == (1, 2, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("tracks", ["cod", "random"])
def test_an_experiment_on_a_device_keeps_its_images_there(tracks):
    data = ExperimentData.from_images(load("digits"), device="cuda")
    ids, inputs = data.samples[torch.arange(5)]
    assert ids.is_cuda
    assert inputs.is_cuda
    training = Training(epochs=2, crop_padding=1, unsupervised="ema")
    protocol = Protocol(initial=50, budget=20, cycles=1)
    experiment = ActiveLearningExperiment(
        data, "cnn", tracks, protocol=protocol, training=training, device="cuda"
    )
    assert experiment.run().labeled == [50, 70]


def test_a_cache_is_refused_where_nothing_is_decoded(tmp_path):
    with pytest.raises(ValueError, match="digits does not take cache_dir"):
        load_data("digits", cache=tmp_path)


def test_label_maps_must_fit_the_images(tmp_path):
    images = load("digits")
    maps = LazyStack([tmp_path] * len(images.train_labels), np.load, (8, 9))
    message = r"labels must be uint8 \(1297, 8, 8\), got uint8 \(1297, 8, 9\)"
    with pytest.raises(ValueError, match=message):
        ExperimentData.from_images(dataclasses.replace(images, train_labels=maps))
    with pytest.raises(ValueError, match=r"model must be one of cnn, .*, got 'drn-d-22'"):
        model_factory("drn-d-22", (3, 32, 32), 19)


def test_only_images_are_augmented():
    augmentation, generator = Augmentation(2), torch.Generator().manual_seed(0)
    samples = ExperimentData.from_images(load("digits")).samples
    ids = torch.arange(20)
    augmented = samples.augmented(ids, augmentation, generator)
    assert augmented.shape == (20, 1, 8, 8)
    assert not torch.equal(augmented, samples[ids][1])
    with pytest.raises(ValueError, match=r"crop_padding and .* need uint8 images .*of Tensor"):
        SampleSet(INPUTS).augmented(ids[:3], augmentation, generator)


@pytest.mark.skipif(
    not (REAL_DATA / "mnist").is_dir(), reason=f"MNIST is not in {REAL_DATA}; set DYNAL_FAST_DATA"
)
def test_the_real_mnist_loads_by_name():
    mnist = load_data("mnist", REAL_DATA)
    assert (len(mnist.samples), len(mnist.test_samples)) == (60000, 10000)
    assert mnist.samples[torch.tensor([5, 59999])][1].shape == (2, 1, 28, 28)
