"""CoreSet against every choice of centres, and what it says where a limit ends its search."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynal_fast.strategies import coreset, k_center_search
from dynal_fast.strategies.coreset import robust_k_center

pytestmark = pytest.mark.usefixtures("one_thread")


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def covering_radius(pool, centres, labeled, outliers):
    nearest = distances(pool, np.concatenate([labeled, pool[list(centres)]])).min(1)
    return np.sort(nearest)[max(0, len(pool) - 1 - outliers)] if outliers < len(pool) else 0.0


def optimal_radius(pool, budget, labeled, outliers):
    """Every choice of centres tried."""
    choices = itertools.combinations(range(len(pool)), budget)
    return min(covering_radius(pool, centres, labeled, outliers) for centres in choices)


def separation(pool, labeled, count):
    """Of the first picks farthest-first, one after the other: how far apart the last is."""
    picks, radius = list(labeled), math.inf
    for _ in range(count):
        nearest = distances(pool, np.array(picks)).min(1) if picks else np.full(len(pool), math.inf)
        radius = nearest.max()
        picks.append(pool[nearest.argmax()])
    return radius


def check(found, pool, labeled, outliers, optimum):
    """What holds whatever ended the search."""
    assert len(found.indices.unique()) == len(found.indices)
    reached = covering_radius(pool, found.indices.numpy(), labeled, outliers)
    assert found.radius == pytest.approx(reached, abs=1e-12)
    assert found.radius <= found.greedy_radius
    assert found.lower_bound <= optimum + 1e-12
    assert optimum <= found.radius + 1e-12
    assert found.optimal == (found.lower_bound == found.radius)


@pytest.mark.parametrize("outliers", [0, 1, 3])
@pytest.mark.parametrize("labeled", [0, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_smallest_radius(seed, labeled, outliers):
    rng = np.random.default_rng(seed)
    pool, fixed = rng.normal(size=(14, 2)), rng.normal(size=(labeled, 2))
    given_labels = torch.from_numpy(fixed) if labeled else None
    found = robust_k_center(torch.from_numpy(pool), 3, given_labels, outliers=outliers)
    optimum = optimal_radius(pool, 3, fixed, outliers)
    check(found, pool, fixed, outliers, optimum)
    assert found.stopped == "optimal"
    assert found.radius == pytest.approx(optimum, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    budget=st.integers(1, 4),
    labeled=st.integers(0, 3),
    outliers=st.integers(0, 4),
    lattice=st.booleans(),
    limits=st.sampled_from([{}, {"max_pairs": 0}, {"max_pairs": 20}, {"node_limit": 0}]),
    seed=st.integers(0, 10_000),
)
def test_bounds_hold_whatever_ends_the_search(
    size, budget, labeled, outliers, lattice, limits, seed
):
    rng = np.random.default_rng(seed)
    budget = min(budget, size)
    points = rng.normal(size=(size + labeled, 2))
    if lattice:
        points = rng.integers(0, 4, size=points.shape).astype(float)
    pool, fixed = points[:size], points[size:]
    found = robust_k_center(
        torch.from_numpy(pool),
        budget,
        torch.from_numpy(fixed) if labeled else None,
        outliers=outliers,
        **limits,
    )
    check(found, pool, fixed, outliers, optimal_radius(pool, budget, fixed, outliers))
    apart = budget + 1 + outliers
    least = separation(pool, fixed, apart) / 2 if apart <= size else 0.0
    assert found.lower_bound >= least * (1 - 1e-9)
    if found.stopped == "max_pairs":
        assert found.lower_bound == pytest.approx(least, rel=1e-9)
    if not limits:
        assert found.stopped == "optimal"


@pytest.mark.parametrize(
    "kind", ["plain", "far off", "one far away", "duplicates", "few", "all one"]
)
def test_the_nearest_is_exactly_the_nearest(kind):
    generator = torch.Generator().manual_seed(0)
    rows, others = (torch.randn(n, 7, generator=generator).double() for n in (700, 90))
    if kind == "far off":
        rows, others = rows + 1e6, others + 1e6
    elif kind == "one far away":
        others[3] = 1e9
    elif kind == "duplicates":
        others = torch.cat([others, rows[:40].repeat(5, 1)])
    elif kind == "few":
        others = others[:2]
    elif kind == "all one":
        rows, others = torch.ones(700, 7).double(), torch.ones(90, 7).double()
    want = k_center_search.exact_distances(rows, others).amin(1).numpy()
    np.testing.assert_array_equal(k_center_search.nearest_distances(rows, others), want)


def test_the_bound_holds_for_centres_that_are_no_samples():
    """Two samples 2 apart: the point between them would cover both with radius 1."""
    found = robust_k_center(torch.tensor([[0.0], [2.0]]), 1, max_pairs=0)
    assert (found.radius, found.lower_bound) == (2.0, pytest.approx(1.0))


def clustered(samples=160, outliers=4):
    generator = torch.Generator().manual_seed(0)
    centres = 6 * torch.randn(9, 2, generator=generator)
    near = centres[torch.randint(9, (samples,), generator=generator)]
    near = near + torch.randn(samples, 2, generator=generator)
    far = 40 + 20 * torch.randn(outliers, 2, generator=generator)
    return torch.cat([near, far]), torch.randn(5, 2, generator=generator)


def test_the_result_is_the_same_on_every_repeat():
    pool, labeled = clustered()
    first, second = (robust_k_center(pool, 6, labeled, outliers=4) for _ in range(2))
    assert torch.equal(first.indices, second.indices)
    assert (first.radius, first.lower_bound) == (second.radius, second.lower_bound)
    assert first.optimal
    assert first.radius < first.greedy_radius


@pytest.mark.parametrize(
    ("limits", "stopped"),
    [
        ({"max_pairs": 10}, "max_pairs"),
        ({"time_limit": 0.0}, "time_limit"),
        ({"node_limit": 0}, "node_limit"),
    ],
)
def test_a_limit_that_ends_the_search_is_named(limits, stopped):
    pool, labeled = clustered()
    best = robust_k_center(pool, 6, labeled, outliers=4)
    found = robust_k_center(pool, 6, labeled, outliers=4, **limits)
    check(found, pool.double().numpy(), labeled.double().numpy(), 4, best.radius)
    assert found.stopped == stopped
    assert best.radius < found.radius
    assert found.radius == found.greedy_radius or stopped == "node_limit"
    assert 0 < found.lower_bound < best.radius


def set_clock(monkeypatch, ticks):
    for module in (coreset, k_center_search):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


def test_a_clock_that_runs_out_at_any_moment_leaves_a_cover_and_a_bound(monkeypatch):
    pool, labeled = clustered()
    best = robust_k_center(pool, 6, labeled, outliers=4)
    exact = pool.double().numpy(), labeled.double().numpy()
    found = []
    for limit in itertools.count(1):
        ticks = itertools.count()
        set_clock(monkeypatch, ticks)
        result = robust_k_center(pool, 6, labeled, outliers=4, time_limit=limit)
        check(result, *exact, 4, best.radius)
        found.append(result)
        if result.optimal:
            break
        assert result.stopped == "time_limit"
    radii, bounds = ([getattr(r, name) for r in found] for name in ("radius", "lower_bound"))
    assert radii == sorted(radii, reverse=True)
    assert bounds == sorted(bounds)
    midway = [r for r in found if r.lower_bound > bounds[0] and best.radius < r.radius < radii[0]]
    assert midway
    assert (radii[-1], bounds[-1]) == (best.radius, best.radius)


def test_pairs_are_listed_against_the_clock(monkeypatch):
    pool = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    ticks = itertools.count()
    set_clock(monkeypatch, ticks)
    monkeypatch.setattr(scipy.optimize, "milp", lambda *_, **__: pytest.fail("a program was built"))
    found = robust_k_center(pool, 10, max_pairs=10**7, time_limit=3)  # there are four blocks
    assert found.stopped == "time_limit"
    assert found.radius == found.greedy_radius


@pytest.mark.parametrize(
    ("answer", "stopped"),
    [
        ({"x": None, "status": 4, "message": "numerical difficulties"}, "solver"),
        ({"x": np.zeros(400), "status": 0, "message": "no cover, whatever it says"}, "solver"),
        ({"x": None, "status": 4, "message": "Solution limit reached"}, "node_limit"),
        ({"x": None, "status": 1, "message": "Time limit reached."}, "time_limit"),
    ],
)
def test_an_answer_that_decides_nothing_is_not_believed(monkeypatch, answer, stopped):
    monkeypatch.setattr(scipy.optimize, "milp", lambda *_, **__: SimpleNamespace(**answer))
    found = robust_k_center(clustered()[0], 6)
    assert found.stopped == stopped
    assert 0 < found.lower_bound < found.radius == found.greedy_radius


def test_duplicates_and_a_pool_that_is_covered():
    found = robust_k_center(torch.ones(5, 2), 2, labeled=torch.ones(1, 2))
    assert (found.radius, found.lower_bound, found.stopped) == (0, 0, "optimal")
    assert len(found.indices.unique()) == 2
    all_outliers = robust_k_center(torch.arange(4.0)[:, None], 1, outliers=3)
    assert (all_outliers.radius, all_outliers.stopped) == (0, "optimal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 6}, r"budget must be in 1 \.\. 5, got 6"),
        ({"outliers": -1}, "outliers must be at least 0, got -1"),
        ({"max_pairs": -1}, "max_pairs must be at least 0, got -1"),
        ({"node_limit": -2}, "node_limit must be at least 0, got -2"),
        ({"time_limit": math.nan}, "time_limit must be at least 0, got nan"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        robust_k_center(torch.ones(5, 2), **{"budget": 1, **arguments})
