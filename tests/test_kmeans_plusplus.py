"""kmeans_plusplus: every backend against the direct race, and the law of its picks."""

import itertools

import numpy as np
import pytest
import torch

from dynal_fast import OuterProducts, _extension, kmeans_plusplus
from dynal_fast.ops.farthest_first import routing
from dynal_fast.ops.kmeans_plusplus import lazy, reference
from tests.cases.farthest_first import clustered, gaussian, lattice, small_cases
from tests.cases.outer_products import KINDS, outer_products

CASES = small_cases()
LAZY = ("cpu", "reference-lazy")


def draw(pool, k, labeled=None, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return kmeans_plusplus(pool, k, labeled, generator=generator, **options)


def assert_equals_the_direct_race(pool, k, labeled=None, backends=LAZY, **options):
    want = draw(pool, k, labeled, backend="reference", **options)
    for backend in backends:
        got = draw(pool, k, labeled, backend=backend, **options)
        assert torch.equal(got.indices, want.indices)
        assert torch.equal(got.distances, want.distances)
    return want


def case(name, metric="euclidean"):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    return pool, labeled


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_lazy_equals_direct(name, metric):
    pool, labeled = case(name, metric)
    got = assert_equals_the_direct_race(pool, len(pool), labeled, metric=metric)
    assert sorted(got.indices.tolist()) == list(range(len(pool)))
    start = len(pool) // 2
    got = assert_equals_the_direct_race(
        pool, min(len(pool), 20), labeled, metric=metric, start=start, seed=1
    )
    assert got.indices[0] == start


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks so small that small pools need many heads, fronts, clusters and chunks."""
    monkeypatch.setattr(lazy, "HEAD", 7)
    monkeypatch.setattr(lazy, "FRONT", 23)
    sizes = {"CLUSTERED_FROM": 4, "PROBES": 1, "MORE_PROBES": 2, "TILE": 16, "CHUNK": 50}
    for name, value in sizes.items():
        monkeypatch.setattr(routing, name, value)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("name", CASES)
def test_block_sizes_change_nothing(name):
    pool, labeled = case(name)
    pool = pool[:50]
    assert_equals_the_direct_race(pool, len(pool), labeled, seed=3)
    assert_equals_the_direct_race(pool, min(len(pool), 9), labeled, metric="euclidean", seed=4)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_outer_products(kind):
    pool = outer_products(kind, 40)
    for labeled in (None, outer_products(kind, 11, seed=2), [3, 7]):
        k = len(pool) - (2 if isinstance(labeled, list) else 0)
        assert_equals_the_direct_race(pool, k, labeled)


@pytest.mark.parametrize("isa", _extension.load().supported_isas())
def test_instruction_sets_and_threads_change_nothing(isa):
    native, threads = _extension.load(), torch.get_num_threads()
    usual = native.active_isa()
    try:
        native.set_isa(isa)
        for count in (1, 3):
            torch.set_num_threads(count)
            for name in ("clustered", "lattice", "bootstrap"):
                assert_equals_the_direct_race(*(case(name)[0], 200, case(name)[1]), ("cpu",))
            assert_equals_the_direct_race(outer_products("scaled"), 60, None, ("cpu",))
    finally:
        native.set_isa(usual)
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64]
)
def test_dtypes(dtype):
    pool = torch.from_numpy(20 * np.abs(clustered(90, 12))).to(dtype)
    assert_equals_the_direct_race(pool, 60, pool[:5])


def test_labeled_as_indices_or_a_mask_are_never_drawn():
    pool = gaussian(80, 6)
    mask = np.zeros(80, dtype=bool)
    mask[[4, 9, 70]] = True
    by_index = assert_equals_the_direct_race(pool, 77, [70, 4, 9, 4])
    by_mask = assert_equals_the_direct_race(pool, 77, mask)
    assert torch.equal(by_index.indices, by_mask.indices)
    assert sorted(by_index.indices.tolist()) == np.flatnonzero(~mask).tolist()
    by_rows = draw(pool, 20, pool[mask])
    assert torch.equal(by_index.indices[:20], by_rows.indices)


def test_the_first_picks_do_not_depend_on_how_many_follow():
    pool = clustered(3000, 10)
    whole = draw(pool, 900)
    assert torch.equal(draw(pool, 300).indices, whole.indices[:300])
    assert whole.distances[0] == torch.inf


def test_scales_by_powers_of_two_change_no_pick():
    pool = clustered(200, 16).astype(np.float64)
    want = draw(pool, 150)
    for power in (-30, 5, 50):
        got = draw(pool * 2.0**power, 150)
        assert torch.equal(got.indices, want.indices)
        np.testing.assert_array_equal(got.distances, want.distances * 2.0**power)


def test_duplicates_follow_by_index():
    pool = np.zeros((50, 3), dtype=np.float32)
    pool[[7, 31]] = [[1, 0, 0], [0, 2, 0]]
    got = assert_equals_the_direct_race(pool, 50)
    distinct, rest = got.indices[:3].tolist(), got.indices[3:].tolist()
    assert {7, 31} < set(distinct)
    assert rest == sorted(set(range(50)) - set(distinct))
    assert (got.distances[3:] == 0).all()


@pytest.mark.usefixtures("tiny_blocks")
def test_clocks_that_tie_go_by_index(monkeypatch):
    monkeypatch.setattr(reference, "clocks", lambda seed, n: np.ones(n))
    for pool in (np.eye(60, dtype=np.float32), lattice(60, 3), np.ones((60, 2), np.float32)):
        assert_equals_the_direct_race(pool, 60)
        assert_equals_the_direct_race(pool, 60, pool[:1] + 1)


def test_clocks_are_a_function_of_seed_and_sample():
    clock = reference.clocks(12345, 100_000)
    np.testing.assert_array_equal(clock[:100], reference.clocks(12345, 100))
    assert (clock > 0).all()
    assert abs(clock.mean() - 1) < 0.02
    assert abs((clock**2).mean() - 2) < 0.06
    other = reference.clocks(12346, 100_000)
    assert abs(np.corrcoef(clock, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(clock[1:], clock[:-1])[0, 1]) < 0.02


# The numbers below are of fixed seeds. A right law exceeds them in one of 1,000 trials.
def chi_square(counts, expected):
    from scipy.stats import chi2

    statistic = ((counts - expected) ** 2 / expected).sum()
    return statistic, chi2.ppf(0.999, len(expected) - 1)


def probabilities_of_triples(squared):
    """Of each triple of picks in order, by the definition of D² sampling."""
    n, found = len(squared), {}
    for a, b, c in itertools.permutations(range(n), 3):
        after = np.minimum(squared[a], squared[b])
        second, third = squared[a, b] / squared[a].sum(), after[c] / after.sum()
        found[a, b, c] = second * third / n
    return found


def test_picks_are_d2_distributed():
    points = np.array([[0, 0], [1, 0], [0, 2], [3, 1], [-2, -1]], dtype=np.float64)
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    wanted = probabilities_of_triples(squared)
    rates, trials = np.full(5, np.inf, dtype=np.float32), 4000
    counts = dict.fromkeys(wanted, 0)
    for seed in range(trials):
        picks, _ = reference.kmeans_plusplus(points, 3, rates, reference.clocks(seed, 5))
        counts[tuple(picks.tolist())] += 1
    expected = trials * np.array(list(wanted.values()))
    statistic, limit = chi_square(np.array(list(counts.values())), expected)
    assert statistic < limit


def test_the_law_is_that_of_scikit_learn_with_one_trial():
    cluster = pytest.importorskip("sklearn.cluster")
    points = np.array([[0.0], [1.0], [3.0], [7.0]])
    trials, order = 1000, list(itertools.permutations(range(4), 3))
    nothing = np.full(4, np.inf, dtype=np.float32)
    ours, theirs = dict.fromkeys(order, 0), dict.fromkeys(order, 0)
    for seed in range(trials):
        picks, _ = reference.kmeans_plusplus(points, 3, nothing, reference.clocks(seed, 4))
        ours[tuple(picks.tolist())] += 1
        _, picks = cluster.kmeans_plusplus(points, 3, random_state=seed, n_local_trials=1)
        theirs[tuple(picks.tolist())] += 1
    a, b = np.array(list(ours.values())), np.array(list(theirs.values()))
    seen = (a + b) > 10
    both = (a[seen] + b[seen]) / 2
    statistic, limit = chi_square(a[seen], both)
    assert 2 * statistic < limit


def test_with_labeled_samples_the_first_pick_is_d2_distributed_too():
    points = np.array([[1.0], [2.0], [4.0], [-3.0]])  # and 0 is labeled
    squared = (points[:, 0] ** 2).astype(np.float32)
    counts, trials = np.zeros(4), 4000
    for seed in range(trials):
        picks, _ = reference.kmeans_plusplus(points, 1, squared, reference.clocks(seed, 4))
        counts[picks[0]] += 1
    statistic, limit = chi_square(counts, trials * squared / squared.sum())
    assert statistic < limit


def test_empty_and_single():
    assert draw(np.ones((5, 2)), 0).indices.tolist() == []
    assert draw(np.empty((0, 2)), 0).indices.tolist() == []
    assert draw(np.ones((1, 2)), 1).indices.tolist() == [0]
    assert draw(np.ones((3, 2)), 1, [0, 2]).indices.tolist() == [1]
    assert draw(np.ones((3, 2)), 0, [0, 1, 2]).indices.tolist() == []
    pool = gaussian(30, 3)
    nothing = draw(pool, 30, np.empty((0, 3), np.float32))
    assert torch.equal(nothing.indices, draw(pool, 30).indices)


def test_the_generator_decides():
    pool = gaussian(100, 4)
    torch.manual_seed(5)
    default = kmeans_plusplus(pool, 10).indices
    torch.manual_seed(5)
    assert torch.equal(kmeans_plusplus(pool, 10).indices, default)
    assert not torch.equal(kmeans_plusplus(pool, 10).indices, default)


@pytest.mark.parametrize("backend", ["reference", *LAZY])
def test_bad_input_is_refused_by_name(backend):
    pool = gaussian(10, 3)
    broken = pool.copy()
    broken[4, 1] = np.nan
    for arguments, options, error, message in (
        ((broken, 2), {}, ValueError, "pool row 4 holds a NaN"),
        ((pool, 2, broken), {}, ValueError, "labeled row 4 holds a NaN"),
        ((pool, 11), {}, ValueError, "k must be between 0 and 10"),
        ((pool, 10, [1]), {}, ValueError, "k must be between 0 and 9"),
        ((pool, 2.5), {}, TypeError, "k must be an integer"),
        ((pool[0], 1), {}, ValueError, r"pool must have shape \(samples, dimensions\)"),
        ((pool, 2, pool[:, :2]), {}, ValueError, "labeled must have the pool's 3 dimensions"),
        ((pool, 2), {"metric": "manhattan"}, ValueError, "metric must be one of"),
        ((pool, 2), {"start": 10}, ValueError, "start must be between 0 and 9"),
        ((pool, 2), {"start": "random"}, TypeError, "start must be an integer"),
        ((pool, 2, [3]), {"start": 3}, ValueError, "start must not be a labeled sample, got 3"),
        ((pool, 2), {"generator": 7}, TypeError, "generator must be a torch.Generator, got 7"),
        ((pool * 0, 2), {"metric": "cosine"}, ValueError, "pool row 0 is zero"),
    ):
        with pytest.raises(error, match=message):
            kmeans_plusplus(*arguments, backend=backend, **options)
    with pytest.raises(ValueError, match="backend must be one of"):
        kmeans_plusplus(pool, 2, backend="gpu")


def test_random_pools_by_random_sizes():
    rng = np.random.default_rng(20)
    for trial in range(60):
        n, d = int(rng.integers(1, 60)), int(rng.integers(1, 9))
        make = (gaussian, clustered, lattice)[trial % 3]
        pool, labeled = make(n, d, trial), [None, make(4, d, trial + 1)][trial % 2]
        if trial % 5 == 0:
            pool = OuterProducts(pool, make(n, 3, trial + 2))
            labeled = None
        start = int(rng.integers(n)) if trial % 4 == 0 else None
        assert_equals_the_direct_race(
            pool, int(rng.integers(n + 1)), labeled, start=start, seed=trial
        )
