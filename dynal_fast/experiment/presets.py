"""The papers' protocols by name, as configurations; and how they shrink for a laptop.

Where a paper leaves something open, the choice is in ``Preset.chosen_here``.
"""

import math
from dataclasses import dataclass
from typing import Any

Table = dict[str, Any]

# Of a scaled training: statistics over epochs need some epochs, batch normalisation some samples,
# and 20 steps leave ResNet-18 at chance where 400 do not.
LEAST_EPOCHS, LEAST_BATCH, LEAST_STEPS = 10, 16, 400


@dataclass(frozen=True)
class Preset:
    """A protocol, where it is written down, and what the paper does not say."""

    values: Table
    source: str
    chosen_here: str = ""


def _table(data: str, model: str, strategies: list[str], seeds: int, **tables: Table) -> Table:
    common = {"data": data, "model": model, "strategies": strategies, "seeds": list(range(seeds))}
    return common | tables


STANDARD_AUGMENTATION: Table = {"crop_padding": 4, "horizontal_flip": True}


def _label_dispersion(data: str, bald: bool = False) -> Preset:
    strategies = ["label_dispersion", "margin", "farthest_first", "coreset", "vaal", "oracle"]
    initial = (
        "; the initial labeled set is drawn once for all methods, as stated, and anew for each of "
        "the 3 seeds (whether the repetitions share one is not stated)"
    )
    chosen = (
        "batch size 128 and weight decay 5e-4 (not stated); at full size CoreSet's search will end "
        "at its limit of 200,000 pairs, with farthest-first's picks: --option coreset.max_pairs=N "
        "allows more"
    )
    training: Table = {
        "epochs": 100,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.02,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": [60, 80],
        "gamma": 0.2,
        **STANDARD_AUGMENTATION,
    }
    return Preset(
        _table(
            data,
            "resnet18-dropout" if bald else "resnet18",
            ["bald"] if bald else [*strategies, "random"],
            3,
            protocol={"initial": 5000, "budget": 2500, "cycles": 4},
            training=training,
        ),
        "When Deep Learners Change Their Mind, sections 3.2 and 4; Fig. 3, 4; Table 1"
        + (": BALD" if bald else ""),
        (
            "batch size 128, weight decay 5e-4, dropout of 0.5 before the head, 10 passes (not "
            "stated)"
            if bald
            else f"{chosen}; BALD needs dropout and has a preset of its own"
        )
        + initial,
    )


# Measures of prediction stability: its own, and the ablations of section 4.4.1.
_MEASURES = ["prediction_stability", "prediction_stability_logits", "absolute_increase"]


def _prediction_stability(
    data: str, interval: int, strategies: list[str], shown: str, chosen: str = ""
) -> Preset:
    training: Table = {
        "epochs": 164,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "milestones": [81, 122],
        "gamma": 0.1,
        **STANDARD_AUGMENTATION,
    }
    return Preset(
        _table(
            data,
            "resnet18",
            strategies,
            10,
            protocol={"initial": 1000, "balanced": True, "budget": 1000, "cycles": 9},
            training=training,
            schedules={name: {"last": 5, "interval": interval} for name in _MEASURES},
        ),
        f"Sequential-based active learning: prediction stability, {shown}",
        "optimizer, rates, weight decay and augmentation (not stated): those customary with 164 "
        "epochs on CIFAR; the variance of eq. 3 is the population's, the bars of eq. 5 are the L2 "
        "norm" + chosen,
    )


def _prediction_stability_presets() -> dict[str, Preset]:
    compared = ["prediction_stability", "entropy", "least_confidence", "random"]
    presets = {
        "cifar10": _prediction_stability("cifar10", 5, compared, "sections 4.1 and 4.2; Fig. 2"),
        "cifar100": _prediction_stability("cifar100", 1, compared, "section 4.3; Fig. 3"),
        "cifar10-measures": _prediction_stability(
            "cifar10", 5, [*_MEASURES, "random"], "section 4.4.1; Fig. 4"
        ),
    }
    for data, intervals in (("cifar10", (1, 10)), ("cifar100", (5, 10))):
        for interval in intervals:
            presets[f"{data}-interval-{interval}"] = _prediction_stability(
                data,
                interval,
                ["prediction_stability"],
                f"section 4.4.2; Fig. 5: an interval of {interval}",
                "; of the intervals the text names 1, 5 and 10",
            )
    return {f"prediction-stability/{name}": preset for name, preset in presets.items()}


