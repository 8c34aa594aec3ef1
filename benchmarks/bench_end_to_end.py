"""End to end: an epoch of observation beside the bare forward pass, and a whole cycle.

    pytest benchmarks/bench_end_to_end.py --benchmark-only

First the statistics of two observed epochs must be those of a plain loop that keeps every output in
float64, and the picks are certified. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pool.
"""

import functools

import pytest
import torch

from benchmarks.machine import DEVICES, OURS, SCALE, on_device
from dynal_fast import (
    EveryEpoch,
    PoolImages,
    PoolStats,
    farthest_first,
    observe_pool,
    verify_traversal,
)
from dynal_fast.bench.cycles import KINDS, cycle
from dynal_fast.bench.end_to_end import CLASSES, TRACK, epoch_ways, observing
from dynal_fast.models import LeNet, embed

N, BATCH = int(5_000 * SCALE), 512
CYCLE = {"n": N, "labeled": N // 4, "k": N // 10, "epochs": 3}
WITHOUT = "without"
EPOCH_WAYS = {
    "bare forward": "bare forward",
    OURS: "observe_pool",
    f"{OURS}, folded": "observe_pool, folded",
}


@functools.cache
def verify(device):
    """Observing, embedding and picking must give what plain loops give."""
    torch.manual_seed(0)
    images = torch.randint(256, (N, 1, 28, 28), dtype=torch.uint8)
    pool = PoolImages(images, mean=0.5, std=0.25, batch_size=BATCH, device=device)
    every = {name: EveryEpoch() for name in TRACK}
    stats = PoolStats(N, CLASSES, track=TRACK, schedules=every, device=device)
    history = torch.empty(2, N, CLASSES, dtype=torch.float64)
    for epoch in (1, 2):
        model = LeNet((1, 28, 28), CLASSES).to(device).eval()
        observe_pool(model, pool, stats, epoch=epoch, num_epochs=2, progress=False)
        with torch.no_grad():
            for ids, batch in pool:
                history[epoch - 1, ids.cpu()] = model(batch).double().softmax(dim=1).cpu()
    top = history[-1].topk(2, dim=1).values
    modal = history.argmax(dim=2).mode(dim=0).values
    want = {
        "prediction_stability": history.var(dim=0, correction=0).sum(dim=1),
        "label_dispersion": 1 - (history.argmax(dim=2) == modal).double().mean(dim=0),
        "margin": top[:, 1] - top[:, 0],
    }
    for name in TRACK:
        got = stats.score(name).cpu().double()
        torch.testing.assert_close(got, want[name], rtol=1e-5, atol=2e-6)
    features = torch.cat([embed(model, batch) for _, batch in pool])
    traversal = farthest_first(features, N // 10, progress=False)
    assert verify_traversal(features, traversal, progress=False).valid


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", EPOCH_WAYS)
def test_epoch(side_by_side, way, device):
    verify(device)
    job = epoch_ways(N, BATCH, device)[EPOCH_WAYS[way]]
    side_by_side("one epoch over the pool, LeNet", way, job, device=device, rounds=3)


@pytest.mark.parametrize("device", DEVICES)
def test_observing_costs_little_beside_the_forward_pass(benchmark, report, device):
    """Both take turns: a small difference shows more clearly than one after the other."""
    verify(device)
    benchmark.group = on_device("one epoch over the pool, LeNet: all ways, in turns", device)
    parts = benchmark.pedantic(observing, (N, BATCH, 5, device), rounds=1)["parts"]
    overhead = parts["observe_pool"] / parts["bare forward"] - 1
    benchmark.extra_info["overhead"] = overhead
    report(f"{benchmark.group}: observing adds {overhead:.2%} to the forward pass")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [WITHOUT, OURS])
def test_cycle(side_by_side, benchmark, report, kind, way, device):
    verify(device)
    results = []

    def job():
        torch.manual_seed(0)
        results.append(cycle(kind, way == OURS, **CYCLE, device=device))

    side_by_side(f"one active-learning cycle, {KINDS[kind]}", way, job, device=device)
    result = results[-1]
    benchmark.extra_info.update(result["parts"], memory_bytes=result["memory_bytes"])
    parts = ", ".join(f"{name} {value:.3f} s" for name, value in result["parts"].items())
    peak = f"peak {result['memory_bytes'] / 1e6:.0f} MB"
    report(f"{benchmark.group}, {way}: {parts}; {peak}")
