"""What `dynal-fast bench` measures, and in which order."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dynal_fast.bench.cases import Case, StatisticsCase, TraversalCase
from dynal_fast.bench.competitors import OURS, methods
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.growth import CURVES, Curve, grow
from dynal_fast.bench.inputs import cache_folder, data_folder
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.record import Measurement, Record, Split

BASELINES = (OURS, "one torch.mm (yardstick)", "BLAS loop")
STRONGEST = (OURS, "BLAS loop")
NOTHING_LABELED = (  # those that take no labeled set
    "scikit-matter VoronoiFPS",
    "anomalib KCenterGreedy",
    "anomalib KCenterGreedy, no projection",
    "fpsample bucket_fps_kdtree",
    "GUDHI choose_n_farthest_points",
)
HEADLINE = TraversalCase("clustered", 150_000, 512, 4000, labeled=25_000)
WORST = dataclasses.replace(HEADLINE, inputs="gaussian")
FROM_NOTHING = TraversalCase("clustered", 50_000, 512, 5000)
STATISTICS = [StatisticsCase(150_000, classes, 10) for classes in (10, 100, 1000)]
LONG_HISTORY = StatisticsCase(150_000, 100, 100)

# A case and the methods to measure on it; none named: all.
Plan = tuple[Case, Sequence[str]]

FULL: list[Plan] = [
    (HEADLINE, ()),
    *((case, ()) for case in STATISTICS),
    (WORST, BASELINES),
    (FROM_NOTHING, (*STRONGEST, *NOTHING_LABELED)),
    (LONG_HISTORY, (OURS, "NumPy, full history", "torch, full history")),
    (TraversalCase("lenet-mnist", 50_000, 512, 2000, labeled=10_000), BASELINES),
    (TraversalCase("digits", 1500, 64, 200, labeled=200), ()),
    (TraversalCase("flipped", 100_000, 512, 4000, labeled=10_000), STRONGEST),
    (TraversalCase("bootstrap", 150_000, 512, 4000, labeled=25_000), STRONGEST),
]


def quick(n: int, d: int, k: int, labeled: int, classes: int) -> list[Plan]:
    """One traversal and one set of statistics of the user's sizes, with every method."""
    return [
        (TraversalCase("clustered", n, d, k, labeled=labeled), ()),
        (StatisticsCase(n, classes, 10), ()),
    ]


def run_plans(
    plans: Sequence[Plan],
    record: Record,
    settings: Settings,
    each: Callable[[Case, Measurement], None],
) -> None:
    """Measure every plan into ``record``; ``each`` is told of every measurement.

    Ours is measured before and after the others, and all its repetitions count: whatever the
    machine does meanwhile shows in its spread.
    """
    for case, names in plans:
        available = methods(case.operation)
        chosen = [available[name] for name in names] if names else list(available.values())
        if reason := _lacking(case):
            for method in chosen:
                skipped = measure(case, dataclasses.replace(method, refuses=reason), settings)
                record.add(skipped)
                each(case, skipped)
            continue
        for method in chosen:
            measurement = measure(case, method, settings)
            record.add(measurement)
            each(case, measurement)
        if chosen[0].name == OURS and len(chosen) > 1 and record.measurements:
            again = measure(case, chosen[0], settings, check=False)
            first = record.find(case, OURS)
            if first is not None and not again.unavailable:
                first.seconds += again.seconds
                first.others = max(first.others, again.others)


def _lacking(case: Case) -> Callable[[Case], str] | None:
    """Why the inputs of a case are not here, as a method's refusal."""
    if case.inputs != "lenet-mnist" or (cache_folder() / "lenet-mnist").exists():
        return None
    folder = data_folder()
    if any(Path(folder, name).exists() for name in ("mnist", "MNIST")):
        return None
    return lambda _: f"MNIST is not in {os.fspath(folder)} (DYNAL_FAST_DATA)"


def run_growth(
    record: Record,
    settings: Settings,
    each: Callable[[Case, Measurement], None],
    curves: Sequence[Curve] = tuple(CURVES),
) -> None:
    """Measure the growth curves into ``record``."""
    for curve in curves:
        record.growth.append(grow(curve, settings, lambda point: each(point.of, point)))


def run_end_to_end(record: Record, settings: Settings, n: int = 50_000) -> None:
    """Measure an epoch of observation and a cycle, with and without the package."""

    def split(case: str, method: str, function: str, **arguments: object) -> None:
        if time.monotonic() > settings.deadline:
            record.splits.append(Split(case, method, {}, unavailable="no time was left"))
            return
        result = call(
            f"dynal_fast.bench.end_to_end:{function}",
            {**arguments, "device": settings.device},
            threads=settings.threads,
            timeout=600,
            lock=settings.lock,
        )
        record.splits.append(Split(case, method, **result))

    images = f"{n:,} images of 28 × 28, LeNet"
    split(f"one epoch over the pool: {images}", "", "observing", n=n, batch=512, repeats=2)
    sizes = {"n": n, "labeled": n // 5, "k": n // 25, "epochs": 2}
    title = (
        f"one cycle: {images}, {n // 5:,} labeled, 2 epochs, each observed, "
        f"{n // 25:,} picks farthest first"
    )
    for method, ours in (("without", False), (OURS, True)):
        split(title, method, "cycle", with_package=ours, **sizes)
