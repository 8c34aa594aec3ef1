"""The command line of the benchmark: ``dynal-fast bench``."""

import argparse
import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynal_fast.bench.suites import Plan

DESCRIPTION = """
Measure the time and peak memory of a selection, beside what people use today, each in a fresh
process. By default one traversal and one set of statistics of the sizes given, in a few minutes.
Libraries that are not installed are left out, with the reason; dynal_fast[competitors] has them.
"""

EXAMPLES = """
examples:
  # sizes like yours
  dynal-fast bench --n 50000 --d 512 --classes 100 --labeled 5000 -k 1000

  # two sizes of pool
  dynal-fast bench --n 50000 --n 150000 --labeled 25000 -k 4000

  # your own embeddings
  dynal-fast bench --features pool.npy --labeled-features labeled.npy -k 1000

  # everything on the results page: sizes of the papers, growth curves, end to end
  dynal-fast bench --full -o results
"""


def add_bench(commands: Any) -> None:
    """Add the subcommand to an argparse ``commands``."""
    bench = commands.add_parser(
        "bench",
        help="measure time and memory per selection, beside what others take",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument(
        "--n", type=int, action="append", help="pool samples; may be repeated (default: 20000)"
    )
    bench.add_argument("--d", type=int, default=512, help="embedding dimensions (default: 512)")
    bench.add_argument("-k", type=int, default=1000, help="picks (default: 1000)")
    bench.add_argument(
        "--labeled", type=int, default=2000, help="labeled samples beside the pool (default: 2000)"
    )
    bench.add_argument("--classes", type=int, default=100, help="classes (default: 100)")
    bench.add_argument("--features", metavar="POOL.npy", help="your embeddings, (n, d) float32")
    bench.add_argument("--labeled-features", metavar="LABELED.npy", help="your labeled embeddings")
    bench.add_argument("--full", action="store_true", help="the whole suite instead")
    bench.add_argument(
        "--part",
        choices=("all", "cases", "growth", "end-to-end"),
        default="all",
        help="with --full: this part of it, into the same record (default: all)",
    )
    bench.add_argument("--only", metavar="TEXT", help="only cases whose title has TEXT in it")
    bench.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="only these methods, by their names in the table",
    )
    bench.add_argument(
        "--data-root",
        metavar="DIR",
        help="the folder that holds mnist/ (default: DYNAL_FAST_DATA, else ../shared/data)",
    )
    bench.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    bench.add_argument("--threads", type=int, help="default: torch.get_num_threads()")
    bench.add_argument(
        "--limit",
        type=float,
        help="seconds that one run may take before it is extrapolated from a smaller one "
        "(default: 10; 12 with --full)",
    )
    bench.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin no measurement after so long; those left out say so (default: no limit)",
    )
    bench.add_argument(
        "--memory-limit", type=float, default=6, help="the same for memory, in GB (default: 6)"
    )
    bench.add_argument("--repeats", type=int, default=5, help="runs at most (default: 5)")
    bench.add_argument(
        "--lock", type=Path, help="a file that runs share so that they do not measure at once"
    )
    bench.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("bench-results"),
        help="folder of the JSON record and the picture (default: bench-results)",
    )
    bench.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the tables as they come, write the record and the picture."""
    import numpy as np
    import torch

    from dynal_fast.bench import suites
    from dynal_fast.bench.cases import Case, TraversalCase
    from dynal_fast.bench.extrapolation import Limits
    from dynal_fast.bench.measure import Settings
    from dynal_fast.bench.picture import draw
    from dynal_fast.bench.record import Measurement, Record, file_name, new_record
    from dynal_fast.bench.table import full_text, row

    if arguments.data_root:
        os.environ["DYNAL_FAST_DATA"] = os.path.abspath(arguments.data_root)
    threads = arguments.threads or torch.get_num_threads()
    limit = arguments.limit or (12 if arguments.full else 10)
    settings = Settings(
        threads=threads,
        device=arguments.device,
        limits=Limits(
            seconds=limit,
            memory_bytes=arguments.memory_limit * 1e9,
            repeats=arguments.repeats,
            repeat_seconds=min(limit, 8),
        ),
        lock=arguments.lock,
        deadline=time.monotonic() + 60 * arguments.minutes,
    )
    plans: list[suites.Plan]
    if arguments.full:
        plans = suites.FULL
    elif arguments.features:
        shape = np.load(arguments.features, mmap_mode="r", allow_pickle=False).shape
        if len(shape) != 2:
            raise ValueError(f"--features must have shape (n, d), got {shape}")
        labeled_file = arguments.labeled_features or ""
        labeled = len(np.load(labeled_file, mmap_mode="r")) if labeled_file else 0
        n, d = shape
        case = TraversalCase(arguments.features, n, d, arguments.k, labeled, labeled_file)
        plans = [(case, ())]
    else:
        plans = []
        for n in arguments.n or [20_000]:
            plans += suites.quick(n, arguments.d, arguments.k, arguments.labeled, arguments.classes)
    if arguments.only:
        plans = [plan for plan in plans if arguments.only in plan[0].title()]
    if arguments.methods:
        plans = _only_methods(plans, arguments.methods)

    record = new_record(recorded_command(arguments), threads, arguments.device)
    path = arguments.output / file_name(record)
    if path.exists() and (earlier := Record.load(path)).continues(record):
        record = earlier

    shown: list[Case] = []

    def each(case: Case, measurement: Measurement) -> None:
        if case not in shown:
            shown.append(case)
            print(f"\n{case.title()}")
        cells = row(record, measurement)
        print("  " + "  ".join(cell for cell in cells if cell), flush=True)
        record.save(path)

    whole = arguments.full and not arguments.only and not arguments.methods
    if whole and arguments.part in ("all", "end-to-end"):
        record.splits.clear()
        suites.run_end_to_end(record, settings)
        record.save(path)
    if whole and arguments.part in ("all", "growth"):
        record.growth.clear()
        suites.run_growth(record, settings, each)
        record.save(path)
    # Last: where time runs out, it is the last case that lacks it, not a kind of measurement.
    if arguments.part in ("all", "cases"):
        suites.run_plans(plans, record, settings, each)
    record.save(path)
    draw(record, path.with_suffix(".png"))
    print(f"\n{full_text(record)}\n\n{path}, {path.with_suffix('.png')}")


def _only_methods(plans: "Sequence[Plan]", names: Sequence[str]) -> "list[Plan]":
    """The plans with no other methods than those named, without the plans that have none."""
    from dynal_fast.bench.competitors import methods

    known = {case.operation: methods(case.operation) for case, _ in plans}
    every = [name for by_name in known.values() for name in by_name]
    for name in names:
        if name not in every:
            raise ValueError(f"--methods must be among {', '.join(every)}, got {name!r}")
    kept = [(case, [name for name in known[case.operation] if name in names]) for case, _ in plans]
    return [(case, chosen) for case, chosen in kept if chosen]


def recorded_command(arguments: argparse.Namespace) -> str:
    """What to type for the same again: ``make bench`` for the whole suite."""
    in_part = arguments.part != "all" or arguments.only or arguments.methods
    if arguments.full and not in_part:
        return "make bench"
    return shlex.join(["dynal-fast", *sys.argv[1:]])
