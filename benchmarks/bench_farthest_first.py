"""Farthest-first beside what it avoids: ``torch.mm`` with the labeled set, a loop of BLAS calls.

    pytest benchmarks/bench_farthest_first.py --benchmark-only -s

Every result is verified by certificate before anything is timed; each benchmark prints the ratio to
its competitor, measured in the same process just before and after, and the peak extra memory of a
process of its own. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks pools, labeled sets and picks.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first, verify_traversal
from tests import farthest_first_cases as cases

SCALE = float(os.environ.get("DYNAL_FAST_BENCH_SCALE", "1"))
BLOCK = 4096

MEMORY = """
import sys
from benchmarks.bench_farthest_first import Setting, farthest_first

def kilobytes(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key))

name, *sizes = sys.argv[1:]
setting = Setting(name, *map(int, sizes))
pool, labeled = setting.inputs()
farthest_first(pool[:500], 10, pool[500:600])
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")
before = kilobytes("VmRSS")
farthest_first(pool, setting.k, labeled)
print((kilobytes("VmHWM") - before) / 1024)
"""


class Setting(NamedTuple):
    features: str
    n: int
    m: int
    k: int
    d: int = 512

    @classmethod
    def scaled(cls, features: str, n: int, m: int, k: int) -> "Setting":
        return cls(features, int(n * SCALE), int(m * SCALE), int(k * SCALE))

    def inputs(self) -> tuple[np.ndarray, np.ndarray | None]:
        make = getattr(cases, self.features)
        return make(self.n, self.d), make(self.m, self.d, seed=1) if self.m else None

    def peak_megabytes(self) -> float:
        """Peak memory beyond the inputs, in a fresh process."""
        command = [sys.executable, "-c", MEMORY, *map(str, self)]
        root = Path(__file__).parent.parent
        run = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        return float(run.stdout)

    def __str__(self) -> str:
        return f"{self.features}, n={self.n:,}, d={self.d}, {self.m:,} labeled, k={self.k:,}"


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def distance_matrix(pool: np.ndarray, labeled: np.ndarray) -> None:
    """One float32 ``torch.mm`` of the pool with the labeled set, in blocks."""
    transposed = torch.from_numpy(labeled).T
    out = torch.empty(BLOCK, len(labeled))
    for block in torch.from_numpy(pool).split(BLOCK):
        torch.mm(block, transposed, out=out[: len(block)])


def one_product_per_pick(pool: np.ndarray, minimum: torch.Tensor, picks: int) -> list[int]:
    """The honest baseline: one BLAS matrix-vector product per pick, norms computed once."""
    x = torch.from_numpy(pool)
    norms = (x * x).sum(dim=1)
    distance, picked = torch.empty(len(x)), []
    for _ in range(picks):
        pick = int(minimum.argmax())
        picked.append(pick)
        torch.addmv(norms, x, x[pick], alpha=-2, out=distance)
        distance += norms[pick]
        torch.minimum(minimum, distance, out=minimum)
        minimum[pick] = -torch.inf
    return picked


def nearest_labeled(pool: np.ndarray, labeled: np.ndarray) -> torch.Tensor:
    """The baseline's start: squared distances to the labeled set by blocks of ``torch.mm``."""
    y = torch.from_numpy(labeled)
    norms, out = (y * y).sum(dim=1), torch.empty(BLOCK, len(y))
    minima = []
    for block in torch.from_numpy(pool).split(BLOCK):
        product = torch.addmm(norms, block, y.T, alpha=-2, out=out[: len(block)])
        minima.append(product.amin(dim=1) + (block * block).sum(dim=1))
    return torch.cat(minima)


def verified(setting: Setting, pool: np.ndarray, labeled: np.ndarray | None) -> None:
    result = farthest_first(pool, setting.k, labeled)
    certificate = verify_traversal(pool, result, labeled)
    assert certificate.valid, certificate
    print(f"\n{setting}, {torch.get_num_threads()} threads\n  {certificate}")


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        (Setting.scaled("clustered", 150_000, 25_000, 4_000), 0.25),
        (Setting.scaled("gaussian", 150_000, 25_000, 4_000), 0.7),
    ],
    ids=["clustered", "gaussian"],
)
def test_labeled_set_against_one_matrix_product(benchmark, setting, limit):
    pool, labeled = setting.inputs()
    assert labeled is not None
    verified(setting, pool, labeled)
    before = seconds(lambda: distance_matrix(pool, labeled))
    benchmark.pedantic(farthest_first, (pool, setting.k, labeled), rounds=5, warmup_rounds=1)
    after = seconds(lambda: distance_matrix(pool, labeled))
    ours, matrix = benchmark.stats.stats.median, statistics.mean([before, after])
    few = max(1, setting.k // 100)
    minimum = nearest_labeled(pool, labeled)
    loop = seconds(lambda: one_product_per_pick(pool, minimum, few)) * setting.k / few
    report(benchmark, setting, "torch.mm of pool x labeled", ours, matrix)
    report(benchmark, setting, "torch.mm + BLAS loop (extrapolated)", ours, matrix + loop)
    if SCALE == 1:
        assert ours <= limit * matrix
        assert benchmark.extra_info["peak extra MB"] < 200


def test_no_labeled_set_against_one_product_per_pick(benchmark):
    setting = Setting.scaled("clustered", 50_000, 0, 5_000)
    pool, _ = setting.inputs()
    verified(setting, pool, None)
    few = max(1, setting.k // 10)

    def loop() -> float:
        minimum = torch.full((setting.n,), torch.inf)
        return seconds(lambda: one_product_per_pick(pool, minimum, few)) * setting.k / few

    before = loop()
    benchmark.pedantic(farthest_first, (pool, setting.k), rounds=5, warmup_rounds=1)
    ours, theirs = benchmark.stats.stats.median, statistics.mean([before, loop()])
    report(benchmark, setting, "BLAS loop (extrapolated from a tenth)", ours, theirs)
    if SCALE == 1:
        assert theirs >= 10 * ours


def report(benchmark, setting: Setting, competitor: str, ours: float, theirs: float) -> None:
    if "peak extra MB" not in benchmark.extra_info:
        benchmark.extra_info["peak extra MB"] = round(setting.peak_megabytes(), 1)
        print(f"  peak extra memory {benchmark.extra_info['peak extra MB']} MB")
    benchmark.extra_info[competitor] = theirs
    print(
        f"  {ours:.3f} s against {theirs:.2f} s for {competitor}: "
        f"{ours / theirs:.4f} of it, {theirs / ours:.1f} times faster"
    )
