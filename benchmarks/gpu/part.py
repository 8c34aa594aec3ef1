"""Run one part in a process of its own, so that it can break nothing but itself.

``python -m benchmarks.gpu.part NAME --output DIR`` appends a line to ``DIR/results.jsonl`` for
every result, so those before a crash or a time limit are kept.
"""

import argparse
import importlib
import json
from pathlib import Path

from benchmarks.gpu import lines
from benchmarks.gpu.job import Job


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.part", description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", help="of the part, where it is not that of its module")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--small", action="store_true", help="the sizes of a rehearsal")
    parser.add_argument("--warm", action="store_true", help="everything once, untimed")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))
    parser.add_argument("--kernel", nargs="+", default=())
    parser.add_argument("--without", nargs="+", default=())
    parser.add_argument("--plant", nargs="+", default=(), metavar="KERNEL=FAULT")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which it is killed")
    parser.add_argument(
        "--failure", default="", help="of a part that fails on purpose: hang or die"
    )
    options = parser.parse_args()
    name = options.name or options.module
    module = importlib.import_module(f"benchmarks.gpu.{options.module}")
    found = lines.this_call(options.output)
    job = Job(
        output=options.output,
        device="cpu" if options.rehearse else "cuda",
        small=options.small or options.rehearse,
        rehearsal=options.rehearse,
        warm=options.warm,
        ceilings=next((line["ceilings"] for line in found if line["kind"] == "ceilings"), {}),
        without=frozenset(options.without) | refused(lines.read(options.output)),
        plants=dict(plant.split("=") for plant in options.plant),
        kernels=tuple(options.kernel),
        share=tuple(options.share),
        repeats=options.repeats,
        seconds=options.seconds,
        failure=options.failure,
    )
    for line in module.run(job):
        lines.append(options.output, {"kind": line.pop("kind"), "part": name, **line})
        print(json.dumps(line, default=str)[:1000], flush=True)


def refused(found: list[lines.Line]) -> set[str]:
    """The kernels that the gate found wrong, or that hung or died there, when it last ran."""
    last = {line["kernel"]: line["status"] for line in found if line["kind"] == "kernel"}
    return {kernel for kernel, status in last.items() if status in ("wrong", "hung", "died")}


if __name__ == "__main__":
    main()
