"""One part of the GPU run in a process of its own: what it breaks, it breaks for itself alone.

``python -m benchmarks.gpu.part NAME RESULTS`` appends a line of JSON to the file RESULTS for every
result, so that those before a crash or a time limit are kept.
"""

import argparse
import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import SECTIONS
from benchmarks.gpu.races import find_races
from benchmarks.gpu.timing import Figure, Setting, measure_ceilings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.part", description=__doc__)
    parser.add_argument("name", choices=("ceilings", *SECTIONS, "races"))
    parser.add_argument("results", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--ceilings", type=json.loads, default={})
    options = parser.parse_args()
    setting = Setting(
        torch.device(options.device), options.smoke, options.backend, options.ceilings
    )
    for result in run(options.name, setting, options.repeats):
        with options.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(line(result), flush=True)


def run(name: str, setting: Setting, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield the results of one part."""
    if name == "ceilings":
        yield {"ceilings": measure_ceilings(setting)}
    elif name == "races":
        for case, differing in find_races(setting, repeats):
            yield {"race": case, "repeats": repeats, "differing": differing}
    else:
        for figure in importlib.import_module(f"benchmarks.gpu.{name}").figures(setting):
            yield {"figure": {**asdict(figure), "of_bound": figure.of_bound}}


def line(result: dict[str, Any]) -> str:
    """One line for the reader."""
    if "figure" not in result:
        return json.dumps(result)
    figure = Figure(**{name: v for name, v in result["figure"].items() if name != "of_bound"})
    if figure.ms is None:
        return f"{figure.name:<46} -  {figure.details}"
    text = f"{figure.name:<46}{figure.ms:10.4f} ms"
    if figure.of_bound is not None:
        text += f"  {100 * figure.of_bound:5.1f}% of the bound {figure.bound_ms:.4f} ms"
    return text


if __name__ == "__main__":
    main()
