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
    from dynal_fast.bench.record import Record
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


MEMORY_LIMIT, REPEATS = 6, 5
MAKE_MINUTES = 45  # of `make bench`
PLACES = ("-o", "--output", "--data-root", "--lock")
SIZES = {
    "n": "pool samples; may be repeated",
    "d": "embedding dimensions",
    "k": "picks",
    "labeled": "labeled samples beside the pool",
    "classes": "classes",
}
DEFAULTS = {"n": 20_000, "d": 512, "k": 1000, "labeled": 2000, "classes": 100}
LEAST = {"n": 1, "d": 1, "k": 1, "labeled": 0, "classes": 2}


def add_bench(commands: Any) -> None:
    """Add the subcommand to an argparse ``commands``."""
    bench = commands.add_parser(
        "bench",
        help="measure time and memory per selection, beside what others take",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, text in SIZES.items():
        bench.add_argument(
            f"--{name}" if len(name) > 1 or name in "nd" else f"-{name}",
            type=int,
            action="append" if name == "n" else "store",
            help=f"{text} (default: {DEFAULTS[name]})",
        )
    bench.add_argument("--features", metavar="POOL.npy", help="your embeddings, (n, d) float32")
    bench.add_argument("--labeled-features", metavar="LABELED.npy", help="your labeled embeddings")
    bench.add_argument("--full", action="store_true", help="the whole suite instead")
    bench.add_argument(
        "--part",
        choices=("all", "cases", "growth", "end-to-end"),
        default="all",
        help="with --full: this part of it, into the record of the others of this day and commit "
        "(default: all)",
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
        help="seconds that one run of the others may take before it is extrapolated from a smaller "
        "one; ours always runs whole (default: 10; 8 with --full)",
    )
    bench.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin no measurement after so long; those left out say so (default: no limit)",
    )
    bench.add_argument(
        "--memory-limit",
        type=float,
        default=MEMORY_LIMIT,
        help=f"the same for memory, in GB (default: {MEMORY_LIMIT})",
    )
    bench.add_argument(
        "--repeats", type=int, default=REPEATS, help=f"runs at most (default: {REPEATS})"
    )
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
    import torch

    from dynal_fast.bench import suites
    from dynal_fast.bench.cases import Case
    from dynal_fast.bench.extrapolation import Limits
    from dynal_fast.bench.measure import Settings
    from dynal_fast.bench.picture import draw
    from dynal_fast.bench.record import Measurement, Record, file_name, new_record
    from dynal_fast.bench.table import full_text, row
    from dynal_fast.threads import checked_threads

    if arguments.data_root:
        os.environ["DYNAL_FAST_DATA"] = os.path.abspath(arguments.data_root)
    threads = torch.get_num_threads()
    if arguments.threads is not None:
        threads = checked_threads(arguments.threads, "--threads")
    limit = arguments.limit or (8 if arguments.full else 10)
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
    plans = plans_for(arguments)
    record = new_record(recorded_command(arguments), threads, arguments.device)
    if arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"--output must be a folder, got the file {arguments.output}")
    path = arguments.output / file_name(record)
    whole = arguments.full and not (arguments.only or arguments.methods or arguments.part != "all")
    if path.exists() and not whole:
        record = _continued(Record.load(path), record, path)

    shown: list[Case] = []

    def each(case: Case, measurement: Measurement) -> None:
        if case not in shown:
            shown.append(case)
            print(f"\n{case.title()}")
        cells = row(record, measurement)
        print("  " + "  ".join(cell for cell in cells if cell), flush=True)
        record.save(path)

    unfiltered = arguments.full and not arguments.only and not arguments.methods
    if unfiltered and arguments.part in ("all", "end-to-end"):
        record.splits.clear()
        print("end to end", flush=True)
        suites.run_end_to_end(record, settings, lambda line: print(f"  {line}", flush=True))
        record.save(path)
    if unfiltered and arguments.part in ("all", "growth"):
        record.growth.clear()
        suites.run_growth(record, settings, each)
        record.save(path)
    # Cases come last: if time runs out, the last cases are missing, not a whole kind of figures.
    if arguments.part in ("all", "cases"):
        suites.run_plans(plans, record, settings, each)
    record.save(path)
    written = [path, *draw(record, path.with_suffix(".svg"))]
    print(f"\n{full_text(record)}\n\n{', '.join(map(str, written))}")


