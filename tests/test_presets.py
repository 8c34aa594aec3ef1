"""Every preset against a table transcribed from the papers, and what shrinking does to it."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

from dynal_fast.experiment import RunConfig
from dynal_fast.experiment.departures import departures
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
    "long-tail/mnist": (10_000, 2000, 30_000, 3, 20, 1e-3, "mnist", "lenet"),
    "long-tail/cifar10": (25_000, 4000, 45_000, 3, 250, 0.1, "cifar10", "vgg16"),
    "long-tail/cifar100": (25_000, 4000, 45_000, 3, 250, 0.1, "cifar100", "vgg16"),
    "long-tail/compress-cifar10": (50_000, 20, 25_000, 3, 250, 0.1, "cifar10", "vgg16"),
    "long-tail/inflated-cifar100": (25_000, 4000, 45_000, 3, 250, 0.1, "cifar100", "vgg16"),
}
# The same sizes and schedule as a preset above, and what is compared: strategies, model, loss.
VARIANTS = {
    "label-dispersion/cifar10-bald": ("bald", "resnet18-dropout", "none"),
    "label-dispersion/cifar100-bald": ("bald", "resnet18-dropout", "none"),
    "prediction-stability/cifar10-measures": (
        "prediction_stability prediction_stability_logits absolute_increase random",
        "resnet18",
        "none",
    ),
    "prediction-stability/cifar10-interval-1": ("prediction_stability", "resnet18", "none"),
    "prediction-stability/cifar10-interval-10": ("prediction_stability", "resnet18", "none"),
    "prediction-stability/cifar100-interval-5": ("prediction_stability", "resnet18", "none"),
    "prediction-stability/cifar100-interval-10": ("prediction_stability", "resnet18", "none"),
    **{
        f"tod/{data}-task": ("cod farthest_first vaal random emaod", "resnet18", "none")
        for data in ("cifar10", "cifar100")
    },
    **{
        f"tod/{data}-task": ("cod farthest_first vaal random", "resnet18", "none")
        for data in ("svhn", "caltech101")
    },
    **{
        f"tod/{data}-learned": ("ll4al sraal ta_vaal core_gcn uncertain_gcn", "resnet18", "none")
        for data in ("cifar10", "cifar100")
    },
    **{
        f"tod/{data}-learned": ("ll4al sraal", "resnet18", "none")
        for data in ("svhn", "caltech101")
    },
    "tod/cityscapes-task": ("cod farthest_first random", "drn-d-22", "none"),
    "tod/cityscapes-mc-dropout": ("bald mc_dropout_vote_entropy", "drn-d-22-dropout", "none"),
    "tod/cityscapes-committee": ("query_by_committee_kl query_by_committee", "drn-d-22", "none"),
    "tod/cityscapes-vaal": ("vaal", "drn-d-22", "none"),
    **{f"tod/{data}-cyclic": ("random", "resnet18", "cyclic") for data in ("cifar10", "cifar100")},
    **{
        f"tod/{data}-mc-dropout": ("bald", "resnet18-dropout", "none")
        for data in ("cifar10", "cifar100", "svhn", "caltech101")
    },
    **{
        f"tod-code/{data}": ("tod_code random", "resnet18", "tod-code")
        for data in ("cifar10", "cifar100", "svhn", "caltech101")
    },
}
# Prediction stability's protocol on other data: what differs from the preset with this prefix.
FROM_1000 = {
    "mnist-mlp": ("", "-continue", "-interval-1", "-interval-5"),
    "mnist-cnn": ("", "-continue", "-interval-1", "-interval-5"),
    "cifar10-jpeg-resnet20": ("",),
    "texts-linear": ("", "-continue", "-interval-1", "-interval-5", "-epochs-20"),
    "texts-mlp": ("", "-continue", "-interval-1", "-interval-5"),
}


def config(name, **more):
    files = {"data_root": "table.csv", "embeddings": "e.npy"} if "/texts-" in name else {}
    return RunConfig.from_mapping({"preset": name, **files, **more})


def test_every_preset_is_in_one_of_the_tables():
    from_1000 = {f"from-1000/{data}{more}" for data, every in FROM_1000.items() for more in every}
    assert PRESETS.keys() == PAPERS.keys() | VARIANTS.keys() | from_1000


@pytest.mark.parametrize("data", FROM_1000)
def test_from_1000_balanced_labels_as_prediction_stability_begins(data):
    paper, given = config("prediction-stability/cifar10"), config(f"from-1000/{data}")
    protocol, training = given.protocol, given.training
    assert (
        (protocol.initial, protocol.balanced)
        == (1000, True)
        == (
            paper.protocol.initial,
            paper.protocol.balanced,
        )
    )
    assert protocol.budget == (500 if given.data == "texts" else paper.protocol.budget)
    assert protocol.labeled_counts()[-1] == 5000
    assert len(given.seeds) == (2 if given.model == "resnet20" else 5)
    for name in ("optimizer", "momentum", "weight_decay", "batch_size", "gamma"):
        assert getattr(training, name) == getattr(paper.training, name)
    share = training.epochs / paper.training.epochs
    assert training.milestones == [round(share * drop) for drop in paper.training.milestones]
    interval = paper.schedules["prediction_stability"]["interval"]
    assert given.schedules.keys() == paper.schedules.keys()
    for schedule in given.schedules.values():
        assert schedule == {"last": 5, "interval": round(share * interval)}
    asked = {
        "random", "entropy", "margin", "prediction_stability", "cod", "tod_code",
        "farthest_first", "badge", "prediction_stability+farthest_first",
    }  # fmt: skip
    assert asked <= set(given.strategies)
    assert ("label_dispersion" in given.strategies) == (given.model != "resnet20")
    assert ("bald" in given.strategies) == (given.model in ("mlp", "cnn-bn"))


@pytest.mark.parametrize(
    "name", [f"{data}{more}" for data, every in FROM_1000.items() for more in every if more]
)
def test_a_variant_from_1000_labels_differs_in_what_its_name_says(name):
    data = next(data for data in FROM_1000 if name.startswith(data))
    given, main = config(f"from-1000/{name}"), config(f"from-1000/{data}")
    what = name.removeprefix(f"{data}-")
    assert "random" in given.strategies  # to compare with
    assert set(given.strategies) <= set(main.strategies)
    changed = dataclasses.replace(given, strategies=main.strategies, preset=main.preset)
    if what == "continue":
        protocol = dataclasses.replace(main.protocol, retrain="continue")
        main = dataclasses.replace(main, protocol=protocol)
    elif what == "epochs-20":
        training = dataclasses.replace(main.training, epochs=20, milestones=[10, 15])
        main = dataclasses.replace(main, training=training)
    else:
        interval = int(what.removeprefix("interval-"))
        schedules = {name: {"last": 5, "interval": interval} for name in main.schedules}
        main = dataclasses.replace(main, schedules=schedules)
    assert changed == main


@pytest.mark.parametrize("name", PAPERS)
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
    assert given.reference or given.protocol.compress
    assert PRESETS[name].source
    assert given.scale == 1


@pytest.mark.parametrize(("name", "compared"), VARIANTS.items())
def test_a_variant_differs_in_what_it_compares_alone(name, compared):
    paper, data = name.split("/")
    given, main = config(name), config(f"{paper.removesuffix('-code')}/{data.split('-')[0]}")
    assert (" ".join(given.strategies), given.model, given.training.unsupervised) == compared
    loss = {"unsupervised": "none", "unsupervised_weight": 0.0}
    assert dataclasses.replace(given.training, **loss) == dataclasses.replace(main.training, **loss)
    assert (given.protocol, given.seeds, given.data) == (main.protocol, main.seeds, main.data)
    interval = data.partition("-interval-")[2]
    if interval:
        assert given.schedules["prediction_stability"] == {"last": 5, "interval": int(interval)}
    else:
        assert given.schedules == main.schedules


def test_what_each_paper_says_beyond_sizes():
    for data in ("cifar10", "cifar100"):
        dispersion = config(f"label-dispersion/{data}").training
        assert (dispersion.milestones, dispersion.gamma) == ([60, 80], 0.2)
        assert (dispersion.momentum, dispersion.crop_padding) == (0.9, 4)
        compared = set(config(f"label-dispersion/{data}").strategies)
        compared |= set(config(f"label-dispersion/{data}-bald").strategies)
        assert compared == {
            "label_dispersion", "margin", "bald", "farthest_first", "coreset", "vaal", "oracle",
            "random",
        }  # fmt: skip
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
        augmentation = (paper.training.crop_padding, paper.training.horizontal_flip)
        assert augmentation == (0 if data == "caltech101" else 4, True)
        for choice in ("augmentation are those of the authors' code", "read as the softmax output"):
            assert choice in PRESETS[f"tod/{data}"].chosen_here
        assert "as in tod-code, has no such loss" in PRESETS[f"tod/{data}"].chosen_here
        pretrained = "trained on ImageNet" in PRESETS[f"tod-code/{data}"].chosen_here
        assert pretrained == (data == "caltech101")
    for name in ("cifar10", "cifar100", "inflated-cifar100"):
        tail = config(f"long-tail/{name}")
        assert tail.training.milestones == [20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 240]
        assert (tail.training.gamma, tail.training.batch_size) == (0.5, 128)
        pool = tail.protocol.entries(50_000) - 25_000
        assert pool == (150_000 if name.startswith("inflated") else 50_000)
    assert not config("long-tail/mnist").protocol.inflates
    compression = config("long-tail/compress-cifar10")
    assert compression.protocol.labeled_counts() == [50_000, 32_000, 25_000]
    assert compression.strategies == ["farthest_first_compress", "random"]
    assert compression.training.milestones == config("long-tail/cifar10").training.milestones


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
    assert small.training.batch_size == max(min(16, whole.training.batch_size), 6)
    assert small.training.epochs >= max(10, round(0.05 * whole.training.epochs))
    assert len(small.training.milestones) == len(whole.training.milestones)
    assert max(small.training.milestones, default=1) <= small.training.epochs
    for schedule in small.schedules.values():
        assert 1 + (schedule["last"] - 1) * schedule["interval"] <= small.training.epochs


def steps(given):
    """Return the optimizer steps of the training on the initial set."""
    return given.training.epochs * math.ceil(given.protocol.initial / given.training.batch_size)


@pytest.mark.parametrize("scale", [0.001, 0.01, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("name", PRESETS)
def test_a_scaled_training_keeps_enough_steps(name, scale):
    """20 steps, as 250 labels in batches of 128 for 10 epochs take, leave the model near chance."""
    whole, small = config(name), config(name, scale=scale)
    assert steps(small) >= min(400, steps(whole))
    assert steps(small) <= max(1.2 * steps(whole), 2 * 400)
    assert small.training.batch_size <= whole.training.batch_size
    for schedule in small.schedules.values():
        assert 1 + (schedule["last"] - 1) * schedule["interval"] <= small.training.epochs


def test_the_example_of_label_dispersion_has_400_steps():
    small = config("label-dispersion/cifar10", scale=0.05)
    assert (small.protocol.initial, small.training.batch_size) == (250, 16)
    assert (steps(small), steps(config("label-dispersion/cifar10"))) == (400, 4000)
    assert small.training.milestones == [15, 20]  # of 25 epochs
    assert small.training.learning_rate == 0.02


def test_what_is_no_preset_or_no_scale_is_refused():
    with pytest.raises(ValueError, match="preset must be one of label-dispersion/cifar10, "):
        config("mnist")
    with pytest.raises(ValueError, match="scale must be above 0"):
        config("long-tail/mnist", scale=2.0)
    with pytest.raises(ValueError, match="scale must be 1 without a preset"):
        RunConfig(scale=0.5)


def test_the_page_of_the_papers_experiments_names_every_preset_and_no_other():
    page = (Path(__file__).parents[1] / "docs" / "papers.md").read_text()
    papers = {name.split("/")[0] for name in PRESETS}
    named = re.findall(rf"`((?:{'|'.join(papers)})/[a-z0-9-]+)`", page)
    assert set(named) == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_does_not_depart_from_itself_and_every_shrunk_size_is_named(name):
    assert departures(config(name).to_mapping(), 50_000) == []
    whole, small = config(name).to_mapping(), config(name, scale=0.05).to_mapping()
    named = departures(small, 2500)
    assert named[:2] == ["scale 0.05", "2,500 training samples, 0.05 of all"]
    shrunk = {
        key: (small[table][key], whole[table][key])
        for table in ("protocol", "training")
        for key in whole[table]
        if small[table][key] != whole[table][key]
    }
    assert shrunk.keys() >= {"initial", "epochs"}
    assert f"epochs {small['training']['epochs']} instead of {whole['training']['epochs']}" in named
    assert f"initial {small['protocol']['initial']:,} instead of" in " ".join(named)
    schedules = [
        key
        for key in small["schedules"]
        if key in small["strategies"] and small["schedules"][key] != whole["schedules"][key]
    ]
    assert len(named) == 2 + len(shrunk) + len(schedules)


def test_what_the_command_line_changed_is_a_departure_too():
    given = config(
        "long-tail/mnist", model="cnn", seeds=[5], data="digits", training={"batch_size": 64},
        options={"coreset": {"max_pairs": 7}},
    )  # fmt: skip
    assert departures(given.to_mapping()) == [
        "repeats 1 instead of 3",
        "data digits instead of mnist",
        "model cnn instead of lenet",
        "options {coreset: {max_pairs: 7.0}} instead of {}",
        "batch_size 64 instead of 128",
    ]
    for strategy in ("prediction_stability+farthest_first", "prediction_stability_logits"):
        stability = config("prediction-stability/cifar10", scale=0.2, strategies=[strategy])
        (changed,) = (d for d in departures(stability.to_mapping()) if d.startswith("schedule"))
        assert changed == (
            f"schedule of {strategy.partition('+')[0]} {{last: 5, interval: 2}} instead of "
            "{last: 5, interval: 5}"
        )
    random = config("prediction-stability/cifar10", scale=0.2, strategies=["random", "no_such"])
    assert "schedule" not in " ".join(departures(random.to_mapping()))
    assert departures({"preset": "mnist"}) == ["a preset that this version does not know"]
    assert departures({"data": "digits"}) == []


def test_options_of_a_preset_stay_with_their_strategies():
    assert "vaal" in config("tod/cityscapes-vaal").options
    assert config("tod/cityscapes-vaal", strategies=["random"]).options == {}
