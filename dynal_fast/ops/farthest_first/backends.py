"""Which implementations there are and which one a device gets."""

import numpy as np
import torch

from dynal_fast.ops.farthest_first import checks, reference
from dynal_fast.ops.farthest_first.checks import Array, Rows
from dynal_fast.ops.farthest_first.problem import Answer, Backend, Problem, Reached


def choose(backend: str | None, device: torch.device) -> Backend:
    """The implementation named, or the fastest one for ``device``."""
    name = "reference" if backend is None else backend
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {tuple(BACKENDS)}, got {backend!r}")
    return BACKENDS[name]


def run_reference(problem: Problem, reached: Reached) -> Answer:
    """The definition itself, on the CPU, in float64: for small pools and for tests."""
    pool = _as_numpy(problem.pool.array)
    check_values(problem.pool, "pool", problem.metric)
    minimum = np.full(len(pool), np.inf, dtype=np.float32)
    if problem.labeled is not None:
        check_values(problem.labeled, "labeled", problem.metric)
        reference.cover(minimum, pool, _as_numpy(problem.labeled.array), problem.metric)
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


def check_values(rows: Rows, name: str, metric: str) -> None:
    """Raise for a row that holds a NaN or an infinity, is too long, or is zero under cosine."""
    array = _as_numpy(rows.array)
    for tile in reference.tiles(rows.count, rows.columns):
        with np.errstate(over="ignore"):
            norms = (array[tile].astype(np.float64) ** 2).sum(axis=1)
        bad = checks.bad_squared_norms(norms, metric)
        if bad.any():
            at = int(np.argmax(bad))
            raise checks.bad_row(name, tile.start + at, float(norms[at]))


def _as_numpy(array: Array) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()


BACKENDS: dict[str, Backend] = {"reference": run_reference}
