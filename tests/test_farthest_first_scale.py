"""farthest_first at every scale: multiplying all rows by a power of two changes no pick."""

import math

import numpy as np
import pytest
import torch

from dynal_fast import assign_to_picks, farthest_first, farthest_first_compress, verify_traversal
from dynal_fast.ops.farthest_first import reference
from tests.cases.farthest_first import clustered, expected, gaussian, lattice

BACKENDS = ["reference", "cpu", "reference-heads"]
POOL, LABELED = clustered(60, 9), clustered(7, 9, seed=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("exponent", [-115, -77, -40, 63, 110])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_power_of_two_changes_nothing(metric, kind, exponent, backend):
    rows = [np.ldexp(part, exponent).astype(kind) for part in (POOL, LABELED)]
    # What is scaled back is what is compared: the smallest elements may have lost digits.
    pool, labeled = (np.ldexp(part, -exponent) for part in rows)
    want = farthest_first(pool, 60, labeled, metric=metric, backend="reference")
    got = farthest_first(rows[0], 60, rows[1], metric=metric, backend=backend)
    assert got.indices.tolist() == want.indices.tolist()
    factor = 1.0 if metric == "cosine" else 2.0**exponent
    np.testing.assert_array_equal(got.distances, (want.distances.double() * factor).float())
    assert got.radius == want.radius * factor
    assert verify_traversal(rows[0], got, rows[1], metric=metric, progress=False).valid


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("factor", [1e-23, 1e-30, 1e-37, 3e-41, 1e25, 1e36])
def test_small_and_large_pools_keep_their_order(factor, backend):
    pool = (POOL * np.float64(factor)).astype(np.float32)
    wide = pool.astype(np.float64) / factor  # the same numbers at an ordinary scale
    got = farthest_first(pool, 60, backend=backend)
    want = farthest_first(wide, 60, backend="reference")
    assert got.indices.tolist() == want.indices.tolist()
    np.testing.assert_allclose(
        got.distances[1:].double(), want.distances[1:].double() * factor, rtol=1e-6, atol=2.0**-149
    )
    assert got.radius == pytest.approx(want.radius * factor, rel=1e-6)
    assert (got.distances[1:30] > 0).all()
    assert verify_traversal(pool, got, progress=False).valid


@pytest.mark.parametrize("backend", BACKENDS)
def test_magnitudes_from_one_end_to_the_other(backend):
    """Distances of 1e-20 among rows near 1: their squares are below float32 at scale 1."""
    pool = gaussian(80, 5).astype(np.float64) * np.logspace(-28, 5, 80)[:, None]
    got = farthest_first(pool, 80, backend=backend)
    distances = np.sqrt(((pool[:, None] - pool[None]) ** 2).sum(-1))
    minimum = np.full(80, np.inf)
    for step, pick in enumerate(got.indices.tolist()):
        rest = np.delete(np.arange(80), got.indices[:step].numpy())
        if step:
            assert minimum[pick] >= minimum[rest].max() * (1 - 1e-6)
            assert float(got.distances[step]) == pytest.approx(minimum[pick], rel=1e-6)
            assert got.distances[step] > 0
        minimum = np.minimum(minimum, distances[pick])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_labeled_samples_set_the_scale_too(backend):
    for labeled in (LABELED * np.float32(1e24), LABELED * np.float32(1e-24)):
        want = expected(POOL, 60, labeled)
        got = farthest_first(POOL, 60, labeled, backend=backend)
        np.testing.assert_array_equal(got.indices, want[0])
        np.testing.assert_array_equal(got.distances, want[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lattices_tie_at_every_scale(backend):
    pool = lattice(60, 3)
    want = farthest_first(pool, 60, backend="reference")
    for factor in (2.0**-140, 2.0**-80, 2.0**100):
        scaled = pool * np.float32(factor)
        got = farthest_first(scaled, 60, backend=backend)
        assert got.indices.tolist() == want.indices.tolist()
        centers = assign_to_picks(scaled, got.indices[:5], backend=backend)
        assert centers.pick.tolist() == assign_to_picks(pool, want.indices[:5]).pick.tolist()
        kept = [
            farthest_first_compress(
                rows, np.arange(60) % 3, 12, generator=torch.Generator().manual_seed(0)
            ).tolist()
            for rows in (pool, scaled)
        ]
        assert kept[0] == kept[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_narrow_types_at_their_ends(dtype, backend):
    info = torch.finfo(dtype)
    for factor in (info.smallest_normal * 4, min(info.max / 100, 1e35)):
        pool = (torch.from_numpy(POOL) * factor).to(dtype)
        want = expected(pool.double().numpy(), 60)
        got = farthest_first(pool, 60, backend=backend)
        np.testing.assert_array_equal(got.indices, want[0])
        np.testing.assert_array_equal(got.distances, want[1])
        assert float(got.distances[1]) > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_leaves_no_room_for_float32_distances_is_refused(backend):
    pool = POOL.astype(np.float64)
    for factor in (1e-45, 1e-200, 1e-300):
        with pytest.raises(ValueError, match=r"nothing larger than .* multiply both by a power of"):
            farthest_first(pool * factor, 3, backend=backend)
    with pytest.raises(ValueError, match=r"pool row 0 has norm .* too large .* rescale"):
        farthest_first(pool * 1e60, 3, backend=backend)
    with pytest.raises(ValueError, match=r"labeled row 0 has norm .* too large"):
        farthest_first(pool, 3, pool * 1e60, backend=backend)
    # A pool of zeros is no small pool, and cosine distances have no scale.
    assert farthest_first(pool * 0, 3, backend=backend).indices.tolist() == [0, 1, 2]
    got = farthest_first(pool * 1e-100, 9, metric="cosine", backend=backend)
    assert got.indices.tolist() == farthest_first(pool, 9, metric="cosine").indices.tolist()
    with pytest.raises(ValueError, match=r"pool row 0 has norm .* too small for cosine"):
        farthest_first(pool * 1e-150, 9, metric="cosine", backend=backend)


def test_the_exponent_makes_room_at_both_ends():
    for largest in (2.0**-149, 1e-30, 0.75, 1.0, 1e38):
        for columns in (1, 2, 3, 512, 10**6):
            exponent = reference.scale_exponent(largest, columns)
            norm = math.ldexp(largest, exponent) * columns**0.5
            assert norm < 2.0**60
            assert norm > 2.0**57 or exponent == 126
    assert reference.scale_exponent(0.0, 5) == 0
