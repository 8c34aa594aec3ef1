"""Points that are outer products: the same picks as of the points that they stand for."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from dynal_fast import (
    OuterProducts,
    assign_to_picks,
    farthest_first,
    farthest_first_compress,
    kmeans_plusplus,
    verify_traversal,
)
from dynal_fast.measured import measured
from dynal_fast.ops.farthest_first import reference
from tests.cases.outer_products import KINDS, outer_products

OURS = ("cpu", "reference-heads")


def products(points: OuterProducts) -> np.ndarray:
    return (points.left[:, :, None] * points.right[:, None, :]).reshape(len(points), -1)


def test_labeled_may_be_outside_and_inside():
    pool, outside = outer_products("gaussian", 30), outer_products("gaussian", 4, seed=2)
    for sample in (farthest_first, kmeans_plusplus):
        picks = [
            sample(
                pool,
                12,
                (outside, [3, 7]),
                backend=backend,
                generator=torch.Generator().manual_seed(0),
            ).indices
            for backend in ("cpu", "reference")
        ]
        assert torch.equal(*picks)
        assert not {3, 7} & set(picks[0].tolist())
    with pytest.raises(ValueError, match=r"where it is a pair of arrays, got shapes \(4, 22\) and"):
        farthest_first(pool, 1, (outside, outside))


@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_equals_the_reference(kind):
    pool, outside = outer_products(kind), outer_products(kind, 11, seed=2)
    for labeled in (None, outside, [3, 7, 50]):
        k = len(pool) - (3 if isinstance(labeled, list) else 0)
        want = farthest_first(pool, k, labeled, backend="reference")
        nearest = assign_to_picks(pool, want.indices[:9], labeled, backend="reference")
        for backend in OURS:
            got = farthest_first(pool, k, labeled, backend=backend)
            assert torch.equal(got.indices, want.indices)
            assert torch.equal(got.distances, want.distances)
            assert got.radius == want.radius
            assigned = assign_to_picks(pool, want.indices[:9], labeled, backend=backend)
            assert all(map(torch.equal, assigned, nearest))


def test_the_reference_is_the_exact_distance_of_the_products_rounded_once():
    points = outer_products("nearly equal", 25)
    exact = [
        sum(
            (Fraction(float(p)) * Fraction(float(q)) - Fraction(float(r)) * Fraction(float(s))) ** 2
            for p, r in zip(points.left[i], points.left[0], strict=True)
            for q, s in zip(points.right[i], points.right[0], strict=True)
        )
        for i in range(25)
    ]
    values = reference.decision_values(points, points[0], "euclidean")
    assert values.tolist() == [float(reference.rounded(value)) for value in exact]
    assert float(reference.rounded(Fraction(2**24 + 1))) == 2**24  # a tie goes to the even one
    assert float(reference.rounded(Fraction(2**24 + 1) + Fraction(1, 2**60))) == 2**24 + 2


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_picks_are_those_of_the_materialised_products(backend):
    points = outer_products("lattice", 120)
    matrix = products(points)
    got = farthest_first(points, 120, backend=backend)
    want = farthest_first(matrix, 120, backend=backend)
    assert torch.equal(got.indices, want.indices)
    assert torch.equal(got.distances, want.distances)
    drawn = [
        kmeans_plusplus(pool, 120, generator=torch.Generator().manual_seed(4), backend=backend)
        for pool in (points, matrix)
    ]
    assert torch.equal(drawn[0].indices, drawn[1].indices)
    assert torch.equal(drawn[0].distances, drawn[1].distances)


@pytest.mark.parametrize("kind", ["duplicates", "scaled", "negated"])
def test_equal_products_are_at_distance_zero(kind):
    points = outer_products(kind)
    distinct = len(np.unique(products(points).astype(np.float32), axis=0))
    got = farthest_first(points, len(points))
    assert (got.distances[distinct:] == 0).all()
    assert (got.distances[:distinct] > 0).all()


def test_compression_takes_outer_products_too():
    points = outer_products("lattice")
    labels = torch.arange(60) % 3
    kept = [
        farthest_first_compress(
            pool, labels, 12, generator=torch.Generator().manual_seed(0), backend=backend
        )
        for pool, backend in ((points, "cpu"), (points, "reference"), (products(points), "cpu"))
    ]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_nothing_of_the_size_of_the_products_is_made():
    n, classes, d = 3000, 60, 64
    rng = np.random.default_rng(0)
    points = OuterProducts(
        torch.from_numpy(rng.random((n, classes), dtype=np.float32)),
        torch.from_numpy(rng.random((n, d), dtype=np.float32)),
    )
    kmeans_plusplus(points, 10)
    with measured() as used:
        kmeans_plusplus(points, 50)
    assert used.peak_extra_bytes < n * classes * d * 4 / 2


def test_bad_factors_are_refused_by_name():
    left, right = torch.ones(4, 3), torch.ones(4, 5)
    for pool, message in (
        (
            OuterProducts(left, right[:3]),
            r"pool must have two factors of the same samples.*\(3, 5\)",
        ),
        (OuterProducts(left[0], right), r"pool\.left must have shape"),
        (OuterProducts(left, right.cfloat()), r"pool\.right must be float16"),
        (OuterProducts(left * torch.nan, right), r"pool\.left row 0 holds a NaN"),
        (OuterProducts(left, right * 1e38), r"pool\.right row 0 has norm"),
        (OuterProducts(left * 1e25, right * 1e25), r"pool row 0 has norm .* too large"),
        (OuterProducts(left.double() * 1e-60, right), "hold nothing larger than"),
    ):
        for backend in ("cpu", "reference"):
            with pytest.raises((ValueError, TypeError), match=message):
                farthest_first(pool, 1, backend=backend)
    pool = OuterProducts(left, right)
    with pytest.raises(ValueError, match="labeled must be OuterProducts, as pool is, got a matrix"):
        farthest_first(pool, 1, torch.ones(2, 3))
    with pytest.raises(ValueError, match="labeled must be a matrix, as pool is, got OuterProducts"):
        kmeans_plusplus(left, 1, pool)
    with pytest.raises(ValueError, match="the pool's 5 dimensions, got 4"):
        kmeans_plusplus(pool, 1, OuterProducts(left, left @ torch.ones(3, 4)))
    with pytest.raises(ValueError, match='metric must be "euclidean" for OuterProducts'):
        farthest_first(pool, 1, metric="cosine")
    with pytest.raises(TypeError, match="OuterProducts, which have no certificate"):
        verify_traversal(pool, farthest_first(pool, 1))