_OUTPUT_READ = "f in eq. 1, 5 and 7 is read as the softmax output"
_TEACHER = (
    "the average of eq. 6 begins anew with each cycle's training, predicts in evaluation mode and "
    "has the model's batch statistics"
)
_BATCHES = "each labeled batch has an unlabeled one of its size beside it"

# Data set: (initial, budget, subset, epochs, milestone, rate, batch, weight in the authors' code).
_TOD = {
    "cifar10": (5000, 2500, 25_000, 200, 160, 0.1, 128, 0.02),
    "cifar100": (5000, 2500, 25_000, 200, 160, 0.1, 128, 0.05),
    "svhn": (7324, 3662, 29_302, 200, 160, 0.1, 128, 0.005),
    "caltech101": (868, 434, 4340, 50, 40, 0.01, 64, 0.1),
}
_CALTECH101 = (
    "; there they start from weights trained on ImageNet, with that ResNet-18's first layers and a "
    "normalisation of their own, which is not reproduced: the weights are random, the first layers "
    "CIFAR's, mean and deviation ImageNet's"
)
_TOD_CODE = (
    "the first average, and the model that the first selection compares with, are independent and "
    "untrained; candidates are scored without augmentation, theirs of SVHN and Caltech-101 with "
    "it; unlabeled batches are drawn anew for every step and are as large as the labeled one, "
    "theirs of the first cycle is the same full batch each time"
)


@dataclass(frozen=True)
class _Variant:
    """What differs between the presets of one data set of the output discrepancy paper."""

    strategies: list[str]
    unsupervised: str
    figures: str
    cifar_figures: str = ""
    model: str = "resnet18"
    chosen: str = ""


_TOD_VARIANTS = {
    "": _Variant(
        ["cod", "random"], "ema", "Fig. 7: Ours-Semi", "Fig. 3, 5, 6, 10; Table 1: with Semi"
    ),
    "-task": _Variant(
        ["cod", "farthest_first", "vaal", "random"],
        "none",
        "Fig. 7: Ours-Task and baselines",
        "Fig. 9, read as trained with the task loss alone; Fig. 10; Table 1: without Semi",
        chosen="Core-set is k-center greedy",
    ),
    "-cyclic": _Variant(
        ["random"],
        "cyclic",
        "Fig. 10, read as of random samples: the CyclicOD loss",
    ),
    "-mc-dropout": _Variant(
        ["bald"],
        "none",
        "Fig. 7: MC-Dropout",
        model="resnet18-dropout",
        chosen="BALD of 10 passes, dropout of 0.5 before the head",
    ),
}


def _tod(data: str, suffix: str = "", code: bool = False) -> Preset:
    initial, budget, subset, epochs, milestone, rate, batch, weight = _TOD[data]
    variant, cifar = _TOD_VARIANTS[suffix], data.startswith("cifar")
    training: Table = {
        "epochs": epochs,
        "batch_size": batch,
        "optimizer": "sgd",
        "learning_rate": rate,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": [milestone],
        "gamma": 0.1,
        "unsupervised": "tod-code" if code else variant.unsupervised,
        "unsupervised_weight": weight if code else 0.05,
        "ema_alpha": 0.999,
    }
    training |= {"horizontal_flip": True} if data == "caltech101" else STANDARD_AUGMENTATION
    protocol: Table = {
        "initial": initial,
        "budget": budget,
        "cycles": 6,
        "retrain": "continue",
        "subset": subset,
    }
    strategies = ["tod_code", "random"] if code else variant.strategies
    if cifar and suffix == "-task":
        strategies = [*strategies, "emaod"]
    figures = [variant.figures, *([variant.cifar_figures] if cifar else [])]
    shown = "as in the authors' code" if code else "; ".join(filter(None, figures))
    chosen = [
        "sizes, schedule and augmentation are those of the authors' code"
        " (github.com/siyuhuang/TOD)" + (_CALTECH101 if data == "caltech101" else "")
    ]
    if code:
        chosen.append(_TOD_CODE)
    else:
        chosen += [_OUTPUT_READ] if suffix != "-mc-dropout" else []
        averages = training["unsupervised"] == "ema" or "emaod" in strategies
        chosen += [_TEACHER] if averages else []
        chosen += [_BATCHES] if training["unsupervised"] != "none" else []
        chosen += [variant.chosen] if variant.chosen else []
    return Preset(
        _table(data, variant.model, strategies, 3, protocol=protocol, training=training),
        f"Semi-Supervised Active Learning with Temporal Output Discrepancy, section 5; {shown}",
        "; ".join(chosen),
    )


