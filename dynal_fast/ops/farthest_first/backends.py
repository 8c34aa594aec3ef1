"""Which implementations there are and which one a device gets."""

import os

import numpy as np
import torch

from dynal_fast.ops.farthest_first import reference
from dynal_fast.ops.farthest_first.cpu import CpuKernels, head_rows
from dynal_fast.ops.farthest_first.heads import HeadTraversal
from dynal_fast.ops.farthest_first.problem import Answer, Backend, Problem, Reached
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels, as_numpy


def choose(backend: str | None, device: torch.device) -> Backend:
    """The implementation named, or the fastest one for ``device``."""
    name = DEFAULTS.get(device.type) if backend is None else backend
    if name is None:
        raise ValueError(
            f"pool must be on one of the devices {tuple(DEFAULTS)}, got {device}; "
            "pool.cpu() moves it to the CPU"
        )
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {tuple(BACKENDS)}, got {backend!r}")
    if device.type not in DEVICES[name]:
        raise ValueError(f"backend {name!r} needs a pool on {DEVICES[name]}, got {device}")
    return BACKENDS[name]


def run_reference(problem: Problem, reached: Reached) -> Answer:
    """The definition itself, on the CPU, in float64: for small pools and for tests."""
    kernels = ReferenceKernels(problem.metric)
    kernels.points(problem.pool, "pool")
    pool = as_numpy(problem.pool.array)
    minimum = np.full(len(pool), np.inf, dtype=np.float32)
    if problem.labeled is not None:
        kernels.points(problem.labeled, "labeled")
        reference.cover(minimum, pool, as_numpy(problem.labeled.array), problem.metric)
    if problem.labeled_indices is not None:
        reference.cover(minimum, pool, pool[problem.labeled_indices.cpu().numpy()], problem.metric)
    excluded = np.empty(0, dtype=np.int64)
    if problem.candidates is not None:
        excluded = np.delete(np.arange(len(pool)), problem.candidates.cpu().numpy())
    indices, values, left = reference.farthest_first(
        pool, problem.k, minimum, metric=problem.metric, start=problem.start, excluded=excluded
    )
    reached(problem.k)
    device = problem.pool.device
    return Answer(
        torch.from_numpy(indices).to(device), torch.from_numpy(values).to(device), float(left)
    )


def run_cpu(problem: Problem, reached: Reached) -> Answer:
    """The exact algorithm over compiled kernels."""
    kernels = CpuKernels(problem.pool, problem.metric)
    return HeadTraversal(problem, kernels, head_rows(problem.pool.columns)).run(reached)


def run_triton(problem: Problem, reached: Reached) -> Answer:
    """The exact algorithm over Triton kernels, on a GPU."""
    from dynal_fast.ops.farthest_first.triton import TritonKernels

    return HeadTraversal(problem, TritonKernels(problem.metric)).run(reached)


def run_reference_heads(problem: Problem, reached: Reached) -> Answer:
    """The exact algorithm over primitives by their definition: slow, for tests of both."""
    return HeadTraversal(problem, ReferenceKernels(problem.metric)).run(reached)


BACKENDS: dict[str, Backend] = {
    "reference": run_reference,
    "cpu": run_cpu,
    "triton": run_triton,
    "reference-heads": run_reference_heads,
}
# Triton's interpreter, which is chosen before its kernels are defined, takes tensors on the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = {
    "reference": ("cpu", "cuda"),
    "cpu": ("cpu",),
    "triton": ("cpu", "cuda") if INTERPRETED else ("cuda",),
    "reference-heads": ("cpu",),
}
DEFAULTS = {"cpu": "cpu", "cuda": "triton"}
