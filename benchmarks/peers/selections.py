"""Time and peak memory of each step, theirs and ours, in fresh processes that alternate."""

import importlib.metadata
import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.peers import RECORD, row
from benchmarks.peers.research_code import lines_of
from benchmarks.peers.sources import MissingError, obtain
from benchmarks.peers.step import Size
from benchmarks.peers.steps import STEPS
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.record import device_name
from dynal_fast.files import write_atomically
from dynal_fast.measured import measured

SCHEMA = "peers-1"
LIBRARIES = ("scikit-activeml", "small-text", "modAL-python", "baal", "scikit-learn", "numpy")
LIBRARIES += ("torch",)
REPEATS = 3
TIMEOUT = 1800


def compare(title: str, sources: str) -> dict[str, Any]:
    """Return what a step costs, theirs and ours in turn, and whether both pick the same samples.

    It is called in a process of its own.
    """
    step = next(step for step in STEPS if step.title == title)
    folder, wanted = Path(sources), step.size.picks
    small = Size(256, step.size.d, min(step.size.labeled, 16), 2)
    selects = {}
    for ours in (False, True):
        step.prepare(step, small, ours, folder)(2)  # load what is loaded when first called
        selects[ours] = step.prepare(step, step.size, ours, folder)

    def cost(ours: bool, picks: int) -> dict[str, Any]:
        with measured() as spent:
            got = selects[ours](picks)
        picked = np.asarray(got).tolist()
        return {"seconds": spent.seconds, "bytes": spent.peak_extra_bytes, "picks": picked}

    tried = list(step.tried) or [wanted] * REPEATS
    theirs, ours = [], []
    for picks in tried:
        theirs.append(cost(False, picks))
        ours.append(cost(True, wanted))
    few = ours[0] if tried[-1] == wanted else cost(True, tried[-1])
    return {
        "size": [step.size.n, step.size.d, step.size.labeled, wanted],
        "lines": lines_of(step, folder),
        "same": few["picks"] == theirs[-1]["picks"],
        "compared": tried[-1],
        "theirs": {key: _at(theirs, tried, wanted, key) for key in ("seconds", "bytes")},
        "extrapolated": tried[-1] != wanted,
        "ours": {key: statistics.median(one[key] for one in ours) for key in ("seconds", "bytes")},
    }


def _at(runs: Sequence[Mapping[str, Any]], tried: Sequence[int], wanted: int, key: str) -> float:
    """The median; or, from two numbers of picks, the line through both, at the number wanted."""
    if tried[-1] == wanted:
        return statistics.median(run[key] for run in runs)
    slope = (runs[1][key] - runs[0][key]) / (tried[1] - tried[0])
    return runs[1][key] + max(slope, 0) * (wanted - tried[1])


def measure(root: Path, folder: Path, only: str | None, threads: int = 2) -> None:
    """Measure the steps whose sources are there, and write or amend the record below ``root``."""
    steps: dict[str, Any] = {}
    for step in STEPS:
        if only not in (None, step.peer or step.title.split()[0]):
            continue
        try:
            if step.peer:
                obtain(step.peer, folder)
        except MissingError as error:
            print(f"left out: {error}")
            continue
        arguments = {"title": step.title, "sources": str(folder.resolve())}
        got = call(f"{__name__}:compare", arguments, threads=threads, timeout=TIMEOUT)
        if "unavailable" in got:
            print(f"left out: {step.title} {got['unavailable']}")
            continue
        steps[step.title] = got
        print(" | ".join(row(step.title, steps[step.title])), flush=True)
    path = root / RECORD
    if only and path.exists():  # the others' figures stay
        steps = {**json.loads(path.read_text())["steps"], **steps}
    record = {
        "schema": SCHEMA,
        "device": device_name("cpu"),
        "threads": threads,
        "date": date.today().isoformat(),
        "command": "python -m benchmarks.peers selections",
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "steps": {step.title: steps[step.title] for step in STEPS if step.title in steps},
    }
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
