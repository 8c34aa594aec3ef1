"""farthest_first on Triton kernels against the reference: on a GPU, or interpreted on the CPU."""

import math

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

from dynal_fast import FarthestFirst, assign_to_picks, farthest_first, farthest_first_compress
from dynal_fast.ops.farthest_first import contract, heads, highest, reference, routing, triton
from dynal_fast.ops.farthest_first.kernels import Groups
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels
from tests.cases.farthest_first import bootstrap, clustered, gaussian, lattice, small_cases
from tests.cases.farthest_first_cycles import a_life, draw

CASES = small_cases()


def on_device(array, dtype=None):
    if array is None:
        return None
    return torch.as_tensor(np.asarray(array)).to(DEVICE, dtype)


def traverse(pool, k, labeled=None, dtype=None, **options):
    if labeled is not None and np.ndim(labeled) == 2:
        labeled = on_device(labeled, dtype)
    return farthest_first(on_device(pool, dtype), k, labeled, backend="triton", **options)


def assert_equals_reference(pool, k, labeled=None, dtype=None, **options):
    got = traverse(pool, k, labeled, dtype, **options)
    if dtype is not None:
        pool = torch.as_tensor(pool).to(dtype)
        labeled = None if labeled is None else torch.as_tensor(labeled).to(dtype)
    want = farthest_first(pool, k, labeled, backend="reference", **options)
    np.testing.assert_array_equal(got.indices.cpu().numpy(), want.indices.numpy())
    np.testing.assert_array_equal(got.distances.cpu().numpy(), want.distances.numpy())
    assert got.radius == want.radius