def _cityscapes(suffix: str = "") -> Preset:
    training: Table = {
        "epochs": 50,
        "batch_size": 8,
        "optimizer": "adam",
        "learning_rate": 5e-4,
        "unsupervised": _TOD_VARIANTS[suffix].unsupervised,
        "unsupervised_weight": 0.05,
        "ema_alpha": 0.999,
    }
    return Preset(
        _table(
            "cityscapes",
            "drn-d-22",
            ["cod", "farthest_first", "random"] if suffix else ["cod", "random"],
            3,
            protocol={"initial": 298, "budget": 149, "cycles": 6, "retrain": "continue"},
            training=training,
        ),
        "Semi-Supervised Active Learning with Temporal Output Discrepancy, section 5.3; Fig. 8: "
        + ("Ours-Task and baselines" if suffix else "Ours-Semi"),
        "10% of the 2,975 images, 5% more each cycle up to the 40% of its Table 2; 50 epochs of "
        "Adam at 5e-4 with batches of 8, no augmentation, weights not trained on ImageNet before, "
        f"3 seeds (not stated); {_OUTPUT_READ}, of a pixel"
        + ("" if suffix else f"; {_TEACHER}; {_BATCHES}"),
    )


def _tod_presets() -> dict[str, Preset]:
    presets = {
        f"tod/{data}{suffix}": _tod(data, suffix)
        for data in _TOD
        for suffix in _TOD_VARIANTS
        if suffix != "-cyclic" or data.startswith("cifar")
    }
    presets |= {f"tod/cityscapes{suffix}": _cityscapes(suffix) for suffix in ("", "-task")}
    return presets | {f"tod-code/{data}": _tod(data, code=True) for data in _TOD}


_VGG16_TRAINING: Table = {
    "epochs": 250,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": list(range(20, 250, 20)),
    "gamma": 0.5,
}
_VGG16_CHOSEN = (
    "VGG-16 in the form that its first author published for CIFAR (github.com/geifmany/cifar-vgg), "
    "with dropout and batch normalisation; momentum 0.9 without Nesterov's form and weight decay "
    "5e-4, where that code has Nesterov's and a penalty of 5e-4 times the squared norm, twice the "
    "decay"
)
_COMPRESSION = Preset(
    _table(
        "cifar10",
        "vgg16",
        ["farthest_first_compress", "random"],
        3,
        protocol={"initial": 50_000, "compress": [0.64, 0.5]},
        training=_VGG16_TRAINING | STANDARD_AUGMENTATION,
    )
    | {"reference": False},  # the first training is on all data
    "Deep Active Learning over the Long Tail, section 2: FF-Comp keeps 50%, random 50% and 64%",
    f"{_VGG16_CHOSEN}, 3 seeds (not stated); model and schedule are those of section 4.2, but with "
    "crops and mirror images, since the published form augments for its 93.56% on all data and the "
    "section has 93.23% (with rotations and shifts, which are not reproduced); both methods keep "
    "both shares; the minimum of eq. 1 runs over the core-set of the class so far, and the random "
    "seed of a class counts as one of its floor(c/k) samples",
)


