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
from benchmarks.peers.sources import MissingError, obtain
from benchmarks.peers.steps import STEPS, Size, Step, lines_of
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.record import device_name
from dynal_fast.files import write_atomically
from dynal_fast.measured import measured

SCHEMA = "peers-1"
LIBRARIES = ("scikit-activeml", "small-text", "scikit-learn", "numpy", "torch")
REPEATS = 3  # of ours, and of theirs where it takes below ten seconds
TIMEOUT = 1800


def run(title: str, ours: bool, picks: int, sources: str) -> dict[str, Any]:
    """Select once, in a process of its own; return seconds, bytes and the picks."""
    step = next(step for step in STEPS if step.title == title)
    small = Size(256, step.size.d, min(step.size.labeled, 16), 2)
    step.prepare(step, small, ours, Path(sources))(2)  # load what is loaded when first called
    select = step.prepare(step, step.size, ours, Path(sources))
    with measured() as cost:
        got = select(picks)
    picked = np.asarray(got).tolist()
    return {"seconds": cost.seconds, "bytes": cost.peak_extra_bytes, "picks": picked}


def compare(step: Step, sources: Path, threads: int) -> dict[str, Any]:
    """Return what a step costs, theirs and ours, and whether both pick the same samples."""

    def cost(ours: bool, picks: int) -> dict[str, Any]:
        arguments = {"title": step.title, "ours": ours, "picks": picks, "sources": str(sources)}
        function = f"{__name__}:run"
        got = call(function, arguments, threads=threads, timeout=TIMEOUT)
        if "unavailable" in got:
            raise RuntimeError(f"{step.title}: {got['unavailable']}")
        return got

    wanted = step.size.picks
    tried = [*step.tried, wanted] if not step.tried else list(step.tried)
    theirs = [cost(False, picks) for picks in tried]
    ours = [cost(True, wanted)]
    for _ in range(REPEATS - 1):
        if not step.tried and theirs[0]["seconds"] < 10:
            theirs.append(cost(False, wanted))
        ours.append(cost(True, wanted))
    few = ours[0] if tried[-1] == wanted else cost(True, tried[-1])
    return {
        "size": [step.size.n, step.size.d, step.size.labeled, wanted],
        "lines": lines_of(step, sources),
        "same": few["picks"] == theirs[len(tried) - 1]["picks"],
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
    path = root / RECORD
    old = json.loads(path.read_text()) if path.exists() else {}
    steps = old.get("steps", {}) if only else {}
    for step in STEPS:
        if only not in (None, step.peer or step.title.split()[0]):
            continue
        try:
            if step.peer:
                obtain(step.peer, folder)
            steps[step.title] = compare(step, folder.resolve(), threads)
        except (MissingError, RuntimeError) as error:
            print(f"left out: {error}")
            continue
        print(" | ".join(row(step.title, steps[step.title])), flush=True)
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
