"""Farthest-first beside the work that it avoids: ``torch.mm`` with the labeled set, a BLAS loop.

    pytest benchmarks/bench_farthest_first.py --benchmark-only

Every backend must first equal the float64 reference on the pools of the tests; then its picks at
full size are certified over the whole pool. The yardstick is the matrix product that a traversal
without pruning needs for the labeled set alone. The loop is the strong baseline of ``dynal-fast
bench``, which compares with libraries too. Embeddings of a trained network and of a transformer are
skipped where their files are missing. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks everything.
"""

import functools

import pytest
import torch

from benchmarks.machine import DEVICES, OURS, REFERENCE, SCALE, scaled
from dynal_fast import FarthestFirst, assign_to_picks, farthest_first, verify_traversal
from dynal_fast.bench.cases import TraversalCase
from dynal_fast.bench.competitors import method_for
from dynal_fast.bench.competitors.base import Size
from dynal_fast.bench.exactness import judge_picks
from dynal_fast.bench.inputs import lacking
from dynal_fast.bench.suites import FROM_NOTHING, HEADLINE, IMAGES, TEXTS, WORST
from tests.cases.farthest_first import small_cases

YARDSTICK, LOOP = "one torch.mm (yardstick)", "BLAS loop"
TENTH = "BLAS loop, a tenth of the picks"  # all picks take minutes
SMALL = TraversalCase("clustered", 2000, 64, 100, labeled=200)  # small enough for the reference


# Each group with its ways, and how many times our time each must take at least. With nothing
# labeled, a tenth of the picks takes the loop a tenth of its time.
GROUPS = [
    (scaled(HEADLINE), {YARDSTICK: 1 / 0.25, TENTH: 12, OURS: 0}),
    (scaled(WORST), {YARDSTICK: 1 / 0.7, OURS: 0}),
    (scaled(FROM_NOTHING), {TENTH: 1, OURS: 0}),
    (scaled(IMAGES), {YARDSTICK: 1 / 0.2, OURS: 0}),
    (scaled(TEXTS), {YARDSTICK: 1 / 0.35, OURS: 0}),
    (SMALL, {YARDSTICK: 0, LOOP: 0, REFERENCE: 0, OURS: 0}),
]


@functools.lru_cache(maxsize=1)
def load(case, device):
    return tuple(None if rows is None else rows.to(device) for rows in case.load())


@functools.cache
def equals_the_reference(device):
    """Traverse the pools of the tests completely: our backend must equal the reference."""
    for name, arrays in small_cases().items():
        pool, labeled = (None if rows is None else torch.from_numpy(rows) for rows in arrays)
        want = farthest_first(pool, len(pool), labeled, progress=False, backend=REFERENCE)
        moved = None if labeled is None else labeled.to(device)
        got = farthest_first(pool.to(device), len(pool), moved, progress=False)
        assert got.indices.tolist() == want.indices.tolist(), name
        assert got.distances.tolist() == want.distances.tolist(), name
        assert got.radius == want.radius, name


@functools.cache
def the_loop_is_the_same_job(device):
    """The baseline's picks must cover a pool as well as the exact ones, up to rounding."""
    pool, labeled = load(SMALL, device)
    picks = method_for(SMALL, LOOP).prepare(SMALL, (pool, labeled))(Size(SMALL.k, SMALL.labeled))
    judged = judge_picks(pool, labeled, picks, SMALL.k, False)
    assert judged["radius_ratio"] == pytest.approx(1, abs=1e-5)


