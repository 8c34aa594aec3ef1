"""The suites under ``benchmarks``: one for each operation, which run, and refuse wrong results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_dense_discrepancy, bench_farthest_first, bench_pool_stats
from dynal_fast.bench.cases import StatisticsCase
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from tests.cases.dense_discrepancy import maps

ROOT = Path(__file__).parents[1]
SMALL_PASS = bench_pool_stats.Pass(StatisticsCase(300, 7, epochs=2), "shuffled")


def test_every_operation_has_a_suite():
    operations = [path.parent.name for path in (ROOT / "dynal_fast" / "ops").glob("*/reference.py")]
    assert operations
    for operation in operations:
        assert (ROOT / "benchmarks" / f"bench_{operation}.py").exists()


@pytest.mark.slow
def test_the_suites_run_and_report_ratios():
    suites = [f"benchmarks/bench_{name}.py" for name in ("pool_stats", "farthest_first")]
    suites += ["benchmarks/bench_dense_discrepancy.py", "benchmarks/bench_end_to_end.py"]
    finished = subprocess.run(
        # torch.compile would take most of the time
        [sys.executable, "-m", "pytest", "--benchmark-only", "-n0", "-k", "not compile", *suites],
        cwd=ROOT,
        env={**os.environ, "DYNAL_FAST_BENCH_SCALE": "0.01"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    ratios = finished.stdout.split("ratios to dynal_fast")[1]
    for way in (
        "plain torch",
        "BLAS loop",
        "copy of as many bytes",
        "copy of one map",
        "reference",
        "bare forward",
    ):
        assert f" x  {way}" in ratios


@pytest.mark.parametrize("way", [bench_pool_stats.OURS, bench_pool_stats.PLAIN])
def test_statistics_that_are_off_are_refused(way):
    ids, epochs = bench_pool_stats.load(SMALL_PASS, "cpu")
    make, case = bench_pool_stats.TRACKERS[way], SMALL_PASS.case
    bench_pool_stats.agrees_with_the_reference(make(case, "cpu"), case, ids, epochs)
    wrong = make(case, "cpu")
    observe = wrong.observe
    wrong.observe = lambda batches: observe([(i, logits * 1.001) for i, logits in batches])
    with pytest.raises(AssertionError, match="prediction_stability"):
        bench_pool_stats.agrees_with_the_reference(wrong, case, ids, epochs)


def test_picks_that_are_not_the_farthest_are_refused(monkeypatch):
    case = bench_farthest_first.SMALL
    bench_farthest_first.prepare(case, bench_farthest_first.OURS, "cpu")
    right = bench_farthest_first.farthest_first

    def swapped(*arguments, **options):
        traversal = right(*arguments, **options)
        return traversal._replace(indices=traversal.indices.roll(1))

    monkeypatch.setattr(bench_farthest_first, "farthest_first", swapped)
    with pytest.raises(AssertionError, match="valid=False"):
        bench_farthest_first.prepare(case, bench_farthest_first.OURS, "cpu")


def test_discrepancies_that_are_off_are_refused():
    logits, other = maps((2, 5, 3, 4), torch.float32)
    bench_dense_discrepancy.assert_same(dense_discrepancy, logits, other, "cpu")
    with pytest.raises(AssertionError, match="not close"):
        bench_dense_discrepancy.assert_same(
            lambda *both: 1.001 * dense_discrepancy(*both), logits, other, "cpu"
        )
