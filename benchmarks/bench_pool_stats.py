"""One pass over a pool: the fused update beside plain torch, ``torch.compile`` and a bare copy.

    pytest benchmarks/bench_pool_stats.py --benchmark-only

All fold float32 logits, 8,192 rows at a time, into prediction stability, label dispersion and the
last entropy, top probability and margin. The copy reads and writes as many bytes together as must
move, so its ratio to ours is our share of its bandwidth. First every backend must equal the float64
reference on the batches of the tests; then all are held against it over two epochs of the whole
pool, on a thousand samples spread over it. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pools.
"""

import functools
import itertools
from typing import NamedTuple

import pytest
import torch

from benchmarks.machine import DEVICES, OURS, REFERENCE, SCALE
from dynal_fast import EveryEpoch, PoolStats
from dynal_fast.bench.cases import StatisticsCase
from tests.pool_stats_cases import TYPICAL, Tracker, assert_same, batches

TRACK = ("prediction_stability", "label_dispersion", "entropy", "least_confidence", "margin")
SCHEDULES = {name: EveryEpoch() for name in TRACK}
BATCH = 8192
COPY, PLAIN, COMPILED = "copy of as many bytes", "plain torch", "torch.compile"
RACE = (COPY, PLAIN, COMPILED, OURS)
TIMES_AS_FAST = {10: 6, 100: 8, 1000: 6}  # as plain torch, at least


class Pass(NamedTuple):
    """What a group observes."""

    n: int
    classes: int
    order: str

    def title(self):
        return f"pool statistics: one pass, {self.n:,} samples × {self.classes:,}, {self.order}"

    def moved(self):
        """Bytes that must move: id, logits, mean twice, one label count twice, and the scalars."""
        scalars = 2 * 4 + 2 * 4 + 2 * 4 + 3 * 4  # stamp, count and m2 read and written; 3 written
        return self.n * (8 + 4 * self.classes + 8 * self.classes + 2 + scalars)


LARGE = int(150_000 * SCALE)
GROUPS = {
    **{Pass(LARGE, c, order): RACE for c in (10, 100, 1000) for order in ("in order", "shuffled")},
    Pass(2_000, 100, "shuffled"): (*RACE, REFERENCE),
}


class Fused:
    """``PoolStats``, as a user calls it."""

    def __init__(self, case, device, backend=None):
        options = {"schedules": SCHEDULES, "device": device, "backend": backend}
        self.stats = PoolStats(case.n, case.classes, TRACK, **options)

    def observe(self, batches):
        with self.stats.observe(1, 1):
            for ids, logits in batches:
                self.stats.update(ids, logits)

    def scores(self):
        return {name: self.stats.score(name) for name in TRACK}


class PlainTorch:
    """What one writes without a kernel: in place, no temporary that is not needed."""

    def __init__(self, case, device):
        n, classes = case.n, case.classes
        self.count = torch.zeros(n, device=device)
        self.mean = torch.zeros(n, classes, device=device)
        self.m2 = torch.zeros(n, device=device)
        self.labels = torch.zeros(n, classes, dtype=torch.uint8, device=device)
        self.entropy, self.top, self.margin = torch.empty(3, n, device=device).unbind()
        self.ones = torch.ones(BATCH, dtype=torch.uint8, device=device)

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

    def observe(self, batches):
        for ids, logits in batches:
            self.update(ids, logits)

    def scores(self):
        values = (
            self.m2 / self.count,
            1 - self.labels.amax(dim=1) / self.count,
            self.entropy,
            1 - self.top,
            -self.margin,
        )
        return dict(zip(TRACK, values, strict=True))


