"""kmeans_plusplus on Triton kernels against the direct race: on a GPU, or interpreted."""

import numpy as np
import pytest
import torch

from tests.triton_device import DEVICE, INTERPRETED, RUNS

pytest.importorskip("triton", reason="triton is not installed")
if not RUNS:
    pytest.skip(
        "no GPU; tests/test_interpreter.py runs this under TRITON_INTERPRET=1",
        allow_module_level=True,
    )

from dynal_fast import OuterProducts, farthest_first, kmeans_plusplus
from dynal_fast.ops.farthest_first import reference
from dynal_fast.ops.farthest_first import triton as distances
from dynal_fast.ops.farthest_first.contract import as_rows
from dynal_fast.ops.farthest_first.kernels import Groups, on_one_scale
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels
from dynal_fast.ops.kmeans_plusplus import lazy
from tests.cases.farthest_first import bootstrap, clustered, gaussian, lattice, small_cases
from tests.cases.outer_products import KINDS, outer_products

CASES = small_cases()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks so small that small pools need several heads and fronts."""
    monkeypatch.setattr(lazy, "HEAD", 12)
    monkeypatch.setattr(lazy, "FRONT", 33)


def draw(pool, k, labeled, seed=2, **options):
    generator = torch.Generator().manual_seed(seed)
    return kmeans_plusplus(pool, k, labeled, generator=generator, **options)


def assert_equals_the_direct_race(pool, k, labeled=None, **options):
    pool = torch.as_tensor(pool)
    want = draw(pool, k, labeled, backend="reference", **options)
    outside = isinstance(labeled, np.ndarray) and labeled.ndim == 2
    there = torch.as_tensor(labeled).to(DEVICE) if outside else labeled
    got = draw(pool.to(DEVICE), k, there, backend="triton", **options)
    assert got.indices.device.type == DEVICE
    assert torch.equal(got.indices.cpu(), want.indices)
    assert torch.equal(got.distances.cpu(), want.distances)


@pytest.mark.skipif(INTERPRETED, reason="takes the interpreter many minutes")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_direct_race(name, metric):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    assert_equals_the_direct_race(pool, len(pool), labeled, metric=metric)


@pytest.mark.parametrize(
    ("pool", "k", "labeled", "options"),
    [
        (clustered(70, 9), 25, None, {}),
        (clustered(60, 9), 20, clustered(5, 9, seed=1), {"start": 3}),
        (gaussian(50, 65), 18, [3, 8], {}),
        (lattice(40, 3), 40, None, {}),
        (bootstrap(40, 6).astype(np.float16), 40, None, {}),
        (gaussian(40, 7).astype(np.float64), 15, None, {"metric": "cosine"}),
        (np.full((30, 3), 0.1, np.float32), 30, None, {}),
        (gaussian(1, 4), 1, None, {}),
        (np.float32(1e-22) * gaussian(30, 5), 12, None, {}),
    ],
    ids=lambda value: None,
)
def test_pools(pool, k, labeled, options):
    assert_equals_the_direct_race(pool, k, labeled, **options)


def test_more_pairs_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(distances, "PAIRS", 16)
    assert_equals_the_direct_race(gaussian(60, 6), 24)
    assert_equals_the_direct_race(lattice(50, 3), 50)


def test_values_that_the_device_leaves_open(monkeypatch):
    """Midpoints between float32 numbers: 4097^2 and its like, of rows without a common grain."""
    pool = gaussian(20, 2)
    pool[:12] = [[4097 + 2 * i, 2.0**-60] for i in range(12)]
    assert_equals_the_direct_race(pool, 20)


def there(points):
    return OuterProducts(
        *(torch.as_tensor(part).to(DEVICE) for part in (points.left, points.right))
    )


@pytest.mark.parametrize("kind", ["unlike scales"] if INTERPRETED else KINDS)
def test_outer_products(kind):
    n, k = (9, 4) if INTERPRETED else (60, 57)
    pool, outside = outer_products(kind, n), outer_products(kind, 4, seed=2)
    for labeled in (outside,) if INTERPRETED else (None, outside):
        given = None if labeled is None else there(labeled)
        want = draw(pool, k, labeled, backend="reference")
        got = draw(there(pool), k, given, backend="triton")
        assert torch.equal(got.indices.cpu(), want.indices)
        assert torch.equal(got.distances.cpu(), want.distances)
        want = farthest_first(pool, k, labeled, backend="reference")
        got = farthest_first(there(pool), k, given, backend="triton")
        assert torch.equal(got.indices.cpu(), want.indices)
        assert torch.equal(got.distances.cpu(), want.distances)
        assert got.radius == want.radius


def test_values_of_near_duplicates_and_what_is_left_open():
    """Sums that cancel: in double-double arithmetic, or for the host, where factors are scaled."""
    for kind, most in (("nearly equal", 0), ("scaled", 18)):
        pool = outer_products(kind, 7)
        kernels = distances.TritonKernels("euclidean")
        (x,), exponent = on_one_scale(kernels, [kernels.points(as_rows(there(pool), "pool"), "")])
        rows = torch.arange(7, dtype=torch.int32, device=DEVICE)
        block = torch.full((7, 7), torch.nan, device=DEVICE)
        undecided, left = kernels.decide(x, x, Groups.one(rows, rows), block=block)
        assert left <= most
        want = [reference.decision_values(pool, pool[i], "euclidean", exponent) for i in range(7)]
        for i, j in undecided[1 : 1 + left].tolist():
            assert want[j][i] == kernels._value(x, i, x, j)
            block[i, j] = block[j, i] = float(want[j][i])
        np.testing.assert_array_equal(block.cpu().numpy(), np.stack(want, axis=1))


def test_bounds_of_outer_products_enclose_their_values():
    """Of factors in float16, of scaled ones, of rows that are 0 and next to 0."""
    for kind in ("float16", "tiny", "unlike scales", "zeros", "lattice", "scaled"):
        pool = outer_products(kind, 13)
        pool.left[5] = pool.left[5] * np.float32(1e-20)
        kernels, exact = distances.TritonKernels("euclidean"), ReferenceKernels("euclidean")
        (x,), exponent = on_one_scale(kernels, [kernels.points(as_rows(there(pool), "pool"), "")])
        (y,), _ = on_one_scale(exact, [exact.points(as_rows(pool, "pool"), "pool")])
        rows = torch.arange(13, dtype=torch.int32)
        lower, upper = kernels.distances(x, rows.to(DEVICE), x, rows.to(DEVICE))
        values = torch.stack([exact.values(y, rows, y, center) for center in range(13)], dim=1)
        assert y.exponent == exponent
        assert (lower.cpu() <= values).all()
        assert (values <= upper.cpu()).all()
        assert (
            kind in ("scaled", "zeros") or (upper - lower).median().cpu() < 0.02 * values.median()
        )


def test_bad_factors_are_refused_by_name():
    left, right = torch.ones(4, 3, device=DEVICE), torch.ones(4, 5, device=DEVICE)
    for pool, message in (
        (OuterProducts(left * torch.nan, right), r"pool\.left row 0 holds a NaN"),
        (OuterProducts(left, right * 1e38), r"pool\.right row 0 has norm"),
        (OuterProducts(left * 1e25, right * 1e25), r"pool row 0 has norm .* too large"),
        (OuterProducts(left.double() * 1e-60, right), "hold nothing larger than"),
    ):
        with pytest.raises(ValueError, match=message):
            kmeans_plusplus(pool, 1, backend="triton")
