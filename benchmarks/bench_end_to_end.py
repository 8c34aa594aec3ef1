"""What a user waits for: an epoch of observation beside the bare forward pass, and a whole cycle.

    pytest benchmarks/bench_end_to_end.py --benchmark-only -s

``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pool.
"""

import os

import pytest
import torch

from dynal_fast.bench.end_to_end import cycle, epoch_ways, observing

N = int(5_000 * float(os.environ.get("DYNAL_FAST_BENCH_SCALE", "1")))
CYCLE = {"n": N, "labeled": N // 4, "k": N // 10, "epochs": 3, "device": "cpu"}


@pytest.mark.benchmark(group="one epoch over the pool, LeNet")
@pytest.mark.parametrize("way", ["bare forward", "observe_pool"])
def test_epoch(benchmark, way):
    benchmark.pedantic(epoch_ways(N, 512, "cpu")[way], rounds=5, warmup_rounds=1)


def test_observing_costs_little_beside_the_forward_pass(benchmark):
    seconds = benchmark.pedantic(observing, (N, 512, 5, "cpu"), rounds=1)["parts"]
    overhead = seconds["observe_pool"] / seconds["bare forward"] - 1
    benchmark.extra_info["overhead"] = overhead
    print(f"\n  observing adds {overhead:.2%} to the forward pass ({seconds})")


@pytest.mark.benchmark(group="one active-learning cycle, LeNet")
@pytest.mark.parametrize("with_package", [False, True], ids=["without", "with dynal_fast"])
def test_cycle(benchmark, with_package):
    torch.manual_seed(0)
    result = benchmark.pedantic(cycle, (with_package,), CYCLE, rounds=1)
    benchmark.extra_info.update(result["parts"], memory_bytes=result["memory_bytes"])
    parts = ", ".join(f"{name} {value:.3f} s" for name, value in result["parts"].items())
    print(f"\n  {parts}; peak {result['memory_bytes'] / 1e6:.0f} MB")
