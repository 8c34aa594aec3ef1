"""Peak memory beside that of a history of outputs, and that of the strong baseline.

    pytest benchmarks/bench_memory.py --benchmark-only

Each method runs in a fresh process, whose answer is held against float64; what pytest-benchmark
times is that whole process. The methods are those of ``dynal-fast bench``; what takes long is
extrapolated. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pools.
"""

import pytest
import torch

from benchmarks.machine import DEVICES, OURS, SCALE, on_device, scaled
from dynal_fast.bench.competitors import method_for
from dynal_fast.bench.extrapolation import Limits
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.suites import HEADLINE, LONG_HISTORY


def in_a_fresh_process(benchmark, report, case, name, device, check=True):
    """Measure a method; report and return its peak memory beyond the inputs."""
    limits = Limits(seconds=8, repeats=1)
    settings = Settings(torch.get_num_threads(), device, limits)
    benchmark.group = on_device(f"{case.title()}: whole processes", device)
    result = benchmark.pedantic(measure, (case, method_for(case, name), settings, check), rounds=1)
    assert result.unavailable == ""
    memory = {"memory_bytes": result.memory_bytes, "extrapolated": result.extrapolated}
    benchmark.extra_info.update(memory)
    how = f" ({result.extrapolated})" if result.extrapolated else ""
    report(f"{on_device(case.title(), device)}: {result.memory_bytes / 1e6:.0f} MB {name}{how}")
    return result


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["NumPy, full history", "torch, full history", OURS])
def test_statistics_of_many_epochs(benchmark, report, name, device):
    case = scaled(LONG_HISTORY)
    if device != "cpu" and not method_for(case, name).on_gpu:
        pytest.skip(f"{name} runs on CPUs only")
    result = in_a_fresh_process(benchmark, report, case, name, device)
    assert result.exactness["stability_error"] < 1e-5
    assert result.exactness["dispersion_agreement"] == 1
    history = 4 * case.n * case.classes * case.epochs
    share = benchmark.extra_info["share"] = result.memory_bytes / history
    report(f"  {share:.2%} of the history's bytes")
    if name == OURS and SCALE == 1:
        assert share < 0.02


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["BLAS loop", OURS])
def test_traversal(benchmark, report, name, device):
    case = scaled(HEADLINE)
    # bench_farthest_first.py certifies these picks
    result = in_a_fresh_process(benchmark, report, case, name, device, check=False)
    if name == OURS and SCALE == 1:
        assert result.memory_bytes < 200e6
