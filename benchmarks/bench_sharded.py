"""Rounds, bytes and balance of traversals and draws over many ranks, counted on simulated ones.

    pytest benchmarks/bench_sharded.py --benchmark-only

The simulator runs the same code with ranks in memory, one at a time, and its picks are held against
those of one process. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pools.
"""

import threading

import pytest
import torch

from benchmarks.machine import SCALE
from dynal_fast import farthest_first, kmeans_plusplus
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.ops.farthest_first import cpu
from dynal_fast.ops.farthest_first.sharded.functions import farthest_first_of_shards
from dynal_fast.ops.kmeans_plusplus.cpu import CpuRaceKernels
from dynal_fast.ops.kmeans_plusplus.sharded import kmeans_plusplus_of_shards
from tests.cases.farthest_first import clustered, gaussian

DIMENSIONS = 64
MOST_BYTES, MOST_ROUNDS = 1.5, 2.5  # of what each rank needs at least
WORK = 1.3  # of one process's pairs over the ranks: aimed at with 4 ranks, and not always reached


class Pairs:
    """How many pairs of rows the kernels of each rank are asked to compare."""

    def __init__(self, monkeypatch) -> None:
        self.asked: dict[int, int] = {}
        self.of_thread = threading.local()
        # Otherwise one call traverses a small pool or routes rows, and nobody counts its pairs.
        monkeypatch.setattr(cpu.CpuKernels, "at_once", lambda kernels, candidates: False)
        monkeypatch.setattr(cpu.CpuKernels, "keep", lambda kernels, clusters: None)
        for kernels, names in (
            (cpu.CpuKernels, ("distances", "bound", "refresh", "traverse")),
            (CpuRaceKernels, ("advance", "race")),
        ):
            for name in names:
                monkeypatch.setattr(kernels, name, getattr(self, name)(getattr(kernels, name)))

    def add(self, pairs: int) -> None:
        rank = getattr(self.of_thread, "rank", -1)
        self.asked[rank] = self.asked.get(rank, 0) + pairs

    def distances(self, kernel):
        def call(own, x, rows, y, centers):
            self.add(len(rows) * len(centers))
            return kernel(own, x, rows, y, centers)

        return call

    def bound(self, kernel):
        def call(own, x, y, groups, bound):
            self.add(pairs_of(groups))
            return kernel(own, x, y, groups, bound)

        return call

    def refresh(self, kernel):
        def call(own, x, y, groups, first, bound, exact):
            self.add(pairs_of(groups) - (0 if first is None else int(first.sum())))
            return kernel(own, x, y, groups, first, bound, exact)

        return call

    def traverse(self, kernel):
        def call(own, x, head, *more):
            count = kernel(own, x, head, *more)
            self.add(count * len(head))
            return count

        return call

    def advance(self, kernel):
        def call(own, x, rows, y, first, fired, clocks):
            self.add(len(rows) * len(fired.rows) - int(first.sum()))
            return kernel(own, x, rows, y, first, fired, clocks)

        return call

    def race(self, kernel):
        def call(own, x, rows, *more):
            count = kernel(own, x, rows, *more)
            self.add(count * len(rows))
            return count

        return call


def pairs_of(groups):
    sizes = [
        torch.diff(ends, prepend=ends.new_zeros(1))
        for ends in (groups.row_ends, groups.center_ends)
    ]
    return int((sizes[0] * sizes[1]).sum())


