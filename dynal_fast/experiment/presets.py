"""The papers' protocols by name, as configurations; and how they shrink for a laptop.

Where a paper leaves something open, the choice is in ``Preset.chosen_here``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dynal_fast.experiment.config import RunConfig

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


def _label_dispersion(data: str, bald: bool = False) -> Preset:
    strategies = ["label_dispersion", "margin", "farthest_first", "coreset", "vaal", "oracle"]
    chosen = (
        "batch size 128 and weight decay 5e-4 (not stated); CoreSet's search may stop at its limit "
        "of pairs, with farthest-first's picks: --option coreset.max_pairs=N raises it"
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
        f"{chosen}; dropout of 0.5 before the head, 10 passes (not stated)"
        if bald
        else f"{chosen}; BALD needs dropout and has a preset of its own",
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
        "epochs on CIFAR" + chosen,
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


# Data set: (initial, budget, subset, epochs, milestone, rate, batch, weight in the authors' code).
_TOD = {
    "cifar10": (5000, 2500, 25_000, 200, 160, 0.1, 128, 0.02),
    "cifar100": (5000, 2500, 25_000, 200, 160, 0.1, 128, 0.05),
    "svhn": (7324, 3662, 29_302, 200, 160, 0.1, 128, 0.005),
    "caltech101": (868, 434, 4340, 50, 40, 0.01, 64, 0.1),
}


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
        chosen="; Core-set is k-center greedy",
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
        chosen="; BALD of 10 passes, dropout of 0.5 before the head",
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
    if cifar:
        training |= STANDARD_AUGMENTATION
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
    return Preset(
        _table(data, variant.model, strategies, 3, protocol=protocol, training=training),
        f"Semi-Supervised Active Learning with Temporal Output Discrepancy, section 5; {shown}",
        "sizes and schedule are those of the authors' code (github.com/siyuhuang/TOD); crops and "
        "mirror images on CIFAR, no augmentation elsewhere (not stated); ResNet-18 begins as for "
        "CIFAR on every data set" + variant.chosen,
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
        "3 seeds (not stated)",
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
    "VGG-16 and its schedule of section 4.2, momentum 0.9, weight decay 5e-4, crops and mirror "
    "images, 3 seeds (not stated); both methods keep both shares",
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
        "momentum 0.9, weight decay 5e-4, five rounds, 3 seeds (not stated)",
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

    Shrunk are the data set, the initial set, the budget, the subset, the epochs (not below 10), the
    milestones and the intervals of schedules. The number of cycles and of repeats stays, and so do
    the shares of a compression. The configuration, and so the results, name the preset and the
    scale; :func:`departures` says what became of each size.

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


def departures(configuration: Mapping[str, Any], samples: int | None = None) -> list[str]:
    """Say in what a run departs from the preset that it names: every size as it is and as it was.

    Parameters
    ----------
    configuration
        Of the run, as ``RunConfig.to_mapping`` gives it; keys that it lacks are taken to be the
        preset's.
    samples
        The number of training samples, where it is known.

    >>> departures({"preset": "long-tail/mnist", "scale": 0.1, "training": {"epochs": 10}}, 6000)
    ['scale 0.1', '6,000 training samples, 0.1 of all', 'epochs 10 instead of 20']
    """
    name, scale = configuration.get("preset", ""), configuration.get("scale", 1.0)
    if name not in PRESETS:
        return ["a preset that this version does not know"] if name else []
    found = []
    if scale != 1:
        counted = f"{samples:,} training samples, " if samples is not None else "training samples: "
        found += [f"scale {scale:g}", f"{counted}{scale:g} of all"]
    whole = asdict(RunConfig.from_mapping({"preset": name}))
    repeats = len(configuration.get("seeds", whole["seeds"]))
    if repeats != len(whole["seeds"]):
        found.append(f"repeats {repeats} instead of {len(whole['seeds'])}")
    flat = {key: whole[key] for key in ("data", "model", "image_size", "options")}
    given = dict(configuration)
    for table in ("protocol", "training"):
        flat |= whole[table]
        given |= configuration.get(table, {})
    names = configuration.get("strategies", whole["strategies"])
    flat |= {f"schedule of {k}": v for k, v in whole["schedules"].items() if k in names}
    given |= {f"schedule of {k}": v for k, v in configuration.get("schedules", {}).items()}
    for key, value in flat.items():
        if given.get(key, value) != value:
            found.append(f"{key} {_plainly(given[key])} instead of {_plainly(value)}")
    return found


def _plainly(value: Any) -> str:
    if isinstance(value, list):
        shown = [_plainly(each) for each in value]
        return ", ".join(shown if len(shown) < 5 else [*shown[:2], "…", shown[-1]]) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")