def prepare(case, way, device):
    """Return the job of a way, after verifying its answers."""
    if way in (OURS, REFERENCE):
        equals_the_reference(device)
        pool, labeled = load(case, device)
        backend = None if way == OURS else way

        def traverse():
            return farthest_first(pool, case.k, labeled, progress=False, backend=backend)

        certificate = verify_traversal(pool, traverse(), labeled, progress=False)
        assert certificate.valid, certificate
        return traverse
    if way != YARDSTICK:
        the_loop_is_the_same_job(device)
    method = method_for(case, LOOP if way == TENTH else way)
    size = Size(case.k // 10 if way == TENTH else case.k, case.labeled)
    return functools.partial(method.prepare(case, load(case, device)), size)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("case", "way", "slowest_allowed"),
    [
        pytest.param(case, way, ways, id=f"{case.inputs} {case.n} x {case.d}, {way}")
        for case, ways in GROUPS
        for way in ways
    ],
)
def test_traversal(side_by_side, case, way, slowest_allowed, device):
    if reason := lacking(case.inputs):
        pytest.skip(reason)
    job = prepare(case, way, device)
    rounds = 3 if way == OURS or (case == SMALL and way != REFERENCE) else 1
    ratios = side_by_side(case.title(), way, job, device=device, rounds=rounds)
    if way == OURS and SCALE == 1 and device == "cpu":
        for other, ratio in ratios.items():
            assert ratio >= slowest_allowed[other], other


CYCLES = 5
FIXED = scaled(TraversalCase("clustered", 50_000, 256, 500, labeled=5_000))
ANEW, AT_ONCE = "calls anew", "one pick of all"
STEPS = "a fifth of the picks, each with all distances"


def in_cycles(way, pool, labeled):
    """The picks of five cycles over embeddings that stay."""
    share = FIXED.k // CYCLES
    if way == AT_ONCE:
        return farthest_first(pool, CYCLES * share, labeled, progress=False).indices.cpu()
    if way == ANEW:
        picks = torch.empty(0, dtype=torch.int64)
        for _ in range(CYCLES):
            more = farthest_first(pool, share, (labeled, picks), progress=False)
            picks = torch.cat([picks, more.indices.cpu()])
        return picks
    selection = FarthestFirst(pool, labeled)
    if way == STEPS:
        return torch.tensor([pick for pick, _ in selection.steps(share)])
    for _ in range(CYCLES):
        selection.pick(share, progress=False)
    return selection.covered


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", [ANEW, AT_ONCE, STEPS, OURS])
def test_cycles(side_by_side, way, device):
    """Five cycles by FarthestFirst must cost about what one traversal of as many picks costs."""
    pool, labeled = load(FIXED, device)
    want, got = in_cycles(AT_ONCE, pool, labeled), in_cycles(way, pool, labeled)
    assert torch.equal(got, want[: len(got)])
    job = functools.partial(in_cycles, way, pool, labeled)
    rounds = 1 if way == STEPS else 5
    ratios = side_by_side(f"five cycles: {FIXED.title()}", way, job, device=device, rounds=rounds)
    if way == OURS and SCALE == 1 and device == "cpu":
        assert ratios[ANEW] >= 3
        assert ratios[AT_ONCE] >= 0.7


TILED_MM = "torch.mm in tiles, then min"
ASSIGNED = scaled(HEADLINE)


def tiled_minimum(pool, centers):
    """The nearest center of each row in float32, by squares and products, in tiles of rows."""
    norms = centers.square().sum(1)
    best = [torch.min(norms - 2 * (rows @ centers.T), dim=1) for rows in pool.split(2048)]
    return torch.cat([part.indices for part in best])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", [TILED_MM, OURS])
def test_assignment(side_by_side, way, device):
    """Which of the labeled samples and the picks is nearest to each sample."""
    pool, labeled = load(ASSIGNED, device)
    picks = farthest_first(pool, ASSIGNED.k, labeled, progress=False).indices
    centers = torch.cat([labeled, pool[picks]])
    if way == OURS:
        got = assign_to_picks(pool, picks, labeled, progress=False)
        nearest = torch.where(got.labeled < 0, got.pick + len(labeled), got.labeled)
        other = tiled_minimum(pool, centers)
        ours, theirs = ((pool - centers[at]).square().sum(1) for at in (nearest, other))
        assert (ours <= theirs * (1 + 1e-6)).all()
    job = functools.partial(tiled_minimum, pool, centers)
    if way == OURS:
        job = functools.partial(assign_to_picks, pool, picks, labeled, progress=False)
    side_by_side(f"assignment: {ASSIGNED.title()}", way, job, device=device)
