"""One pass over a pool: the fused update beside plain torch, ``torch.compile`` and a bare copy.

    pytest benchmarks/bench_pool_stats.py --benchmark-only

All fold float32 logits, 8,192 rows at a time, into prediction stability, label dispersion and the
last entropy, top probability and margin; they are those of ``dynal-fast bench``. The copy reads and
writes as many bytes together as must move, so its ratio to ours is our share of its bandwidth.
First every backend must equal the float64 reference on the batches of the tests; then all are held
against it over two epochs of the whole pool, on a thousand samples spread over it.
``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pools.
"""

import dataclasses
import functools
from typing import NamedTuple

import pytest
import torch

from benchmarks.machine import DEVICES, OURS, REFERENCE, SCALE
from dynal_fast.bench.cases import StatisticsCase
from dynal_fast.bench.competitors.ours import Fused
from dynal_fast.bench.competitors.statistics import (
    BEYOND_CACHES,
    InPlace,
    compiled,
    copy_from_memory,
)
from tests.cases.pool_stats import TYPICAL, Tracker, assert_same, batches

COPY, PLAIN, COMPILED = "copy of as many bytes", "plain torch", "torch.compile"
RACE = (COPY, PLAIN, COMPILED, OURS)
CHECKED = max(100, int(1000 * SCALE))  # samples
TIMES_AS_FAST = {10: 6, 100: 8, 1000: 6}  # as plain torch, at least


class Pass(NamedTuple):
    """A case, and the order in which its samples come."""

    case: StatisticsCase
    order: str

    def title(self):
        n, classes = self.case.n, self.case.classes
        return f"pool statistics: one pass, {n:,} samples × {classes:,}, {self.order}"


LARGE = [StatisticsCase(int(150_000 * SCALE), classes, epochs=2) for classes in (10, 100, 1000)]
GROUPS = {
    **{Pass(case, order): RACE for case in LARGE for order in ("in order", "shuffled")},
    Pass(StatisticsCase(2_000, 100, epochs=2), "shuffled"): (*RACE, REFERENCE),
}
TRACKERS = {
    OURS: Fused,
    REFERENCE: functools.partial(Fused, backend=REFERENCE),
    PLAIN: InPlace,
    COMPILED: compiled,
}


@functools.lru_cache(maxsize=1)
def load(group, device):
    """The sample ids (n,) of a pass, and the logits (n, classes) of two epochs."""
    torch.manual_seed(0)
    case = group.case
    ids = torch.arange(case.n) if group.order == "in order" else torch.randperm(case.n)
    base = case.load().to(device)
    return ids.to(device), [case.epoch_logits(base, epoch) for epoch in (1, 2)]


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
    """Observe both epochs, and compare samples spread over the pool with float64."""
    rows = torch.linspace(0, case.n - 1, min(case.n, CHECKED)).long().to(ids.device)
    part = Fused(dataclasses.replace(case, n=len(rows)), "cpu", REFERENCE)
    for logits in epochs:
        tracker.observe(zip(ids.split(case.batch), logits.split(case.batch), strict=True))
        part.observe([(torch.arange(len(rows)), logits[rows].cpu())])
    scores = tracker.scores()
    for name, want in part.scores().items():
        got = scores[name][ids[rows]].cpu()
        torch.testing.assert_close(
            got, want, rtol=1e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def prepare(group, way, device):
    """Return the job of a way, after verifying its results."""
    case = group.case
    if way == COPY:
        return copy_from_memory(case, device, int(BEYOND_CACHES * min(SCALE, 1)))
    if way in (OURS, REFERENCE):
        equals_the_reference(case.classes, device, None if way == OURS else way)
    tracker = TRACKERS[way](case, device)
    ids, epochs = load(group, device)
    agrees_with_the_reference(tracker, case, ids, epochs)
    split = list(zip(ids.split(case.batch), epochs[0].split(case.batch), strict=True))
    return functools.partial(tracker.observe, split)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("group", "way"),
    [
        pytest.param(group, way, id=f"{group.case.n} x {group.case.classes}, {group.order}, {way}")
        for group, ways in GROUPS.items()
        for way in ways
    ],
)
def test_pass(side_by_side, group, way, device):
    if way == REFERENCE and device != "cpu":
        pytest.skip("the reference runs on the CPU")
    job = prepare(group, way, device)
    ratios = side_by_side(group.title(), way, job, device=device, rounds=7)
    if way == OURS and PLAIN in ratios and group.case.n == 150_000 and device == "cpu":
        assert ratios[PLAIN] >= TIMES_AS_FAST[group.case.classes]
