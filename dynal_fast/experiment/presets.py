"""The papers' protocols by name, as configurations; and how they shrink for a laptop.

Where a paper leaves something open, the choice is in ``Preset.chosen_here``.
"""

from dataclasses import dataclass
from typing import Any

Table = dict[str, Any]

LEAST_EPOCHS = 10  # of a scaled training: statistics over epochs need some


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


def _label_dispersion(data: str) -> Preset:
    strategies = ["label_dispersion", "margin", "farthest_first", "coreset", "vaal", "random"]
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
            "resnet18",
            strategies,
            3,
            protocol={"initial": 5000, "budget": 2500, "cycles": 4},
            training=training,
        ),
        "When Deep Learners Change Their Mind, section 4.1",
        "batch size 128 and weight decay 5e-4 (not stated); BALD is left out, since this ResNet-18 "
        "has no dropout",
    )


def _prediction_stability(data: str, interval: int) -> Preset:
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
            ["prediction_stability", "entropy", "least_confidence", "random"],
            10,
            protocol={"initial": 1000, "balanced": True, "budget": 1000, "cycles": 9},
            training=training,
            schedules={  # also of its ablations, section 4.4.1
                name: {"last": 5, "interval": interval}
                for name in (
                    "prediction_stability",
                    "prediction_stability_logits",
                    "absolute_increase",
                )
            },
        ),
        "Sequential-based active learning: prediction stability, sections 4.1-4.3",
        "optimizer, rates, weight decay and augmentation (not stated): those customary with 164 "
        "epochs on CIFAR",
    )


# Data set: (initial, budget, subset, epochs, milestone, rate, batch, weight in the authors' code).
_TOD = {
    "cifar10": (5000, 2500, 25_000, 200, 160, 0.1, 128, 0.02),
    "cifar100": (5000, 2500, 25_000, 200, 160, 0.1, 128, 0.05),
    "svhn": (7324, 3662, 29_302, 200, 160, 0.1, 128, 0.005),
    "caltech101": (868, 434, 4340, 50, 40, 0.01, 64, 0.1),
}


def _tod(data: str, code: bool) -> Preset:
    initial, budget, subset, epochs, milestone, rate, batch, weight = _TOD[data]
    training: Table = {
        "epochs": epochs,
        "batch_size": batch,
        "optimizer": "sgd",
        "learning_rate": rate,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": [milestone],
        "gamma": 0.1,
        "unsupervised": "tod-code" if code else "ema",
        "unsupervised_weight": weight if code else 0.05,
        "ema_alpha": 0.999,
    }
    if data.startswith("cifar"):
        training |= STANDARD_AUGMENTATION
    protocol: Table = {
        "initial": initial,
        "budget": budget,
        "cycles": 6,
        "retrain": "continue",
        "subset": subset,
    }
    return Preset(
        _table(
            data,
            "resnet18",
            ["tod_code" if code else "cod", "farthest_first", "random"],
            3,
            protocol=protocol,
            training=training,
        ),
        "Semi-Supervised Active Learning with Temporal Output Discrepancy, section 5.2; sizes and "
        "schedule as in the authors' code (github.com/siyuhuang/TOD)",
        "augmentation: crops and mirror images on CIFAR, none elsewhere (not stated); every "
        "strategy trains with the unsupervised loss, in the paper the baselines do not: for "
        "those, add --unsupervised none",
    )


_CITYSCAPES = Preset(
    _table(
        "cityscapes",
        "drn-d-22",
        ["cod", "farthest_first", "random"],
        3,
        protocol={"initial": 298, "budget": 149, "cycles": 6, "retrain": "continue"},
        training={
            "epochs": 50,
            "batch_size": 8,
            "optimizer": "adam",
            "learning_rate": 5e-4,
            "unsupervised": "ema",
            "unsupervised_weight": 0.05,
            "ema_alpha": 0.999,
        },
    ),
    "Semi-Supervised Active Learning with Temporal Output Discrepancy, section 5.3",
    "10% of the 2,975 images, 5% more each cycle up to the 40% of its Table 2; 50 epochs of Adam "
    "at 5e-4 with batches of 8, no augmentation, weights not trained on ImageNet before, 3 seeds "
    "(not stated); MC-dropout and query by committee are left out, since DRN-D-22 has no dropout",
)


def _long_tail(data: str, factor: float = 1.0) -> Preset:
    strategies = ["farthest_first", "softmax_response", "random"]
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
            source + "4.1",
            "20 epochs, batch size 128, rate 1e-3, 3 seeds (not stated); ten rounds reach the "
            "20,000 additional labels that the text speaks of",
        )
    training: Table = {
        "epochs": 250,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": list(range(20, 250, 20)),
        "gamma": 0.5,
    }
    protocol: Table = {
        "initial": 25_000,
        "budget": 4000,
        "cycles": 5,
        "pool_flips": True,
        "pool_factor": factor,
    }
    section = "4.4" if factor > 1 else "4.2" if data == "cifar10" else "4.3"
    return Preset(
        _table(data, "vgg16", strategies, 3, protocol=protocol, training=training),
        source + section,
        "momentum 0.9, weight decay 5e-4, five rounds, 3 seeds (not stated)",
    )


PRESETS: dict[str, Preset] = {
    "label-dispersion/cifar10": _label_dispersion("cifar10"),
    "label-dispersion/cifar100": _label_dispersion("cifar100"),
    "prediction-stability/cifar10": _prediction_stability("cifar10", 5),
    "prediction-stability/cifar100": _prediction_stability("cifar100", 1),
    **{f"tod/{data}": _tod(data, code=False) for data in _TOD},
    **{f"tod-code/{data}": _tod(data, code=True) for data in _TOD},
    "tod/cityscapes": _CITYSCAPES,
    "long-tail/mnist": _long_tail("mnist"),
    "long-tail/cifar10": _long_tail("cifar10"),
    "long-tail/cifar100": _long_tail("cifar100"),
    "long-tail/inflated-cifar100": _long_tail("cifar100", 3.0),
}


def preset_values(name: str, scale: float = 1.0) -> Table:
    """Return the tables of a preset's configuration, shrunk by ``scale``.

    Shrunk are the data set, the initial set, the budget, the subset, the epochs (not below 10), the
    milestones and the intervals of schedules. The number of cycles and of repeats stays. The
    configuration, and so the results, name the preset and the scale.

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
    full = training["epochs"]
    training["epochs"] = min(full, max(LEAST_EPOCHS, round(scale * full)))
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