def case(name, metric):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    return pool, labeled


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that small pools need several heads, fronts, clusters and chunks."""
    monkeypatch.setattr("dynal_fast.ops.farthest_first.triton.HEAD", 12)
    monkeypatch.setattr(heads, "FRONT", 33)
    for name, value in {
        "CLUSTERED_FROM": 16,
        "PROBES": 1,
        "MORE_PROBES": 1,
        "TILE": 64,
        "CHUNK": 30,
    }.items():
        monkeypatch.setattr(routing, name, value)


@pytest.mark.skipif(INTERPRETED, reason="takes the interpreter many minutes")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_equals_reference(name, metric):
    pool, labeled = case(name, metric)
    assert_equals_reference(pool, min(len(pool), 20), labeled, metric=metric)
    assert_equals_reference(pool, len(pool), labeled, metric=metric)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("name", "metric"),
    [("clustered", "euclidean"), ("clustered", "cosine"), ("lattice", "euclidean")],
)
def test_several_heads_fronts_and_clusters(name, metric):
    pool, labeled = case(name, metric)
    assert_equals_reference(pool[:40], 15, labeled[:17], metric=metric)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_any_life_of_cycles_equals_starting_anew(metric):
    rng = np.random.default_rng(metric == "cosine")
    pool = draw(rng, 24, 5, np.float32, "scales")

    def on_gpu(m):
        return draw(rng, m, 5, np.float32, "scales") * np.float32(rng.choice([1, 300]))

    def make():
        return FarthestFirst(on_device(pool), metric=metric, backend="triton")

    a_life(rng, pool, metric, on_gpu, make, on_device, events=5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("d", [33, 64])
def test_every_dtype_is_taken_as_given(dtype, d):
    assert_equals_reference(clustered(20, d), 15, clustered(9, d, seed=1), dtype)
    # Nothing but the last bits tells these apart.
    assert_equals_reference(1 + 1e-9 * gaussian(14, d).astype(np.float64), 7, dtype=dtype)


def test_labeled_indices_strides_start_and_edges():
    pool = clustered(40, 80)
    labeled = np.array([5, 5, 39, 0])
    assert_equals_reference(pool, 37, labeled)
    strided = on_device(pool)[::2, 3:50]
    want = farthest_first(pool[::2, 3:50], 20, backend="reference")
    assert torch.equal(farthest_first(strided, 20, backend="triton").indices.cpu(), want.indices)
    assert_equals_reference(pool, 5, start=32)
    assert_equals_reference(pool, 0)
    assert_equals_reference(pool[:1], 1)
    assert traverse(pool[:9], 9).radius == 0
    assert traverse(pool[:0], 0).radius == 0
    assert traverse(pool, 0).radius == math.inf


def test_compress():
    embeddings, labels = clustered(40, 12), np.arange(40) % 3
    kept = [
        farthest_first_compress(
            embeddings, labels, 12, generator=torch.Generator().manual_seed(1), backend=backend
        ).tolist()
        for backend in ("triton" if INTERPRETED else "cpu", "reference")
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("value", "metric", "message"),
    [
        (np.nan, "euclidean", r"pool row 12 holds a NaN"),
        (-np.inf, "euclidean", r"pool row 12 holds a NaN"),
        (3e38, "euclidean", r"pool row 12 has norm .* rescale"),
        (0, "cosine", r"pool row 12 is zero"),
    ],
)
def test_bad_rows_are_named(value, metric, message):
    pool = gaussian(30, 7)
    pool[[12, 20]] = value
    with pytest.raises(ValueError, match=message):
        traverse(pool, 3, metric=metric)


@pytest.mark.skipif(INTERPRETED, reason="sizes for a GPU")
@pytest.mark.parametrize(
    ("features", "n", "d", "labeled", "k", "dtype"),
    [
        (clustered, 150_000, 512, 25_000, 600, torch.float32),
        (gaussian, 50_001, 127, 3_001, 600, torch.float32),
        (bootstrap, 100_001, 65, 1_000, 3_000, torch.bfloat16),
        (lattice, 30_000, 5, 10, 400, torch.float16),
        (clustered, 20_000, 200, 0, 5_000, torch.float64),
    ],
)
def test_large_pools_equal_the_cpu(features, n, d, labeled, k, dtype):
    pool = torch.from_numpy(features(n, d)).to(dtype)
    rows = torch.from_numpy(features(labeled, d, 1)).to(dtype) if labeled else None
    want = farthest_first(pool, k, rows, backend="cpu")
    on_gpu = None if rows is None else rows.to(DEVICE)
    got = farthest_first(pool.to(DEVICE), k, on_gpu, backend="triton")
    assert torch.equal(got.indices.cpu(), want.indices)
    assert torch.equal(got.distances.cpu(), want.distances)
    assert got.radius == want.radius


@pytest.mark.skipif(INTERPRETED, reason="sizes for a GPU")
def test_rows_past_two_to_the_31_elements():
    """Rows far apart in 4.4 GB of memory: addresses need 64 bits."""
    small = torch.from_numpy(clustered(2_100, 64)).to(torch.float16)
    wide = torch.zeros(2_100, 1_048_576, dtype=torch.float16, device=DEVICE)
    wide[:, :64] = small.to(DEVICE)
    want = farthest_first(small, 300, backend="cpu")
    got = farthest_first(wide[:, :64], 300, backend="triton")
    assert torch.equal(got.indices.cpu(), want.indices)
    assert torch.equal(got.distances.cpu(), want.distances)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_assignment_equals_the_reference(metric, monkeypatch):
    for pairs in (triton.PAIRS, 3):
        monkeypatch.setattr(triton, "PAIRS", pairs)
        for rows, outside in (
            (lattice(40, 3) + 1, lattice(9, 3, seed=1) + 1),
            (clustered(40, 33), clustered(9, 33, seed=1)),
        ):
            picks = [3, 17, 3, 30, 8]
            got = assign_to_picks(
                on_device(rows), picks, on_device(outside), metric=metric, backend="triton"
            )
            want = assign_to_picks(rows, picks, outside, metric=metric, backend="reference")
            for a, b in zip(got, want, strict=True):
                assert torch.equal(a.cpu(), b)


@pytest.mark.parametrize("exponent", [-110, -60, 50, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_power_of_two_changes_nothing(exponent, dtype):
    pool, labeled = (
        torch.from_numpy(np.ldexp(rows.astype(np.float64), exponent)).to(dtype)
        for rows in (clustered(14, 17), clustered(4, 17, seed=1))
    )
    for metric in ("euclidean", "cosine"):
        want = farthest_first(pool, 8, labeled, metric=metric, backend="reference")
        got = farthest_first(
            pool.to(DEVICE), 8, labeled.to(DEVICE), metric=metric, backend="triton"
        )
        assert torch.equal(got.indices.cpu(), want.indices)
        assert torch.equal(got.distances.cpu(), want.distances)
        assert got.radius == want.radius
        assert len(set(got.distances.tolist())) > 5


@pytest.mark.parametrize("kinds", ["uint8 int8", "int16 float32", "int32 bfloat16", "int64 bool"])
def test_integers_and_mixed_types(kinds):
    rng = np.random.default_rng(0)
    pool, labeled = (
        torch.from_numpy(rng.integers(0, 100, (size, 9))).to(getattr(torch, kind))
        for size, kind in zip((25, 5), kinds.split(), strict=True)
    )
    for x, y in ((pool, labeled), (labeled, pool)):
        want = farthest_first(x, len(x), y, backend="reference")
        got = farthest_first(x.to(DEVICE), len(x), y.to(DEVICE), backend="triton")
        assert torch.equal(got.indices.cpu(), want.indices)
        assert torch.equal(got.distances.cpu(), want.distances)


def test_rows_that_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match=r"pool must have contiguous rows .*\.contiguous\(\)"):
        farthest_first(on_device(clustered(9, 20).T), 3, backend="triton")


# The primitives.


def points(kernels, array, name="pool"):
    return kernels.points(contract.as_rows(on_device(array), name), name)


def refreshed(pool, centers, metric="euclidean"):
    """The smallest decision values of the rows of ``pool`` to ``centers``, by `refresh`."""
    kernels = triton.TritonKernels(metric)
    x, y = points(kernels, pool), points(kernels, centers)
    exact = torch.full((len(pool),), math.inf, device=DEVICE)
    rows = torch.arange(len(pool), dtype=torch.int32, device=DEVICE)
    all_centers = torch.arange(len(centers), dtype=torch.int32, device=DEVICE)
    kernels.refresh(x, y, Groups.one(rows, all_centers), None, exact.clone(), exact)
    return exact.cpu().numpy()


def smallest(pool, centers, metric="euclidean"):
    minimum = np.full(len(pool), np.inf, dtype=np.float32)
    reference.cover(minimum, pool, centers, metric)
    return minimum


def midpoints(dtype, tiny):
    """Rows whose squared norm is the midpoint of two float32 numbers, more or less ``tiny``."""
    rows = []
    for base in (4097, 4099, 5793, 5795):  # squares above 2^24, odd: half-way between two float32
        for nudge in (0.0, tiny):
            rows.append([base, nudge, 0.0, 0.0])
    for low in (2.0**-12, 3 * 2.0**-12):  # 1 + 2^-24 and 1 + 9 * 2^-24
        for nudge in (0.0, tiny):
            rows.append([1.0, low, nudge, 0.0])
    return np.array(rows, dtype=dtype)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_primitives_equal_the_definition(name, metric):
    """Bounds enclose, `refresh` and `traverse` decide as the reference on every kind of pool."""
    pool, labeled = case(name, metric)
    pool, labeled = pool[:34], pool[-33:] if labeled is None or len(labeled) == 0 else labeled[:33]
    kernels, slow = triton.TritonKernels(metric), ReferenceKernels(metric)
    x, y = points(kernels, pool), points(kernels, labeled, "labeled")
    rows, centers = (
        torch.arange(len(a), dtype=torch.int32, device=DEVICE) for a in (pool, labeled)
    )
    exact = torch.stack([torch.from_numpy(smallest(pool, labeled[[j]], metric)) for j in centers])
    lower, upper = (bounds.cpu() for bounds in kernels.distances(x, rows, y, centers))
    assert (lower <= exact.T).all()
    assert (upper >= exact.T).all()
    bound = torch.full((len(pool),), math.inf, device=DEVICE)
    kernels.bound(x, y, Groups.one(rows, centers), bound)
    assert torch.equal(bound.cpu(), upper.amin(1))
    # Where no bound tells pairs apart, each is decided by itself, slowly when interpreted.
    minimum = torch.full((len(pool),), math.inf, device=DEVICE)
    groups = Groups.one(rows[::3].contiguous(), centers[::5].contiguous())
    kernels.refresh(x, y, groups, None, upper[:, ::5].amin(1).to(DEVICE), minimum)
    np.testing.assert_array_equal(minimum[::3].cpu(), exact[::5, ::3].amin(0))
    assert minimum[1::3].isinf().all()

    head = rows[::2] if len(rows) > 3 else rows
    want, outside = exact.amin(0), int(highest.keys(exact.amin(0), rows.cpu()).median())
    arguments = []
    for where in ("cpu", DEVICE):
        picks = torch.zeros(len(head), dtype=torch.int32, device=where)
        arguments.append((head.to(where), outside, want.to(where).clone(), picks, picks.float()))
    count = slow.traverse(slow.points(contract.as_rows(pool, "pool"), "pool"), *arguments[0])
    assert kernels.traverse(x, *arguments[1]) == count
    for a, b in zip(arguments[0][2:], arguments[1][2:], strict=True):
        assert torch.equal(a, b.cpu())


def test_groups_and_centers_already_applied():
    """Each group only meets its own centers, and the first ones may be left out."""
    pool, centers = clustered(160, 32), clustered(140, 32, seed=1)
    kernels = triton.TritonKernels("euclidean")
    x, y = points(kernels, pool), points(kernels, centers)
    order = np.random.default_rng(0).permutation(160).astype(np.int32)
    groups = Groups(
        on_device(order),
        torch.tensor([0, 70, 159, 159, 160]),
        on_device(np.arange(140, dtype=np.int32)),
        torch.tensor([3, 69, 139, 140, 140]),
    )
    want = np.full(160, np.inf, np.float32)
    want[order[:70]] = smallest(pool[order[:70]], centers[3:69])
    want[order[70:159]] = smallest(pool[order[70:159]], centers[69:139])
    exact = torch.full((160,), math.inf, device=DEVICE)
    kernels.refresh(x, y, groups, None, exact.clone(), exact)
    np.testing.assert_array_equal(exact.cpu(), want)
    # Row i has met the first i % 70 centers, in increasing order, and may not meet them again.
    first = np.sort(np.arange(160, dtype=np.int32) % 70)
    met = [smallest(pool[[i]], centers[: first[i]])[0] for i in range(160)]
    exact = on_device(np.array(met))
    rows = torch.arange(160, dtype=torch.int32, device=DEVICE)
    groups = Groups.one(rows, groups.centers)
    kernels.refresh(x, y, groups, on_device(first), exact.clone(), exact)
    np.testing.assert_array_equal(exact.cpu(), smallest(pool, centers))


@pytest.mark.parametrize("tiny", [2.0**-12, 2.0**-30, 2.0**-100])
@pytest.mark.parametrize("tiles", [False, True])
def test_midpoints_round_to_even_and_a_hair_more_up(tiny, tiles, monkeypatch):
    """Decided by float64, by double-double, and (2^-200 from the midpoint) in rational numbers."""
    if tiles:
        monkeypatch.setattr(triton, "PAIRS", 1)
    rows, zero = midpoints(np.float64, tiny), np.zeros((1, 4))
    np.testing.assert_array_equal(refreshed(rows, zero), smallest(rows, zero))
    far = midpoints(np.float32, tiny) - np.float32(8192)
    zero = np.full((1, 4), -8192, np.float32)
    np.testing.assert_array_equal(refreshed(far, zero), smallest(far, zero))


def test_more_open_pairs_than_expected(monkeypatch):
    monkeypatch.setattr(triton, "UNDECIDED", 1)
    rows, zero = midpoints(np.float64, 2.0**-100), np.zeros((1, 4))
    np.testing.assert_array_equal(refreshed(rows, zero), smallest(rows, zero))
    assert_equals_reference(np.concatenate([zero, rows, -rows]), 25)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_more_pairs_than_the_list_holds(metric, monkeypatch):
    monkeypatch.setattr(triton, "PAIRS", 3)
    pool, centers = bootstrap(40, 20), bootstrap(70, 20, seed=3)
    np.testing.assert_array_equal(refreshed(pool, centers, metric), smallest(pool, centers, metric))
    pool, centers = lattice(33, 3) + 1, lattice(65, 3, seed=1) + 1
    np.testing.assert_array_equal(refreshed(pool, centers, metric), smallest(pool, centers, metric))


def test_a_full_list_of_pairs_is_decided_and_a_longer_one_is_not_trusted(monkeypatch):
    pool, centers = bootstrap(40, 20), bootstrap(70, 20, seed=3)
    found, decided = [], []
    compare, decide = triton.TritonKernels._compare, triton.TritonKernels.decide

    def listen(self, *args, **options):
        compare(self, *args, **options)
        found.append(options.get("found"))

    def decide_all(self, *args, **options):
        decided.append(True)
        return decide(self, *args, **options)

    monkeypatch.setattr(triton.TritonKernels, "_compare", listen)
    monkeypatch.setattr(triton.TritonKernels, "decide", decide_all)
    want = smallest(pool, centers)
    np.testing.assert_array_equal(refreshed(pool, centers), want)
    pairs = int(found[-1])
    assert pairs > len(pool)
    for capacity, calls in ((pairs, 0), (pairs - 1, 1)):
        monkeypatch.setattr(triton, "PAIRS", capacity)
        np.testing.assert_array_equal(refreshed(pool, centers), want)
        assert len(decided) == calls


def cut(array):
    """What truncation to tf32 leaves of float32."""
    return (array.view(np.int32) & ~0x1FFF).view(np.float32)


def rounded(array):
    """The nearest tf32, the other rounding that hardware has."""
    return ((array.view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("d", [1, 65, 512])
def test_bounds_hold_whatever_the_matrix_units_cut_off(metric, scale, d):
    """Half the gap between the bounds must cover the error of tf32 operands, rounded or cut."""
    x, y = np.float32(scale) * clustered(30, d), np.float32(scale) * gaussian(20, d)
    x, y = x + np.float32(scale) * 0.01, y + np.float32(scale) * 3
    kernels = triton.TritonKernels(metric)
    ids = [torch.arange(len(rows), dtype=torch.int32, device=DEVICE) for rows in (x, y)]
    lower, upper = (
        bounds.cpu().double().numpy()
        for bounds in kernels.distances(points(kernels, x), ids[0], points(kernels, y), ids[1])
    )
    a, b = x.astype(np.float64), y.astype(np.float64)
    squares = ((a**2).sum(1)[:, None], (b**2).sum(1)[None, :])
    lengths = np.sqrt(squares[0] * squares[1])
    if metric == "cosine":
        value, unit = 1 - a @ b.T / lengths, 1 / lengths
    else:
        value, unit = ((a[:, None] - b[None]) ** 2).sum(-1), 2
    assert (lower >= 0).all()
    assert (lower <= value).all()
    assert (value <= upper).all()
    for change in (cut, rounded):
        error = np.abs(change(x).astype(np.float64) @ change(y).astype(np.float64).T - a @ b.T)
        assert (value + unit * error <= upper).all()
        assert (value - unit * error >= lower - 1e-7 * squares[0]).all() or (lower == 0).any()
    # And they are tight enough to be of use.
    total = 1 if metric == "cosine" else squares[0] + squares[1]
    assert ((upper - lower) / total).max() < 5e-3
