"""The suites of `dynal-fast bench`: which cases and methods, in which order."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from dynal_fast.bench.cases import Case, GradientCase, StatisticsCase, TraversalCase
from dynal_fast.bench.competitors import methods
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.cycles import KINDS
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.growth import CURVES, Curve, grow
from dynal_fast.bench.inputs import lacking
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.record import Measurement, Record, Split
from dynal_fast.bench.table import split_row

BASELINES = (OURS, "one torch.mm (yardstick)", "BLAS loop")
STRONGEST = (OURS, "BLAS loop")
NOTHING_LABELED = (  # methods that take no labeled set
    "scikit-matter VoronoiFPS",
    "anomalib KCenterGreedy",
    "anomalib KCenterGreedy, no projection",
    "fpsample bucket_fps_kdtree",
    "GUDHI choose_n_farthest_points",
    "GUDHI choose_n_farthest_points, fast=False",
)
HEADLINE = TraversalCase("clustered", 150_000, 512, 4000, labeled=25_000)
WORST = dataclasses.replace(HEADLINE, inputs="gaussian")
FROM_NOTHING = TraversalCase("clustered", 50_000, 512, 5000)
IMAGES = TraversalCase("lenet-mnist", 50_000, 512, 2000, labeled=10_000)
TEXTS = TraversalCase("minilm-synopses", 40_000, 384, 2000, labeled=10_000)
STATISTICS = [StatisticsCase(150_000, classes, 10) for classes in (10, 100, 1000)]
FEW_DIMENSIONS = TraversalCase("gaussian", 100_000, 3, 2000)
GRADIENTS = GradientCase(20_000, 100, 768, 1000)
LONG_HISTORY = StatisticsCase(150_000, 100, 100)

CYCLES = 2  # of each way

# A case and the methods to measure on it; an empty sequence means all.
Plan = tuple[Case, Sequence[str]]

FULL: list[Plan] = [
    (HEADLINE, ()),
    *((case, ()) for case in STATISTICS),
    (WORST, BASELINES),
    (FROM_NOTHING, (*STRONGEST, *NOTHING_LABELED)),
    (FEW_DIMENSIONS, (*STRONGEST, "fpsample fps_sampling", *NOTHING_LABELED)),
    (LONG_HISTORY, (OURS, "NumPy, full history", "torch, full history")),
    (GRADIENTS, ()),
    (IMAGES, BASELINES),
    (TEXTS, BASELINES),
    (TraversalCase("digits", 1500, 64, 200, labeled=200), ()),
    (TraversalCase("flipped", 100_000, 512, 4000, labeled=10_000), STRONGEST),
    (TraversalCase("bootstrap", 150_000, 512, 4000, labeled=25_000), STRONGEST),
]


def quick(n: int, d: int, k: int, labeled: int, classes: int) -> list[Plan]:
    """A traversal, statistics and a draw of BADGE of the user's sizes, with every method."""
    return [
        (TraversalCase("clustered", n, d, k, labeled=labeled), ()),
        (StatisticsCase(n, classes, 10), ()),
        (GradientCase(n, classes, d, k), ()),
    ]


def run_plans(
    plans: Sequence[Plan],
    record: Record,
    settings: Settings,
    each: Callable[[Case, Measurement], None],
) -> None:
    """Measure every plan into ``record``; ``each`` is told of every measurement.

    Ours is measured before and after the others, and all its repetitions count, so its spread shows
    how steady the machine was.
    """
    for case, names in plans:
        available = methods(case.operation)
        chosen = [available[name] for name in names] if names else list(available.values())
        if lacking(case.inputs):
            for method in chosen:
                refused = dataclasses.replace(method, refuses=lambda case: lacking(case.inputs))
                skipped = measure(case, refused, settings)
                record.add(skipped)
                each(case, skipped)
            continue
        for method in chosen:
            measurement = measure(case, method, settings)
            record.add(measurement)
            each(case, measurement)
        if chosen[0].name == OURS and len(chosen) > 1:
            again = measure(case, chosen[0], settings, check=False)
            first = record.find(case, OURS)
            if first is not None and not again.unavailable:
                first.seconds += again.seconds
                first.pass_seconds += again.pass_seconds
                first.others = max(first.others, again.others)


def run_growth(
    record: Record,
    settings: Settings,
    each: Callable[[Case, Measurement], None],
    curves: Sequence[Curve] = tuple(CURVES),
) -> None:
    """Measure the growth curves into ``record``."""
    for curve in curves:
        record.growth.append(grow(curve, settings, lambda point: each(point.of, point)))


def run_end_to_end(
    record: Record, settings: Settings, say: Callable[[str], None], n: int = 50_000
) -> None:
    """Measure an epoch of observation and a cycle, with and without the package.

    The ways of a cycle take turns, each in a fresh process; medians of each part. ``say`` is told
    of every measurement.
    """

    def split(case: str, method: str, function: str, /, **arguments: object) -> Split:
        if time.monotonic() > settings.deadline:
            result: dict[str, Any] = {"unavailable": "no time was left"}
        else:
            result = call(
                f"dynal_fast.bench.{function}",
                {**arguments, "device": settings.device},
                threads=settings.threads,
                timeout=600,
                lock=settings.lock,
            )
        measured = Split(case, method, **result)
        say(" ".join(filter(None, split_row(measured))))
        return measured

    images = f"{n:,} images of 28 × 28, LeNet"
    epoch = f"one epoch over the pool: {images}"
    record.splits.append(split(epoch, "", "end_to_end:observing", n=n, batch=512, repeats=3))
    for kind, text in KINDS.items():
        # The first cycle is that of earlier records; the others have a fifth of its pool.
        samples, epochs = (n, 2) if kind == "farthest_first" else (n // 5, 10)
        sizes = {"n": samples, "labeled": samples // 5, "k": samples // 25, "epochs": epochs}
        what = "samples" if kind == "frozen" else "images of 28 × 28, LeNet"
        picks = f"{sizes['k']:,} picks"
        title = (
            f"one cycle: {samples:,} {what}, {sizes['labeled']:,} labeled, {epochs} epochs, "
            f"{text.replace('picks', picks)}"
        )
        runs: dict[str, list[Split]] = {"without": [], OURS: []}
        for _ in range(CYCLES):
            for method, taken in runs.items():
                ours = method == OURS
                taken.append(
                    split(title, method, "cycles:cycle", kind=kind, with_package=ours, **sizes)
                )
        record.splits += [median_split(taken) for taken in runs.values()]


def median_split(runs: Sequence[Split]) -> Split:
    """The medians of the same split measured several times; of those that have figures.

    The peak of memory is the lowest one: the others include fragmentation of the heap.
    """
    known = [run for run in runs if not run.unavailable]
    if not known:
        return runs[0]
    parts, spread = {}, {}
    for name in known[0].parts:
        values = [run.parts[name] for run in known]
        parts[name] = statistics.median(values)
        spread[name] = [min(values), max(values)]
    memory = [run.memory_bytes for run in known if run.memory_bytes is not None]
    peak = min(memory, default=None)
    return dataclasses.replace(known[0], parts=parts, memory_bytes=peak, spread=spread)
