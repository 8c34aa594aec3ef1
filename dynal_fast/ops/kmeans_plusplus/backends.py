"""The implementations of D² sampling, by name."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from dynal_fast._triton import require_triton
from dynal_fast.ops.backends import Backends
from dynal_fast.ops.farthest_first import reference as distances
from dynal_fast.ops.farthest_first.backends import Device
from dynal_fast.ops.farthest_first.contract import Reached, Rows
from dynal_fast.ops.farthest_first.kernels import P, on_one_scale
from dynal_fast.ops.farthest_first.reference_kernels import values_of
from dynal_fast.ops.kmeans_plusplus import lazy, reference
from dynal_fast.ops.kmeans_plusplus.contract import Drawn, Race
from dynal_fast.ops.kmeans_plusplus.cpu import CpuRaceKernels
from dynal_fast.ops.kmeans_plusplus.kernels import RaceKernels
from dynal_fast.ops.kmeans_plusplus.reference_kernels import ReferenceRaceKernels

Draw = Callable[[Race, Reached], Drawn]


class Implementation(NamedTuple):
    """How a backend draws, and its primitives, unless it has none."""

    draw: Draw
    primitives: Device | None = None


def choose(backend: str | None, device: torch.device) -> Implementation:
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


def primitives_of(backend: str | None, device: torch.device) -> Device:
    """The primitives of a backend; ValueError where it has none."""
    primitives = choose(backend, device).primitives
    if primitives is None:
        raise ValueError('backend must be one that works in parts, got "reference"')
    return primitives


def lazily(kernels: Callable[[Rows, str], RaceKernels[P]]) -> Implementation:
    """The lazy race over the primitives of a device."""

    def draw(race: Race, reached: Reached) -> Drawn:
        pool = race.pool
        made = kernels(pool, race.metric)
        return lazy.LazyRace(race, made, made.points(pool, "pool"), lazy.HEAD).run(reached)

    return Implementation(draw, Device(kernels, lambda pool: lazy.HEAD))


def _cpu() -> Implementation:
    return lazily(CpuRaceKernels)


def _triton() -> Implementation:
    require_triton()
    from dynal_fast.ops.kmeans_plusplus import triton

    return lazily(lambda pool, metric: triton.TritonRaceKernels(metric))


def _reference_lazy() -> Implementation:
    return lazily(lambda pool, metric: ReferenceRaceKernels(metric))


def _reference() -> Implementation:
    return Implementation(_by_definition)


def _by_definition(race: Race, reached: Reached) -> Drawn:
    kernels, metric = ReferenceRaceKernels(race.metric), race.metric
    points = [kernels.points(race.pool, "pool")]
    if race.outside is not None:
        points.append(kernels.points(race.outside, "labeled"))
    _, exponent = on_one_scale(kernels, points)
    pool = values_of(race.pool)
    rates = np.full(len(pool), np.inf, dtype=np.float32)
    if race.outside is not None:
        distances.cover(rates, pool, values_of(race.outside), metric, exponent)
    distances.cover(rates, pool, pool[race.inside.numpy()], metric, exponent)
    order, values = reference.kmeans_plusplus(
        pool,
        race.k,
        rates,
        race.clock,
        metric=metric,
        exponent=exponent,
        start=race.start,
        excluded=race.inside.numpy(),
    )
    reached(race.k)
    picks, drawn = torch.from_numpy(order), torch.from_numpy(values)
    return Drawn(picks.to(race.pool.device), drawn.to(race.pool.device), exponent)


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