def _long_tail(data: str, factor: float = 1.0) -> Preset:
    strategies = ["farthest_first", "least_confidence", "random"]
    source = "Deep Active Learning over the Long Tail, section "
    if data == "mnist":
        return Preset(
            _table(
                data,
                "lenet",
                strategies,
                3,
                protocol={"initial": 10_000, "budget": 2000, "cycles": 10},
                training={
                    "epochs": 20,
                    "batch_size": 128,
                    "optimizer": "adam",
                    "learning_rate": 1e-3,
                },
            ),
            source + "4.1; Fig. 1",
            "20 epochs, batch size 128, rate 1e-3, LeNet's dropout of 0.5, 3 seeds (not stated); "
            "ten rounds reach the 20,000 additional labels that the text speaks of",
        )
    protocol: Table = {
        "initial": 25_000,
        "budget": 4000,
        "cycles": 5,
        "pool_flips": True,
        "pool_factor": factor,
    }
    section = "4.4; Fig. 4" if factor > 1 else "4.2; Fig. 2" if data == "cifar10" else "4.3; Fig. 3"
    return Preset(
        _table(data, "vgg16", strategies, 3, protocol=protocol, training=_VGG16_TRAINING),
        source + section,
        f"{_VGG16_CHOSEN}, five rounds, 3 seeds, no augmentation of batches: the mirror images are "
        "in the pool (not stated)",
    )


PRESETS: dict[str, Preset] = {
    "label-dispersion/cifar10": _label_dispersion("cifar10"),
    "label-dispersion/cifar100": _label_dispersion("cifar100"),
    "label-dispersion/cifar10-bald": _label_dispersion("cifar10", bald=True),
    "label-dispersion/cifar100-bald": _label_dispersion("cifar100", bald=True),
    **_prediction_stability_presets(),
    **_tod_presets(),
    "long-tail/mnist": _long_tail("mnist"),
    "long-tail/cifar10": _long_tail("cifar10"),
    "long-tail/cifar100": _long_tail("cifar100"),
    "long-tail/compress-cifar10": _COMPRESSION,
    "long-tail/inflated-cifar100": _long_tail("cifar100", 3.0),
}


def preset_values(name: str, scale: float = 1.0) -> Table:
    """Return the tables of a preset's configuration, shrunk by ``scale``.

    Shrunk are the data set, the initial set, the budget, the subset, the batch (not below 16), the
    epochs (not below 10), the milestones and the intervals of schedules. A training on the initial
    set keeps at least 400 optimizer steps, or the paper's if these are fewer: where shrunk epochs
    have too few, there are more of them. The rate stays: with it and with as many batches in an
    epoch, the noise of the gradient stays, too. The number of cycles and of repeats stays, and so
    do the shares of a compression. The configuration, and so the results, name the preset and the
    scale; :func:`~dynal_fast.experiment.departures.departures` says what became of each size.

    Raises
    ------
    ValueError
        The preset is unknown, or ``scale`` is not in (0, 1].

    >>> preset_values("long-tail/mnist", 0.1)["protocol"]
    {'initial': 1000, 'budget': 200, 'cycles': 10}
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    preset = PRESETS[name]
    if not isinstance(scale, int | float) or not 0 < scale <= 1:
        raise ValueError(f"scale must be above 0 and at most 1, got {scale!r}")
    values = preset.values | {"preset": name, "scale": float(scale)}
    if scale == 1:
        return values
    protocol, training = dict(values["protocol"]), dict(values["training"])
    for key in ("initial", "budget", "subset"):
        if protocol.get(key):
            protocol[key] = max(1, round(scale * protocol[key]))
    full, batch = training["epochs"], training["batch_size"]
    full_steps = full * math.ceil(values["protocol"]["initial"] / batch)
    training["batch_size"] = min(batch, max(LEAST_BATCH, round(scale * batch)))
    batches = math.ceil(protocol["initial"] / training["batch_size"])
    training["epochs"] = max(
        min(full, max(LEAST_EPOCHS, round(scale * full))),
        math.ceil(min(full_steps, LEAST_STEPS) / batches),
    )
    if "milestones" in training:
        drops = (round(each * training["epochs"] / full) for each in training["milestones"])
        # Repeated epochs stay: the rate drops as many times as in the paper.
        training["milestones"] = [max(1, drop) for drop in drops]
    values |= {"protocol": protocol, "training": training}
    if "schedules" in values:
        values["schedules"] = {
            score: schedule
            | {"interval": max(1, round(schedule["interval"] * training["epochs"] / full))}
            for score, schedule in values["schedules"].items()
        }
    return values
