"""The papers' protocols by name, as configurations; and how they shrink for a laptop.

``papers/`` has a TOML file for each paper, and ``from-1000`` for the start that prediction
stability has, on data that a CPU trains. A table of it is a preset: its keys are those of a
configuration, with ``source``, where the paper says so, and ``chosen_here``, what the paper leaves
open. ``base`` names a preset above in the file, whose keys hold where the table has none of its
own. ``{name}`` in the two texts is replaced by that entry of the table ``texts``.
"""

import importlib.resources
import math
from dataclasses import dataclass
from typing import Any

from dynal_fast.experiment.tables import merge_tables, parse_toml

PAPERS = ("label-dispersion", "prediction-stability", "from-1000", "tod", "tod-code", "long-tail")

# Of a scaled training: statistics over epochs need some epochs, batch normalisation some samples,
# and 20 steps leave ResNet-18 at chance where 400 do not.
LEAST_EPOCHS, LEAST_BATCH, LEAST_STEPS = 10, 16, 400


@dataclass(frozen=True)
class Preset:
    """A protocol, where the paper states it, and what was chosen where the paper is silent."""

    values: dict[str, Any]
    source: str
    chosen_here: str = ""


def _presets_of(paper: str) -> dict[str, Preset]:
    file = importlib.resources.files("dynal_fast.experiment") / "papers" / f"{paper}.toml"
    tables = parse_toml(file.read_text(encoding="utf-8"))
    texts: dict[str, str] = {}
    for name, text in tables.pop("texts").items():
        texts[name] = text.format_map(texts)
    for name, values in tables.items():
        if "base" in values:
            tables[name] = merge_tables(tables[values.pop("base")], values)
    return {
        f"{paper}/{name}": Preset(
            {key: value for key, value in values.items() if key not in ("source", "chosen_here")},
            values["source"].format_map(texts),
            values["chosen_here"].format_map(texts),
        )
        for name, values in tables.items()
    }


PRESETS = {name: preset for paper in PAPERS for name, preset in _presets_of(paper).items()}


def preset_values(name: str, scale: float = 1.0) -> dict[str, Any]:
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
