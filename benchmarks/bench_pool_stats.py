"""One pass over 150,000 samples: the fused update beside plain torch operations in place.

    pytest benchmarks/bench_pool_stats.py --benchmark-only -s

Both fold float32 logits, 8,192 rows at a time, into prediction stability, label dispersion and the
final entropy, top probability and margin. Verified against the reference first. Passes alternate;
the ratio is that of the medians. The share is that of a copy's bandwidth, measured among them, over
the bytes that must move.
"""

import statistics
import time

import pytest
import torch

from dynal_fast import EveryEpoch, PoolStats

NUM_SAMPLES, BATCH, THREADS = 150_000, 8192, 2
TRACK = ("prediction_stability", "label_dispersion", "entropy", "least_confidence", "margin")
SCHEDULES = {name: EveryEpoch() for name in TRACK}


class PlainTorch:
    """What one writes without a kernel: in place, no temporary that is not needed."""

    def __init__(self, num_samples, num_classes):
        self.count = torch.zeros(num_samples)
        self.mean = torch.zeros(num_samples, num_classes)
        self.m2 = torch.zeros(num_samples)
        self.labels = torch.zeros(num_samples, num_classes, dtype=torch.uint8)
        self.entropy, self.top, self.margin = torch.empty(3, num_samples).unbind()
        self.ones = torch.ones(BATCH, dtype=torch.uint8)

    def update(self, ids, logits):
        count = self.count[ids].add_(1)
        self.count.index_copy_(0, ids, count)
        p = logits.softmax(dim=1)
        mean = self.mean[ids]
        delta = p - mean
        mean.addcdiv_(delta, count[:, None])
        self.mean.index_copy_(0, ids, mean)
        self.m2.index_add_(0, ids, delta.mul_(torch.sub(p, mean, out=mean)).sum(dim=1))
        top = p.topk(2, dim=1)
        flat = torch.add(top.indices[:, 0], ids, alpha=p.shape[1])
        self.labels.view(-1).index_add_(0, flat, self.ones[: len(ids)])
        self.top.index_copy_(0, ids, top.values[:, 0])
        self.margin.index_copy_(0, ids, top.values[:, 0] - top.values[:, 1])
        self.entropy.index_copy_(0, ids, torch.special.entr(p).sum(dim=1))


def must_move(num_classes):
    """Bytes per sample: id, logits, mean twice, one label count twice, and the scalars."""
    scalars = 2 * 4 + 2 * 4 + 2 * 4 + 3 * 4  # stamp, count and m2 read and written; 3 written
    return 8 + 4 * num_classes + 8 * num_classes + 2 + scalars


def verify(num_classes):
    ids, logits = torch.randperm(500), torch.randn(500, num_classes)
    trackers = [
        PoolStats(500, num_classes, TRACK, schedules=SCHEDULES, backend=backend)
        for backend in ("cpu", "reference")
    ]
    plain = PlainTorch(500, num_classes)
    for epoch in (1, 2):
        for tracker in trackers:
            with tracker.observe(epoch, 2):
                tracker.update(ids, logits * epoch)
        plain.update(ids, logits * epoch)
    for name in TRACK:
        fast, reference = (tracker.score(name) for tracker in trackers)
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=2e-6)
    stability = trackers[1].score("prediction_stability")
    torch.testing.assert_close(plain.m2 / plain.count, stability, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(plain.entropy, trackers[1].score("entropy"), rtol=1e-4, atol=2e-6)


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


@pytest.mark.parametrize("order", ["in order", "shuffled"])
@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_update(benchmark, num_classes, order):
    verify(num_classes)
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    logits = torch.randn(NUM_SAMPLES, num_classes)
    ids = torch.arange(NUM_SAMPLES) if order == "in order" else torch.randperm(NUM_SAMPLES)
    batches = list(zip(ids.split(BATCH), logits.split(BATCH), strict=True))
    stats = PoolStats(NUM_SAMPLES, num_classes, TRACK, schedules=SCHEDULES)
    plain = PlainTorch(NUM_SAMPLES, num_classes)
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)

    def fused_pass():
        with stats.observe(1, 1):
            for batch in batches:
                stats.update(*batch)

    def plain_pass():
        for batch in batches:
            plain.update(*batch)

    plain_times, copy_times = [], []

    def others():
        plain_times.append(timed(plain_pass))
        copy_times.append(timed(target.copy_, source))

    others()
    fused_pass()
    plain_times.clear()
    copy_times.clear()
    benchmark.pedantic(fused_pass, setup=others, rounds=7)
    torch.set_num_threads(threads)

    fused = benchmark.stats.stats.median
    bandwidth = NUM_SAMPLES * must_move(num_classes) / fused / 1e9
    copy = 2 * source.nbytes / statistics.median(copy_times) / 1e9
    benchmark.extra_info.update(
        ratio=statistics.median(plain_times) / fused, gb_per_s=bandwidth, share=bandwidth / copy
    )
    print(
        f"\nC={num_classes}, {order}: {fused * 1e3:.1f} ms a pass, "
        f"{statistics.median(plain_times) / fused:.1f} x plain torch, {bandwidth:.1f} GB/s, "
        f"{bandwidth / copy:.0%} of a copy's {copy:.1f} GB/s"
    )