def plans_for(arguments: argparse.Namespace) -> "list[Plan]":
    """The cases and methods that the arguments ask for."""
    from dynal_fast.bench import suites
    from dynal_fast.bench.cases import TraversalCase

    given = [name for name in SIZES if getattr(arguments, name) is not None]
    sizes = {**DEFAULTS, **{name: getattr(arguments, name) for name in given}}
    plans: list[Plan]
    if arguments.full:
        if given or arguments.features:
            raise ValueError(f"--full has its own sizes, got --{(given or ['features'])[0]} too")
        plans = suites.FULL
    elif arguments.part != "all":
        raise ValueError(f"--part needs --full, got --part {arguments.part} alone")
    elif arguments.features:
        if set(given) - {"k"}:
            raise ValueError("--features gives all sizes but -k, got --" + " --".join(given))
        n, d = _shape_of_file(arguments.features, "--features")
        labeled_file = arguments.labeled_features or ""
        labeled = _shape_of_file(labeled_file, "--labeled-features")[0] if labeled_file else 0
        fitting = _fitting({**sizes, "n": n, "d": d, "labeled": labeled}, given)
        case = TraversalCase(arguments.features, n, d, fitting["k"], labeled, labeled_file)
        plans = [(case, ())]
    elif arguments.labeled_features:
        raise ValueError("--labeled-features needs --features, the pool's, got it alone")
    else:
        plans = []
        for n in arguments.n or [DEFAULTS["n"]]:
            plans += suites.quick(**_fitting({**sizes, "n": n}, given))
    if arguments.only:
        titles = [case.title() for case, _ in plans]
        plans = [plan for plan in plans if arguments.only in plan[0].title()]
        if not plans:
            known = "; ".join(titles)
            raise ValueError(
                f"--only must be in one of these titles: {known}; got {arguments.only!r}"
            )
    return _only_methods(plans, arguments.methods) if arguments.methods else plans


def _shape_of_file(path: str, option: str) -> tuple[int, int]:
    """The shape of a .npy file of embeddings; ValueError if it is none."""
    from dynal_fast.embeddings.formats import reader_of
    from dynal_fast.embeddings.numpy_files import open_npy
    from dynal_fast.embeddings.source import Wanted

    if reader_of(Path(path)) is not open_npy:
        raise ValueError(f"{option} must be a .npy file, got {path}; convert it with np.save")
    shape = open_npy(Path(path), Wanted()).shape
    if len(shape) != 2:
        raise ValueError(f"{option} must have shape (n, d), got {shape}")
    return shape[0], shape[1]


def _fitting(sizes: dict[str, int], given: Sequence[str]) -> dict[str, int]:
    """The sizes, with at most n picks unless ``k`` is given; ValueError for impossible sizes."""
    for name, least in LEAST.items():
        if sizes[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {sizes[name]}")
    if "k" in given and sizes["k"] > sizes["n"]:
        raise ValueError(f"k must be at most n, {sizes['n']}, got {sizes['k']}")
    return {**sizes, "k": min(sizes["k"], sizes["n"])}


def _continued(earlier: "Record", record: "Record", path: Path) -> "Record":
    """The earlier record, to measure a part of it anew, with this command beside its own."""
    if not earlier.continues(record):
        raise ValueError(
            f"--output has {path.name} of another commit, uncommitted code, other versions or "
            "threads; a part of the suite does not replace it: give another folder, or move it away"
        )
    if record.command not in earlier.command.split("; "):
        earlier.command += f"; {record.command}"
    return earlier


def _only_methods(plans: "Sequence[Plan]", names: Sequence[str]) -> "list[Plan]":
    """The plans with no other methods than those named, without the plans that have none."""
    from dynal_fast.bench.competitors import methods

    known = {case.operation: methods(case.operation) for case, _ in plans}
    every = [name for by_name in known.values() for name in by_name]
    for name in names:
        if name not in every:
            names_known = "; ".join(dict.fromkeys(every))
            raise ValueError(f"--methods must be among these: {names_known}; got {name!r}")
    kept = [(case, [name for name in known[case.operation] if name in names]) for case, _ in plans]
    return [(case, chosen) for case, chosen in kept if chosen]


def recorded_command(arguments: argparse.Namespace) -> str:
    """What to type for the same again: ``make bench`` for the whole suite as it comes.

    Without the folders of this machine.
    """
    in_part = arguments.part != "all" or arguments.only or arguments.methods
    limited = arguments.limit or arguments.memory_limit != MEMORY_LIMIT
    changed = limited or arguments.repeats != REPEATS or arguments.device != "cpu"
    if arguments.full and not in_part and not changed and not arguments.threads:
        minutes = arguments.minutes
        return "make bench" if minutes == MAKE_MINUTES else f"make bench MINUTES={minutes:g}"
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word in PLACES:
            next(words, None)
        elif word.partition("=")[0] not in PLACES:
            kept.append(word)
    return shlex.join(["dynal-fast", *kept])
