"""How a run departs from the preset that it names."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from dynal_fast.experiment.config import RunConfig
from dynal_fast.experiment.presets import PRESETS
from dynal_fast.strategies.registry import get_strategy


def departures(configuration: Mapping[str, Any], samples: int | None = None) -> list[str]:
    """List every value in which a run departs from its preset, as it is and as the preset has it.

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
    files = {"data_root": "DIR", "embeddings": "FILE"}  # texts have no others
    needed = files if PRESETS[name].values["data"] == "texts" else {}
    whole = asdict(RunConfig.from_mapping({"preset": name, **needed}))
    repeats = len(configuration.get("seeds", whole["seeds"]))
    if repeats != len(whole["seeds"]):
        found.append(f"repeats {repeats} instead of {len(whole['seeds'])}")
    flat = {key: whole[key] for key in ("data", "model", "image_size", "options")}
    given = dict(configuration)
    for table in ("protocol", "training"):
        flat |= whole[table]
        given |= configuration.get(table, {})
    tracked = _tracked(configuration.get("strategies", whole["strategies"]))
    flat |= {f"schedule of {k}": v for k, v in whole["schedules"].items() if k in tracked}
    given |= {f"schedule of {k}": v for k, v in configuration.get("schedules", {}).items()}
    for key, value in flat.items():
        if given.get(key, value) != value:
            found.append(f"{key} {_written(given[key])} instead of {_written(value)}")
    return found


def _tracked(names: Iterable[str]) -> set[str]:
    """Return the statistics that the strategies track, none of a strategy that is unknown."""
    tracked: set[str] = set()
    for name in names:
        with contextlib.suppress(ValueError):  # a strategy of another program
            tracked |= set(get_strategy(name).tracks)
    return tracked


def _written(value: Any) -> str:
    if isinstance(value, list):
        shown = [_written(each) for each in value]
        return ", ".join(shown if len(shown) < 5 else [*shown[:2], "…", shown[-1]]) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")
