"""The implementations of D² sampling, by name."""

from collections.abc import Callable

import numpy as np
import torch

from dynal_fast._triton import require_triton
from dynal_fast.ops.backends import Backends
from dynal_fast.ops.farthest_first import reference as distances
from dynal_fast.ops.farthest_first.contract import Reached, Rows
from dynal_fast.ops.farthest_first.kernels import P, on_one_scale
from dynal_fast.ops.farthest_first.reference_kernels import values_of
from dynal_fast.ops.kmeans_plusplus import lazy, reference
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, Race
from dynal_fast.ops.kmeans_plusplus.cpu import CpuRaceKernels
from dynal_fast.ops.kmeans_plusplus.kernels import RaceKernels
from dynal_fast.ops.kmeans_plusplus.reference_kernels import ReferenceRaceKernels

Draw = Callable[[Race, Reached], Drawn]


def choose(backend: str | None, device: torch.device) -> Draw:
    """Return the implementation named, or the default of ``device``."""
    if backend is None:
        backend = BACKENDS.defaults.get(device.type)
    if backend is None:
        raise ValueError(
            f"pool must be on one of the devices {tuple(BACKENDS.defaults)}, got {device}; "
            "pool.cpu() moves it to the CPU"
        )
    BACKENDS.check(backend, device)
    return BACKENDS.load(backend)


def lazily(kernels: Callable[[Rows, str], RaceKernels[P]]) -> Draw:
    """The lazy race over the primitives of a device."""

    def draw(race: Race, reached: Reached) -> Drawn:
        pool = race.problem.pool
        made = kernels(pool, race.problem.metric)
        return lazy.LazyRace(race, made, made.points(pool, "pool"), lazy.HEAD).run(reached)

    return draw


def _cpu() -> Draw:
    return lazily(CpuRaceKernels)


def _triton() -> Draw:
    require_triton()
    from dynal_fast.ops.kmeans_plusplus import triton

    return lazily(lambda pool, metric: triton.TritonRaceKernels(metric))


def _reference_lazy() -> Draw:
    return lazily(lambda pool, metric: ReferenceRaceKernels(metric))


def _reference() -> Draw:
    return _by_definition


def _by_definition(race: Race, reached: Reached) -> Drawn:
    problem, metric = race.problem, race.problem.metric
    kernels = ReferenceRaceKernels(metric)
    points, labeled = kernels.points(problem.pool, "pool"), None
    if problem.labeled is not None:
        labeled = kernels.points(problem.labeled, "labeled")
    _, _, exponent = on_one_scale(kernels, metric, points, labeled)
    pool = values_of(problem.pool)
    rates = np.full(len(pool), np.inf, dtype=np.float32)
    if problem.labeled is not None:
        distances.cover(rates, pool, values_of(problem.labeled), metric, exponent)
    if problem.labeled_indices is not None:
        labeled_rows = pool[problem.labeled_indices.cpu().numpy()]
        distances.cover(rates, pool, labeled_rows, metric, exponent)
    excluded = None
    if problem.candidates is not None:
        excluded = np.delete(np.arange(len(pool)), problem.candidates.cpu().numpy())
    order, values = reference.kmeans_plusplus(
        pool,
        problem.k,
        rates,
        race.clock,
        metric=metric,
        exponent=exponent,
        start=problem.start,
        excluded=excluded,
    )
    reached(problem.k)
    picks, drawn = torch.from_numpy(order), torch.from_numpy(values)
    return Drawn(picks.to(problem.pool.device), drawn.to(problem.pool.device), exponent)


BACKENDS = Backends(
    {
        "reference": _reference,  # the direct race, in float64: for small pools and for tests
        "cpu": _cpu,
        "triton": _triton,
        "reference-lazy": _reference_lazy,  # for tests: slow
    },
    defaults={"cpu": "cpu", "cuda": "triton"},
    devices={
        "reference": ("cpu", "cuda"),
        "cpu": ("cpu",),
        "triton": ("cpu", "cuda"),  # on the CPU Triton's interpreter, else `launch` refuses
        "reference-lazy": ("cpu",),
    },
    takes="a pool",
)