@pytest.mark.parametrize("cut", ["even", "sorted", "1:2:4:..."])
@pytest.mark.parametrize("labeled", [0, 4096])
@pytest.mark.parametrize("ranks", [4, 64, 1024])
@pytest.mark.parametrize(("picks", "samples"), [(512, 32_768), (1000, 40_000), (4000, 40_000)])
def test_counts(benchmark, report, monkeypatch, picks, samples, ranks, labeled, cut):
    if ranks == 1024 and (labeled == 0 or cut != "even" or picks > 1000):
        pytest.skip("minutes on one machine")
    picks, samples = max(64, round(picks * SCALE)), max(2048, round(samples * SCALE))
    pool = clustered(samples, DIMENSIONS)
    known = clustered(labeled, DIMENSIONS, seed=7) if labeled else None
    if cut == "sorted":
        pool = pool[pool[:, 0].argsort()]
    ends = torch.arange(1, ranks + 1).double()
    if cut == "1:2:4:...":
        ends = (torch.arange(ranks) % 8).double().exp2().cumsum(0)
    cuts = [0, *(ends / ends[-1] * samples).round().long().tolist()]
    pairs = Pairs(monkeypatch)
    want = farthest_first(pool, picks, known)
    alone = pairs.asked.pop(-1)
    states = {}

    def one(group):
        pairs.of_thread.rank = group.rank

        def after_round(state):
            states[group.rank] = state

        shard = pool[cuts[group.rank] : cuts[group.rank + 1]]
        got = farthest_first_of_shards(group, [shard], picks, known, after_round=after_round)
        return got, group.received

    found = benchmark.pedantic(run_ranks, (ranks, one), rounds=1)
    assert all(torch.equal(got.indices, want.indices) for got, _ in found)
    rounds, received = states[0].rounds, max(received for _, received in found)
    share = max(pairs.asked.values()) * ranks / alone
    balance = max(pairs.asked.values()) * ranks / sum(pairs.asked.values())
    counted = {"rounds": rounds, "received": received, "share": share, "balance": balance}
    benchmark.extra_info.update(counted)
    report(
        f"{ranks} ranks, {cut}, {labeled} labeled, {picks} of {samples} x {DIMENSIONS}: {rounds} "
        f"rounds, {received / 1e6:.2f} MB received, {share:.2f} of one process's pairs / ranks "
        f"(aim: {WORK}), busiest rank {balance:.2f} of the mean"
    )
    head = cpu.head_rows(DIMENSIONS)
    assert rounds <= MOST_ROUNDS * max(samples / (ranks * head), picks / 60)
    assert received <= MOST_BYTES * picks * 4 * DIMENSIONS + 10e6


@pytest.mark.parametrize("cut", ["even", "sorted"])
@pytest.mark.parametrize("labeled", [0, 4096])
@pytest.mark.parametrize("make", [clustered, gaussian])
@pytest.mark.parametrize("ranks", [4, 64])
def test_counts_of_draws(benchmark, report, monkeypatch, ranks, make, labeled, cut):
    picks, samples = max(64, round(1000 * SCALE)), max(2048, round(40_000 * SCALE))
    pool = make(samples, DIMENSIONS)
    known = make(labeled, DIMENSIONS, seed=7) if labeled else None
    if cut == "sorted":
        pool = pool[pool[:, 0].argsort()]
    pairs, states = Pairs(monkeypatch), {}
    want = kmeans_plusplus(pool, picks, known, generator=torch.Generator().manual_seed(0))
    alone = pairs.asked.pop(-1)

    def one(group):
        pairs.of_thread.rank = group.rank
        shard = pool[samples * group.rank // ranks : samples * (group.rank + 1) // ranks]
        drawn = kmeans_plusplus_of_shards(
            group,
            shard,
            picks,
            known,
            generator=torch.Generator().manual_seed(0),
            after_round=lambda state: states.update({group.rank: state}),
        )
        return drawn, group.received

    found = benchmark.pedantic(run_ranks, (ranks, one), rounds=1)
    assert all(torch.equal(drawn.indices, want.indices) for drawn, _ in found)
    rounds, received = states[0].rounds, max(received for _, received in found)
    share = max(pairs.asked.values()) * ranks / alone
    benchmark.extra_info.update({"rounds": rounds, "received": received, "share": share})
    report(
        f"{ranks} ranks, {cut}, {make.__name__}, {labeled} labeled, {picks} of {samples} x "
        f"{DIMENSIONS} drawn: {rounds} rounds, {received / 1e6:.2f} MB received, {share:.2f} of "
        "one process's pairs / ranks"
    )
    assert rounds <= 10 + picks / 20
