"""Time and peak memory of each step, theirs and ours, in fresh processes that alternate."""

import importlib.metadata
import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.markers import markdown_table
from benchmarks.peers.sources import MissingError, obtain
from benchmarks.peers.steps import STEPS, Step, lines_of
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.record import device_name
from dynal_fast.bench.table import bytes_text, ratio_text, seconds_text, two_digits
from dynal_fast.files import write_atomically
from dynal_fast.measured import measured

SCHEMA = "peers-1"
RECORD = Path("benchmarks", "results", "peers.json")
LIBRARIES = ("scikit-activeml", "small-text", "scikit-learn", "numpy", "torch")
REPEATS = 3  # of ours, and of theirs where it takes below ten seconds
TIMEOUT = 1800

HEADER = (
    "step", "usual size", "lines", "same picks", "their time", "ours", "× ours", "their peak memory",
    "ours",
)  # fmt: skip


def run(title: str, ours: bool, picks: int, sources: str) -> dict[str, Any]:
    """Select once, in a process of its own; return seconds, bytes and the picks."""
    step = next(step for step in STEPS if step.title == title)
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


def row(title: str, got: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a step's line of the table."""
    n, d, labeled, picks = got["size"]
    rounded = two_digits if got["extrapolated"] else float
    about = "≈ " if got["extrapolated"] else ""
    theirs, ours = got["theirs"], got["ours"]
    before, after = got["lines"]
    same = "yes" if got["same"] else "no"
    return (
        title,
        f"{picks:,} of {n:,} × {d}, {labeled:,} labeled",
        f"{before} → {after}",
        same if got["compared"] == picks else f"{same}, the first {got['compared']}",
        about + seconds_text(rounded(theirs["seconds"])),
        seconds_text(ours["seconds"]),
        about + ratio_text(rounded(theirs["seconds"] / ours["seconds"])),
        about + bytes_text(rounded(theirs["bytes"])),
        bytes_text(ours["bytes"]),
    )


def page_table(root: Path) -> str:
    """Return the table of ``docs/how-to/use-it-in-research-code.md``, from the record."""
    record = json.loads((root / RECORD).read_text())
    table = markdown_table(HEADER, [row(title, got) for title, got in record["steps"].items()])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{table}\n\n{record['device']}, {record['threads']} threads, {record['date']}, "
        f"`{record['command']}`, recorded in `{RECORD}`, with {versions}."
    )
