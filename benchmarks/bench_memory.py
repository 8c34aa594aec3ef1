"""Peak memory of statistics beside the history that they replace, each in a fresh process.

pytest benchmarks/bench_memory.py --benchmark-only -s
"""

import pytest
import torch

from dynal_fast.bench.competitors import OURS, method_for
from dynal_fast.bench.extrapolation import Limits
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.suites import LONG_HISTORY


@pytest.mark.benchmark(group=LONG_HISTORY.title())
@pytest.mark.parametrize("name", [OURS, "torch, full history", "NumPy, full history"])
def test_statistics_of_many_epochs(benchmark, name):
    settings = Settings(torch.get_num_threads(), limits=Limits(repeats=1))
    method = method_for(LONG_HISTORY, name)
    result = benchmark.pedantic(measure, (LONG_HISTORY, method, settings), rounds=1)
    assert result.unavailable == ""
    assert result.exactness["stability_error"] < 1e-5
    assert result.exactness["dispersion_agreement"] == 1
    history = 4 * LONG_HISTORY.n * LONG_HISTORY.classes * LONG_HISTORY.epochs
    share = result.memory_bytes / history
    benchmark.extra_info.update(share=share, extrapolated=result.extrapolated)
    print(f"\n  {name}: {result.memory_bytes / 1e6:.0f} MB, {share:.2%} of the history's bytes")
    if name == OURS:
        assert share < 0.02
