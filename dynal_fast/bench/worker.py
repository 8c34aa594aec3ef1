"""Measure one method on one case in this process; `measure` starts a fresh process for each."""

import contextlib
import dataclasses
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dynal_fast.bench.cases import Case, GradientCase, StatisticsCase, from_record
from dynal_fast.bench.competitors import method_for
from dynal_fast.bench.competitors.base import OURS, Method, Size, Streamed
from dynal_fast.bench.exactness import judge_draw, judge_picks, judge_scores, judge_traversal
from dynal_fast.bench.extrapolation import (
    Limits,
    Run,
    describe,
    largest_within,
    longest_pilot,
    pilots,
    predict_memory,
    predict_seconds,
)
from dynal_fast.bench.fresh_process import failure
from dynal_fast.measured import measured


def full_size(case: Case) -> Size:
    """The size of the whole job."""
    if isinstance(case, StatisticsCase):
        return Size(case.epochs, 0)
    return Size(case.k, case.labeled)


def measure_method(
    case: dict[str, Any], method: str, limits: dict[str, Any], device: str, check: bool
) -> dict[str, Any]:
    """What ``record.Measurement`` holds beside the case and the method's name.

    ``check``: whether the answer is compared with the exact one.
    """
    measured_case = from_record(case)
    return measure_in_this_process(
        measured_case, method_for(measured_case, method), Limits(**limits), device, check
    )


def measure_in_this_process(
    case: Case, method: Method, limits: Limits, device: str, check: bool
) -> dict[str, Any]:
    """The same for a method that need not be registered."""
    result: dict[str, Any] = {"defect": method.defect()}
    try:
        return result | _figures(case, method, limits, device, check)
    except Exception as error:
        return result | failure(error)


def _figures(
    case: Case, method: Method, limits: Limits, device: str, check: bool
) -> dict[str, Any]:
    data = _to(case.load(), device)
    _warm_up(case, method, data)
    job = method.prepare(case, data)
    full = full_size(case)
    noun = "epochs" if isinstance(case, StatisticsCase) else "picks"
    measure = _Measurer(job, torch.device(device))
    terms, memory_terms = (
        lambda size, of=of: of(size, case.n)
        for of in (method.terms, method.memory_terms or method.terms)
    )
    runs: list[Run] = []
    size = full
    if method.name != OURS and method.exact_from != "nothing":
        runs = [measure(pilot) for pilot in pilots(full)]
        runs.append(measure(longest_pilot(terms, memory_terms, runs, full, limits)))
        if runs[-1].size != full:  # pilots that took too long must suffice
            size = largest_within(terms, memory_terms, runs, full, limits) or runs[-1].size
    if not runs or size != runs[-1].size:
        measure.others = 0.0
        runs.append(measure(size))
        if size != full and largest_within(terms, memory_terms, runs, full, limits) == full:
            size = full  # faster than the pilots predicted
            runs.append(measure(full))
    last, answer = runs[-1], measure.answer
    made = [last]
    if size == full:
        repeats = int(limits.repeat_seconds / max(last.seconds, 1e-9))
        made += [measure(full) for _ in range(min(repeats, limits.repeats) - 1)]
        result = {
            "seconds": [run.seconds for run in made],
            "memory_bytes": last.memory_bytes,
            "extrapolated": "",
        }
    else:
        result = {
            "seconds": [predict_seconds(terms, runs, full)],
            "memory_bytes": predict_memory(memory_terms, runs, full),
            "extrapolated": describe(runs, full, noun),
        }
    result |= {
        "pass_seconds": [seconds for run in made for seconds in run.pass_seconds],
        "memory_method": measure.memory_method,
        "others": measure.others,
    }
    if check:
        result["exactness"] = _judge(case, method, data, answer, size)
    return result


class _Measurer:
    """Runs a job at a size; keeps the last answer, picks or scores."""

    def __init__(self, job: Callable[[Size], Any], device: torch.device) -> None:
        self.job = job
        self.device = device
        self.answer: Any = None
        self.memory_method = ""
        self.others = 0.0

    def __call__(self, size: Size) -> Run:
        self.answer = None
        gc.collect()
        with others_share() as others, measured(self.device) as step:
            self.answer = self.job(size)
        self.others = max(self.others, others[0])
        self.memory_method = step.memory_method
        pass_seconds: list[float] = []
        if isinstance(self.answer, Streamed):
            self.answer, pass_seconds = self.answer
        return Run(size, step.seconds, step.peak_extra_bytes, pass_seconds)


@contextlib.contextmanager
def others_share() -> Iterator[list[float]]:
    """The share of the machine's CPU time that other processes take inside the block, 0 to 1.

    0 where ``/proc/stat`` does not tell.

    >>> with others_share() as others:
    ...     time.sleep(0.02)
    >>> 0 <= others[0] <= 1
    True
    """
    share = [0.0]
    start, own, total = time.perf_counter(), time.process_time(), _busy_seconds()
    yield share
    wall = time.perf_counter() - start
    if total is not None and wall > 0.1:  # /proc/stat counts in hundredths of a second
        busy = (_busy_seconds() or total) - total - (time.process_time() - own)
        share[0] = min(max(busy / (wall * (os.cpu_count() or 1)), 0.0), 1.0)


def _busy_seconds() -> float | None:
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft_interrupts, *_ = map(int, fields)
    busy = user + nice + system + interrupts + soft_interrupts
    return busy / os.sysconf("SC_CLK_TCK")


def _warm_up(case: Case, method: Method, data: Any) -> None:
    """Run a small part first, so that imports, thread pools and compilation are not measured.

    Statistics are run on two sizes of pool: a compiler then expects the size to vary.
    """
    small: Case
    if isinstance(case, StatisticsCase):
        rest = case.n % case.batch
        for rows in {min(case.n, case.batch + rest), min(case.n, 2 * case.batch + rest)}:
            small = dataclasses.replace(case, n=rows, epochs=min(2, case.epochs))
            method.prepare(small, data)(full_size(small))
        return
    if isinstance(case, GradientCase):
        small = dataclasses.replace(case, n=min(case.n, 200), k=min(case.k, 4))
        method.prepare(small, tuple(part[: small.n] for part in data))(full_size(small))
        return
    pool, labeled = data
    small = dataclasses.replace(
        case, n=min(case.n, 1000), labeled=min(case.labeled, 64), k=min(case.k, 4)
    )
    cut = None if labeled is None else labeled[: small.labeled]
    method.prepare(small, (pool[: small.n], cut))(full_size(small))


def _judge(case: Case, method: Method, data: Any, answer: Any, size: Size) -> dict[str, Any]:
    if method.exact_from == "nothing":
        return {}
    if isinstance(case, StatisticsCase):
        return judge_scores(case, data, answer, size)
    if isinstance(case, GradientCase):
        return judge_draw(data, answer, size.amount)
    pool, labeled = data
    cut = None if labeled is None else labeled[: size.labeled]
    if method.name == OURS:
        return judge_traversal(pool, cut, answer)
    return judge_picks(pool, cut, answer, size.amount, method.random_start)


def _to(data: Any, device: str) -> Any:
    if isinstance(data, tuple):
        return tuple(_to(part, device) for part in data)
    return data if data is None else data.to(device)
