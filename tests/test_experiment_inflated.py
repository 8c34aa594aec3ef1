"""Experiments on inflated pools: who is in them, what is counted, and how ids trace back."""

import pytest
import torch

from dynal_fast.data import load
from dynal_fast.experiment import ActiveLearningExperiment, ExperimentData, Protocol, Training
from tests.cases.experiment import blobs


@pytest.fixture(scope="module")
def digits():
    return ExperimentData.from_images(load("digits"))


def inflated(data, seed=0, directory=None, **protocol):
    settings = {"initial": 40, "budget": 200, "cycles": 2, "pool_flips": True, "pool_factor": 3.0}
    return ActiveLearningExperiment(
        data,
        "mlp",
        "farthest_first",
        protocol=Protocol(**{**settings, **protocol}),
        training=Training(epochs=1, batch_size=64),
        seed=seed,
        directory=directory,
    )


@pytest.mark.parametrize(
    ("flips", "factor", "size"),
    [(True, 1.0, 2 * 1257), (False, 3.0, 3 * 1257), (True, 3.0, 6 * 1257), (True, 0.5, 1257)],
)
def test_the_pool_is_made_of_what_is_not_labeled_at_first(digits, flips, factor, size):
    experiment = inflated(digits, pool_flips=flips, pool_factor=factor)
    view, plain = experiment.view, inflated(digits, pool_flips=False, pool_factor=1.0)
    assert len(experiment.data.samples) == 40 + size == experiment.protocol.entries(1297)
    assert experiment.initial.tolist() == list(range(40))
    assert torch.equal(view.original_ids[:40], plain.initial)
    assert not view.flipped[:40].any()
    assert not torch.isin(view.original_ids[40:], plain.initial).any()
    assert plain.view is None


def test_entries_have_the_labels_and_images_of_their_originals(digits):
    experiment = inflated(digits)
    entries = torch.arange(0, len(experiment.data.samples), 97)
    originals = experiment.view.original_ids[entries]
    labels = experiment.data.oracle.label(entries)
    assert torch.equal(labels, digits.oracle.label(originals))
    images, expected = experiment.data.samples[entries][1], digits.samples[originals][1]
    flipped = experiment.view.flipped[entries]
    assert torch.equal(images[~flipped], expected[~flipped])
    assert torch.equal(images[flipped], expected[flipped].flip(-1))


def test_results_count_entries_and_the_labels_paid_for_and_name_the_originals(digits):
    result = inflated(digits).run()
    assert result.labeled == [40, 240, 440]
    assert len(set(result.initial)) == 40
    known = set(result.initial)
    for cycle in result.cycles:
        assert cycle.distinct_labels == len(known)
        assert not set(cycle.selected) & set(result.initial)
        known |= set(cycle.selected)
    assert result.cycles[-1].distinct_labels < 440
    assert max(known) < 1297


def test_a_plain_pool_has_no_second_count(digits):
    result = inflated(digits, pool_flips=False, pool_factor=1.0).run()
    assert [cycle.distinct_labels for cycle in result.cycles] == [None] * 3


def test_an_inflated_run_repeats_itself_and_can_be_resumed(digits, tmp_path):
    whole = inflated(digits).run()
    interrupted = inflated(digits, directory=tmp_path)

    def stop(cycle, epoch):
        if cycle == 1:
            raise KeyboardInterrupt

    interrupted.on_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert inflated(digits, directory=tmp_path).run() == whole


def test_seeds_draw_their_own_pools(digits):
    first, second = inflated(digits, seed=0).view, inflated(digits, seed=1).view
    assert not torch.equal(first.original_ids, second.original_ids)


def test_only_images_can_be_inflated():
    with pytest.raises(ValueError, match="pool_flips and pool_factor need uint8 images"):
        inflated(blobs())


def test_a_budget_beyond_the_inflated_pool_is_refused(digits):
    inflated(digits, budget=3500)
    with pytest.raises(ValueError, match="at most the 7582 samples, got 8040"):
        inflated(digits, budget=4000)
