"""``DIR/results.jsonl``: one line per result, written at once."""

import json
import math
import os
from pathlib import Path
from typing import Any

Line = dict[str, Any]
NAME = "results.jsonl"


def append(folder: Path, line: Line) -> None:
    """Add a line in one write, so that a killed process leaves whole lines."""
    text = json.dumps(_plain(line), default=str) + "\n"
    file = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def read(folder: Path, start: int = 0) -> list[Line]:
    """The lines from byte ``start`` on, without those that are damaged, as after a full disk."""
    try:
        with open(folder / NAME, "rb") as file:
            file.seek(start)
            texts = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for text in texts:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "kind" in line:
            found.append(line)
    return found


def size(folder: Path) -> int:
    """Where the next line will start."""
    path = folder / NAME
    return path.stat().st_size if path.exists() else 0


def this_call(folder: Path) -> list[Line]:
    """The lines of the last call that wrote to the folder."""
    found = read(folder)
    starts = [i for i, line in enumerate(found) if line["kind"] == "call"]
    return found[starts[-1] :] if starts else found


def _plain(value: Any) -> Any:
    """The same in terms of JSON: NaN and infinities become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
