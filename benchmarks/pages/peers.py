"""The table of the page on research code, from the record of ``python -m benchmarks.peers``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages.markers import markdown_table
from dynal_fast.bench.table import bytes_text, ratio_text, seconds_text, two_digits

RECORD = Path("benchmarks", "results", "peers.json")
HEADER = ("step", "usual size", "lines", "same picks", "their time", "ours", "× ours")
HEADER += ("their peak memory", "ours")


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
