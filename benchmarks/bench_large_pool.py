"""Pools on disk, cold: time, bytes read from storage, and memory beside the pool.

    DYNAL_FAST_BENCH_DISK=/scratch pytest benchmarks/bench_large_pool.py --benchmark-only

The folder needs 7 GB; without one these are skipped. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the
pools. A machine with less memory than the pool shows how often it is read. On a larger one, run it
in a control group: ``systemd-run --scope -p MemoryMax=1500M pytest …``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.machine import SCALE
from dynal_fast.bench.inputs import clustered

DISK = os.environ.get("DYNAL_FAST_BENCH_DISK")
ROWS = 2**17  # that are made at once
# n, d, k, labeled: how many times the bytes of the pool may be read from storage.
CASES = {
    (2_000_000, 512, 1_000, 0): 4,
    (2_000_000, 512, 1_000, 20_000): 3,
    (10_000_000, 256, 10_000, 20_000): 3,
}


def write_pool(path, n, d, seed):
    """Write clustered float16 features (n, d)."""
    pool = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
    for start in range(0, n, ROWS):
        pool[start : start + ROWS] = clustered(min(ROWS, n - start), d, seed + start)
    pool.flush()


@pytest.mark.skipif(DISK is None, reason="DYNAL_FAST_BENCH_DISK names no folder")
@pytest.mark.parametrize(("case", "reads"), CASES.items(), ids=str)
def test_cold_pool(benchmark, report, case, reads):
    n, d, k, labeled = (int(SCALE * size) if at != 1 else size for at, size in enumerate(case))
    title = f"cold from disk: {k:,} of {n:,} × {d} float16, {labeled:,} labeled"
    benchmark.group = title
    files = [Path(DISK) / f"{name}.npy" for name in ("large-pool", "large-labeled")]
    try:
        write_pool(files[0], n, d, seed=0)
        if labeled:
            write_pool(files[1], labeled, d, seed=1)
        command = [sys.executable, "-m", "benchmarks.large_pool", str(files[0]), str(k)]
        command += [str(files[1])] if labeled else []
        ended = benchmark.pedantic(
            subprocess.run, (command,), {"capture_output": True, "text": True}, rounds=1
        )
        assert ended.returncode == 0, ended.stderr
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    took = json.loads(ended.stdout)
    benchmark.extra_info.update(took)
    own = took["peak_anonymous"] - took["anonymous_before"]
    report(
        f"{title}: {took['seconds']:.1f} s, {took['cpu_seconds']:.1f} s of CPU, "
        f"{took['read'] / took['pool']:.2f} times the pool read, {own / n:.0f} bytes a row"
    )
    assert took["read"] <= reads * took["pool"]
    assert took["peak_anonymous"] < 1e9