class Compiled(PlainTorch):
    """The same statistics as plain assignments, for ``torch.compile`` to fuse."""

    @torch.compile
    def update(self, ids, logits):
        p = logits.softmax(dim=1)
        count = self.count[ids] + 1
        mean = self.mean[ids]
        delta = p - mean
        mean = mean + delta / count[:, None]
        self.count[ids] = count
        self.mean[ids] = mean
        self.m2[ids] += (delta * (p - mean)).sum(dim=1)
        top = p.topk(2, dim=1)
        self.labels[ids, top.indices[:, 0]] += 1
        self.top[ids] = top.values[:, 0]
        self.margin[ids] = top.values[:, 0] - top.values[:, 1]
        self.entropy[ids] = torch.special.entr(p).sum(dim=1)


TRACKERS = {
    OURS: Fused,
    REFERENCE: functools.partial(Fused, backend=REFERENCE),
    PLAIN: PlainTorch,
    COMPILED: Compiled,
}


@functools.lru_cache(maxsize=1)
def load(case, device):
    """The sample ids (n,) of a pass, and the logits (n, classes) of two epochs."""
    torch.manual_seed(0)
    ids = torch.arange(case.n) if case.order == "in order" else torch.randperm(case.n)
    epochs = StatisticsCase(case.n, case.classes, 2)
    base = epochs.load().to(device)
    return ids.to(device), [epochs.epoch_logits(base, epoch) for epoch in (1, 2)]


@functools.cache
def equals_the_reference(classes, device, backend):
    """A backend folds the batches of the tests as the reference does in float64."""
    got = Tracker(101, classes, TYPICAL, device=device)
    want = Tracker(101, classes, TYPICAL, exact=True)
    for number, ids, logits, _ in batches(101, classes, torch.float32):
        for tracker in (got, want):
            tracker.begin_pass(number)
        got.update(ids.to(device), logits.to(device), backend=backend)
        want.update(ids, logits)
    assert_same(got, want)


def agrees_with_the_reference(tracker, case, ids, epochs):
    """Observe both epochs, and compare a thousand samples spread over the pool with float64."""
    rows = torch.linspace(0, case.n - 1, min(case.n, 1000)).long().to(ids.device)
    part = Fused(case._replace(n=len(rows)), "cpu", REFERENCE)
    for logits in epochs:
        tracker.observe(zip(ids.split(BATCH), logits.split(BATCH), strict=True))
        part.observe([(torch.arange(len(rows)), logits[rows].cpu())])
    scores = tracker.scores()
    for name, want in part.scores().items():
        got = scores[name][ids[rows]].cpu()
        torch.testing.assert_close(
            got, want, rtol=1e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def copy(case, device):
    """A copy from memory, not from a cache: each time of another part of what it can hold."""
    floats = case.moved() // 8  # half of the bytes are read, half are written
    parts = -(-(1 << 26) // floats)
    sources, targets = torch.ones(2, parts, floats, device=device)
    turns = itertools.cycle(zip(sources, targets, strict=True))

    def job():
        source, target = next(turns)
        target.copy_(source)

    return job


def prepare(case, way, device):
    """The job of a way; it is verified."""
    if way == COPY:
        return copy(case, device)
    if way in (OURS, REFERENCE):
        equals_the_reference(case.classes, device, None if way == OURS else way)
    tracker = TRACKERS[way](case, device)
    ids, epochs = load(case, device)
    agrees_with_the_reference(tracker, case, ids, epochs)
    split = list(zip(ids.split(BATCH), epochs[0].split(BATCH), strict=True))
    return functools.partial(tracker.observe, split)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("case", "way"),
    [
        pytest.param(case, way, id=f"{case.n} x {case.classes}, {case.order}, {way}")
        for case, ways in GROUPS.items()
        for way in ways
    ],
)
def test_pass(side_by_side, case, way, device):
    if way == REFERENCE and device != "cpu":
        pytest.skip("the reference runs on the CPU")
    ratios = side_by_side(case.title(), way, prepare(case, way, device), device=device, rounds=7)
    if way == OURS and PLAIN in ratios and case.n == 150_000 and device == "cpu":
        assert ratios[PLAIN] >= TIMES_AS_FAST[case.classes]
