"""Properties of farthest_first on random small pools: the reference, monotony, 2-approximation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynal_fast import farthest_first
from dynal_fast.ops.farthest_first import reference
from tests.cases.farthest_first import expected

# A coarse grid makes ties and duplicates common, the rest makes rounding matter.
VALUES = st.one_of(
    st.integers(-2, 2).map(float),
    st.floats(-1e3, 1e3, width=32),
    st.sampled_from([1e3, 1e3 + 2**-10, -0.0, 1e-20, 2.0**-70, 1e15]),
)


@st.composite
def problems(draw, max_pool=40, max_labeled=9):
    d = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n, m = draw(st.integers(1, max_pool)), draw(st.integers(0, max_labeled))
    pool = draw(hnp.arrays(np.float64, (n, d), elements=VALUES)).astype(dtype)
    labeled = draw(hnp.arrays(np.float64, (m, d), elements=VALUES)).astype(dtype)
    if draw(st.booleans()):
        pool = pool[draw(hnp.arrays(np.int64, n, elements=st.integers(0, n - 1)))]
    return pool, labeled, draw(st.integers(0, n))


@settings(max_examples=80, deadline=None)
@given(problems(), st.sampled_from(["euclidean", "cosine"]))
def test_picks_are_the_references(problem, metric):
    pool, labeled, k = problem
    if metric == "cosine":
        pool, labeled = np.hypot(pool, 0.5), np.hypot(labeled, 0.5)
    indices, distances, radius = expected(pool, k, labeled, metric)
    got = farthest_first(pool, k, labeled, metric=metric, backend="cpu")
    assert got.indices.tolist() == indices.tolist()
    np.testing.assert_array_equal(got.distances.numpy(), distances)
    assert got.radius == radius


@settings(max_examples=30, deadline=None)
@given(problems())
def test_distances_never_increase_and_end_at_the_radius(problem):
    pool, labeled, k = problem
    got = farthest_first(pool, k, labeled, backend="cpu")
    distances = [*got.distances.double().tolist(), got.radius]
    assert all(later <= earlier * (1 + 1e-7) for earlier, later in itertools.pairwise(distances))
    assert len(set(got.indices.tolist())) == k


@settings(max_examples=30, deadline=None)
@given(problems(max_pool=8, max_labeled=0), st.integers(1, 3))
def test_cover_radius_is_within_twice_the_best(problem, k):
    pool, _, _ = problem
    k = min(k, len(pool))
    exponent = reference.scale_exponent(float(np.abs(pool).max()), pool.shape[1])
    values = [reference.decision_values(pool, center, "euclidean", exponent) for center in pool]
    distance = np.array(values, np.float64) * 4.0**-exponent
    best = min(
        np.sqrt(distance[list(centers)].min(axis=0).max())
        for centers in itertools.combinations(range(len(pool)), k)
    )
    got = farthest_first(pool, k, backend="cpu")
    assert got.radius <= 2 * best * (1 + 1e-6)
    covered = np.sqrt(distance[got.indices.numpy()].min(axis=0).max())
    assert got.radius == pytest.approx(covered, rel=1e-6)
