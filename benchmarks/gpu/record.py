"""The record of a run, made from its lines alone, so it can be made after a kill too."""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.gpu import lines, table, targets

Record = dict[str, Any]
RECORD, TABLE = "record.json", "table.txt"
# The run also writes results.jsonl, log.txt and parity.xml.
FINE = {"agrees", "not here"}


def of(found: list[lines.Line]) -> Record:
    """Keep the newest line of each figure, kernel, race and part."""
    record: Record = {
        "kind": "gpu run",
        "calls": [],
        "environment": {},
        "ceilings": {},
        "parts": {},
        "kernels": {},
        "figures": {},
        "compiled_late": {},
        "parity": {},
        "failed_tests": {},
        "races": {},
        "sanitizer": {},
        "other": [],
    }
    for line in found:
        kind, rest = line["kind"], {key: item for key, item in line.items() if key != "kind"}
        if kind == "call":
            record["calls"].append(rest)
        elif kind in ("environment", "ceilings"):
            record[kind] = rest[kind]
        elif kind == "part":
            record["parts"][rest.pop("part")] = rest
        elif kind == "kernel":
            record["kernels"][rest.pop("kernel")] = rest
        elif kind == "figure":
            record["figures"][rest.pop("name")] = rest | {"call": len(record["calls"])}
        elif kind == "compiled":
            record["compiled_late"][rest["part"]] = rest["kernels"]
        elif kind == "parity":
            record["parity"] |= {key: item for key, item in rest.items() if key != "part"}
        elif kind == "test":
            record["failed_tests"][rest["test"]] = rest["said"]
        elif kind == "race":
            record["races"][rest.pop("name")] = rest
        elif kind == "sanitizer":
            record["sanitizer"][rest.pop("case", "itself")] = rest
        else:
            record["other"].append(line)
    measured = {t: targets.value(t, record["figures"]) for t in targets.TARGETS}
    record["targets"] = [
        {
            **target._asdict(),
            "measured": number,
            "met": None if number is None else targets.is_met(target, number),
        }
        for target, number in measured.items()
    ]
    return record


def write(record: Record, folder: Path) -> Record:
    """Write the record and the table, each atomically."""
    for name, text in ((RECORD, json.dumps(record, indent=1)), (TABLE, table.of(record))):
        partial = folder / f"{name}.tmp"
        partial.write_text(text + "\n")
        os.replace(partial, folder / name)
    return record


def problems(record: Record) -> list[str]:
    """What went wrong, a sentence each. A missed target is not a problem of the run."""
    found = []
    for name, part in record["parts"].items():
        if part["outcome"] != "done" and not (
            name == "sanitizer" and part["outcome"] == "skipped: no time left"
        ):
            found.append(f"part {name}: {part['outcome']}")
    for name, kernel in record["kernels"].items():
        if kernel["status"] not in FINE:
            found.append(f"kernel {name}: {kernel['status']}")
    for name, figure in record["figures"].items():
        if "failed" in figure:
            found.append(f"figure {name}: {figure['failed'][:200]}")
        elif isinstance(figure.get("error"), dict) and "failed" in figure["error"]:
            found.append(f"figure {name} was not checked: {figure['error']['failed'][:200]}")
    for name, race in record["races"].items():
        if race.get("differing"):
            found.append(f"race in {name}: {race['differing']} of {race['repeats']} runs differ")
    if failed := record["failed_tests"]:
        found.append(f"parity: {len(failed)} tests failed, the first {next(iter(failed))}")
    if said := record["parity"].get("failed_to_run"):
        found.append(f"parity: {said}")
    for name, case in record["sanitizer"].items():
        if case.get("outcome") not in ("clean", "unasked"):
            found.append(f"sanitizer {name}: {case.get('outcome') or case['failed_to_run']}")
    return found
