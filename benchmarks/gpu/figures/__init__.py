"""The figures: each case makes its inputs, runs, is timed and is checked.

A module here has ``cases(job) -> Iterator[Case]`` and ``run(job)``, which is `run` of its cases.
The warm-up runs the same cases once, so it compiles exactly what they launch.
"""

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from benchmarks.gpu import kernels, launches, timing
from benchmarks.gpu.job import Job, Lines


class Case(NamedTuple):
    """One or several figures of one set of inputs; ``needs`` names our kernels that they run."""

    name: str
    needs: kernels.Needs
    run: Callable[[], Lines]


def run(job: Job, cases: Iterable[Case]) -> Lines:
    """Measure each case; if one fails, the others still run, unless the device is lost."""
    with kernels.left_out(job.without), launches.compiled() as compiled:
        for case in cases:
            if lacking := kernels.missing(case.needs, job.without):
                yield {"kind": "figure", "name": case.name, "left_out": f"without {lacking}"}
                continue
            try:
                yield from case.run()
            except Exception as error:
                yield {"kind": "figure", "name": case.name, "failed": repr(error)[:500]}
                timing.synchronize(job)  # raises if the device is lost to this process
            if job.on_gpu:
                torch.cuda.empty_cache()
    yield {"kind": "compiled", "kernels": sorted(set(compiled))}


def measured(
    job: Job,
    name: str,
    call: Callable[[], Any],
    *,
    error: Callable[[Callable[[], Any]], dict[str, Any]],
    bound: dict[str, Any] | None = None,
    graph: bool = True,
    repeats: int = 20,
    warm_up: int = 3,
    **details: Any,
) -> dict[str, Any]:
    """One figure: run ``call``, time it (in a CUDA graph), and have ``error`` check what was timed.

    ``error(call)`` runs the call as it likes and returns how far off its results are.
    """
    with launches.launched() as ran:
        call()
    line: dict[str, Any] = {"kind": "figure", "name": name, "kernel": ran or ["torch"]}
    if job.warm:
        timing.synchronize(job)
        return line
    line["peak_bytes"] = timing.peak_bytes(job, call)
    timed = timing.captured(job, call) if graph else call
    values = timing.times(job, timed, repeats, warm_up, head_start=graph)
    line |= summary(values) | with_bound(statistics.median(values), bound) | details
    try:
        line["error"] = error(timed)
    except Exception as failure:
        line["error"] = {"failed": repr(failure)[:300]}
    return line


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "ms": statistics.median(values),
        "spread": timing.spread(values),
        "repeats": len(values),
    }


def with_bound(ms: float, bound: dict[str, Any] | None) -> dict[str, Any]:
    """Return the bound, and which share of its ceiling the measured time reaches."""
    return bound | {"of_ceiling": bound["bound_ms"] / ms} if bound else {}
