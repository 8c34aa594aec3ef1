"""Measure methods on cases, one at a time, each in a fresh process."""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from dynal_fast.bench.cases import Case, GradientCase, StatisticsCase, as_record
from dynal_fast.bench.competitors.base import Method
from dynal_fast.bench.extrapolation import Limits
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.record import Measurement


@dataclass(frozen=True)
class Settings:
    """How to measure: device, threads, limits, and a lock that other runs wait for.

    No measurement begins after ``deadline``, in the time of ``time.monotonic()``.
    """

    threads: int
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    lock: Path | None = None
    deadline: float = math.inf


def measure(case: Case, method: Method, settings: Settings, check: bool = True) -> Measurement:
    """Measure one method on one case in a fresh process, or say why that is not possible."""
    measurement = Measurement(case=as_record(case), method=method.name, note=method.note)
    reason = method.missing() or method.refuses(case)
    if not reason and settings.device != "cpu" and not method.on_gpu:
        reason = "runs on CPUs only"
    if not reason and time.monotonic() > settings.deadline:
        reason = "no time was left"
    if reason:
        return dataclasses.replace(measurement, unavailable=reason)
    limits = settings.limits
    result = call(
        "dynal_fast.bench.worker:measure_method",
        {
            "case": as_record(case),
            "method": method.name,
            "limits": dataclasses.asdict(limits),
            "device": settings.device,
            "check": check,
        },
        threads=settings.threads,
        # One run, and beside it loading, pilots, repetitions and the check of the answer.
        timeout=180 + 10 * limits.seconds + 2 * limits.repeat_seconds + check_seconds(case),
        lock=settings.lock,
    )
    return dataclasses.replace(measurement, **result)


def check_seconds(case: Case) -> float:
    """How long our whole run and its float64 certificate may take at most, on a slow machine."""
    if isinstance(case, StatisticsCase):
        return 1e-8 * case.n * case.classes * case.epochs
    if isinstance(case, GradientCase):
        return 4e-10 * case.n * case.k * (case.classes + case.d)
    return 4e-10 * case.n * (case.labeled + case.k) * case.d
