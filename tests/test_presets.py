"""Every preset against a table transcribed from the papers, and what shrinking does to it."""

import pytest

from dynal_fast.experiment import RunConfig
from dynal_fast.experiment.presets import PRESETS

# Initial, budget, final size, repeats, epochs, first learning rate, data, model.
PAPERS = {
    "label-dispersion/cifar10": (5000, 2500, 15_000, 3, 100, 0.02, "cifar10", "resnet18"),
    "label-dispersion/cifar100": (5000, 2500, 15_000, 3, 100, 0.02, "cifar100", "resnet18"),
    "prediction-stability/cifar10": (1000, 1000, 10_000, 10, 164, 0.1, "cifar10", "resnet18"),
    "prediction-stability/cifar100": (1000, 1000, 10_000, 10, 164, 0.1, "cifar100", "resnet18"),
    "tod/cifar10": (5000, 2500, 20_000, 3, 200, 0.1, "cifar10", "resnet18"),
    "tod/cifar100": (5000, 2500, 20_000, 3, 200, 0.1, "cifar100", "resnet18"),
    "tod/svhn": (7324, 3662, 29_296, 3, 200, 0.1, "svhn", "resnet18"),
    "tod/caltech101": (868, 434, 3472, 3, 50, 0.01, "caltech101", "resnet18"),
    "tod/cityscapes": (298, 149, 1192, 3, 50, 5e-4, "cityscapes", "drn-d-22"),
    "tod-code/cifar10": (5000, 2500, 20_000, 3, 200, 0.1, "cifar10", "resnet18"),
    "tod-code/cifar100": (5000, 2500, 20_000, 3, 200, 0.1, "cifar100", "resnet18"),
    "tod-code/svhn": (7324, 3662, 29_296, 3, 200, 0.1, "svhn", "resnet18"),
    "tod-code/caltech101": (868, 434, 3472, 3, 50, 0.01, "caltech101", "resnet18"),
    "long-tail/mnist": (10_000, 2000, 30_000, 3, 20, 1e-3, "mnist", "lenet"),
    "long-tail/cifar10": (25_000, 4000, 45_000, 3, 250, 0.1, "cifar10", "vgg16"),
    "long-tail/cifar100": (25_000, 4000, 45_000, 3, 250, 0.1, "cifar100", "vgg16"),
    "long-tail/inflated-cifar100": (25_000, 4000, 45_000, 3, 250, 0.1, "cifar100", "vgg16"),
}


def config(name, **more):
    return RunConfig.from_mapping({"preset": name, **more})


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_repeats_and_schedule_are_the_papers(name):
    given = config(name)
    protocol, training = given.protocol, given.training
    assert PAPERS[name] == (
        protocol.initial,
        protocol.budget,
        protocol.labeled_counts()[-1],
        len(given.seeds),
        training.epochs,
        training.learning_rate,
        given.data,
        given.model,
    )
    assert given.reference
    assert PRESETS[name].source
    assert given.scale == 1


def test_what_each_paper_says_beyond_sizes():
    for data in ("cifar10", "cifar100"):
        dispersion = config(f"label-dispersion/{data}").training
        assert (dispersion.milestones, dispersion.gamma) == ([60, 80], 0.2)
        assert (dispersion.momentum, dispersion.crop_padding) == (0.9, 4)
        assert dispersion.horizontal_flip
        stability = config(f"prediction-stability/{data}")
        assert stability.protocol.balanced
        assert stability.training.batch_size == 128
        assert stability.strategies[0] == "prediction_stability"
    interval = {"cifar10": 5, "cifar100": 1}
    for data, expected in interval.items():
        schedules = config(f"prediction-stability/{data}").schedules
        ablations = ("prediction_stability_logits", "absolute_increase")
        for name in ("prediction_stability", *ablations):
            assert schedules[name] == {"last": 5, "interval": expected}
    for data, weight in {
        "cifar10": 0.02,
        "cifar100": 0.05,
        "svhn": 5e-3,
        "caltech101": 0.1,
    }.items():
        paper, code = config(f"tod/{data}"), config(f"tod-code/{data}")
        assert (paper.training.unsupervised, paper.training.unsupervised_weight) == ("ema", 0.05)
        assert (code.training.unsupervised, code.training.unsupervised_weight) == (
            "tod-code",
            weight,
        )
        assert paper.training.ema_alpha == 0.999
        assert paper.protocol.retrain == "continue"
        assert len(paper.protocol.labeled_counts()) == 7
        milestone = 40 if data == "caltech101" else 160
        assert (paper.training.milestones, paper.training.gamma) == ([milestone], 0.1)
    for name in ("cifar10", "cifar100", "inflated-cifar100"):
        tail = config(f"long-tail/{name}")
        assert tail.training.milestones == [20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 240]
        assert (tail.training.gamma, tail.training.batch_size) == (0.5, 128)
        pool = tail.protocol.entries(50_000) - 25_000
        assert pool == (150_000 if name.startswith("inflated") else 50_000)
    assert not config("long-tail/mnist").protocol.inflates


def test_options_win_over_the_preset_and_the_configuration_names_both():
    given = config("long-tail/mnist", scale=0.1, seeds=[7], protocol={"error_reduction": 0.01})
    assert (given.preset, given.scale, given.seeds) == ("long-tail/mnist", 0.1, [7])
    assert (given.protocol.initial, given.protocol.budget, given.protocol.cycles) == (1000, 200, 10)
    assert given.protocol.error_reduction == 0.01
    assert RunConfig.from_mapping(given.to_mapping()) == given


@pytest.mark.parametrize("name", PRESETS)
def test_a_scaled_preset_keeps_its_shape(name):
    whole, small = config(name), config(name, scale=0.05)
    assert small.protocol.cycles == whole.protocol.cycles
    assert small.protocol.initial == round(0.05 * whole.protocol.initial)
    assert small.training.epochs == max(10, round(0.05 * whole.training.epochs))
    assert len(small.training.milestones) == len(whole.training.milestones)
    assert max(small.training.milestones, default=1) <= small.training.epochs
    for schedule in small.schedules.values():
        assert 1 + (schedule["last"] - 1) * schedule["interval"] <= small.training.epochs


def test_what_is_no_preset_or_no_scale_is_refused():
    with pytest.raises(ValueError, match="preset must be one of label-dispersion/cifar10, "):
        config("mnist")
    with pytest.raises(ValueError, match="scale must be above 0"):
        config("long-tail/mnist", scale=2.0)
    with pytest.raises(ValueError, match="scale must be 1 without a preset"):
        RunConfig(scale=0.5)
