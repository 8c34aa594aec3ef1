"""Farthest-first beside what it avoids: ``torch.mm`` with the labeled set, a loop of BLAS calls.

    pytest benchmarks/bench_farthest_first.py --benchmark-only -s

Inputs, competitors and extrapolation are those of ``dynal-fast bench``, which compares with
libraries too. Each case is verified by certificate first, on a fifth of its pool;
``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks pools, labeled sets and picks.
"""

import dataclasses
import os

import pytest
import torch

from dynal_fast.bench.cases import TraversalCase
from dynal_fast.bench.competitors import OURS, method_for
from dynal_fast.bench.exactness import judge_traversal
from dynal_fast.bench.extrapolation import Limits
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.suites import FROM_NOTHING, HEADLINE, WORST
from dynal_fast.bench.worker import full_size, measure_in_this_process

SCALE = float(os.environ.get("DYNAL_FAST_BENCH_SCALE", "1"))
YARDSTICK, LOOP = "one torch.mm (yardstick)", "BLAS loop"
PART = 5  # the share of the pool for what is verified, and for the yardstick, which is linear in it


def scaled(case: TraversalCase) -> TraversalCase:
    sizes = {name: int(getattr(case, name) * SCALE) for name in ("n", "k", "labeled")}
    return dataclasses.replace(case, **sizes)


def verify(case: TraversalCase) -> None:
    part = dataclasses.replace(case, n=case.n // PART, k=case.k // PART)
    pool, labeled = part.load()
    traversal = method_for(part, OURS).prepare(part, (pool, labeled))(full_size(part))
    judged = judge_traversal(pool, labeled, traversal)
    assert judged["certified"], judged


def seconds(case: TraversalCase, name: str) -> tuple[float, str]:
    """The time of a competitor, and how it was extrapolated if it was."""
    limits = Limits(seconds=8, repeats=1)
    measured = measure_in_this_process(case, method_for(case, name), limits, "cpu", check=False)
    return measured["seconds"][0], measured["extrapolated"]


@pytest.mark.parametrize(
    ("case", "most_of_product", "least_of_loop"),
    [(HEADLINE, 0.25, 12), (WORST, 0.7, 1), (FROM_NOTHING, None, 10)],
    ids=["clustered", "gaussian", "none labeled"],
)
def test_traversal(benchmark, case, most_of_product, least_of_loop):
    case = scaled(case)
    verify(case)
    job = method_for(case, OURS).prepare(case, case.load())
    benchmark.pedantic(job, (full_size(case),), rounds=3, warmup_rounds=1)
    ours = benchmark.stats.stats.median
    times = {}
    if most_of_product is not None:
        part, _ = seconds(dataclasses.replace(case, n=case.n // PART), YARDSTICK)
        times[YARDSTICK] = PART * part, f"extrapolated from 1/{PART} of the pool"
    times[LOOP] = seconds(case, LOOP)
    settings = Settings(torch.get_num_threads(), limits=Limits(repeats=1))
    memory = measure(case, method_for(case, OURS), settings, check=False).memory_bytes
    benchmark.extra_info["peak extra MB"] = memory / 1e6
    print(f"\n{case.title()}: {ours:.3f} s, peak extra memory {memory / 1e6:.0f} MB")
    for name, (theirs, extrapolated) in times.items():
        benchmark.extra_info[name] = theirs
        print(
            f"  {theirs:.2f} s for {name}: {theirs / ours:.1f} times ours, ours {ours / theirs:.3f}"
            f" of it{f' ({extrapolated})' if extrapolated else ''}"
        )
    if SCALE == 1:
        assert memory < 200e6
        assert times[LOOP][0] >= least_of_loop * ours
        if most_of_product is not None:
            assert ours <= most_of_product * times[YARDSTICK][0]
