"""farthest_first: every backend against the float64 reference, and the contract around it."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from dynal_fast import (
    Traversal,
    farthest_first,
    farthest_first_compress,
    verify_traversal,
)
from dynal_fast.ops.farthest_first import cpu, heads, highest, reference, routing
from tests.cases.farthest_first import clustered, expected, gaussian, lattice, small_cases

CASES = small_cases()
EXACT_BACKENDS = ["cpu", "reference-heads"]
BACKENDS = ["reference", *EXACT_BACKENDS]


def assert_equal(got: Traversal, want, metric="euclidean"):
    indices, distances, radius = want
    np.testing.assert_array_equal(got.indices.numpy(), indices)
    np.testing.assert_array_equal(got.distances.numpy(), distances)
    assert got.radius == radius


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_backend_equals_reference(name, backend, metric):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    k = len(pool)
    got = farthest_first(pool, k, labeled, metric=metric, backend=backend)
    assert_equal(got, expected(pool, k, labeled, metric), metric)
    assert sorted(got.indices.tolist()) == list(range(len(pool)))
    k = min(len(pool), 20)
    got = farthest_first(pool, k, labeled, metric=metric, backend=backend)
    assert_equal(got, expected(pool, k, labeled, metric), metric)


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks so small that small pools need many heads, fronts, clusters and chunks."""
    for name, value in {"HEAD": 7, "FRONT": 2, "MANY": 3}.items():
        monkeypatch.setattr(heads, name, value)
    for name, value in {"NARROWER": 2, "SAMPLED": 5, "CHUNK": 9}.items():
        monkeypatch.setattr(highest, name, value)
    for name in ("HEAD_VALUES", "SMALL"):
        monkeypatch.setattr(cpu, name, 0)
    for name, value in {
        "CLUSTERED_FROM": 4,
        "PROBES": 1,
        "MORE_PROBES": 2,
        "TILE": 16,
        "CHUNK": 50,
    }.items():
        monkeypatch.setattr(routing, name, value)


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("name", CASES)
def test_rounds_in_one_call_equal_reference(name, size, monkeypatch):
    monkeypatch.setattr(cpu, "SMALL_HEAD", size)
    monkeypatch.setattr(cpu, "ROUNDS", 3)
    pool, labeled = CASES[name]
    for k in (len(pool) // 2, len(pool)):
        got = farthest_first(pool, k, labeled)
        assert_equal(got, expected(pool, k, labeled), "euclidean")


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", CASES)
def test_instruction_sets_and_threads_change_nothing(name):
    pool, labeled = CASES[name]
    want = farthest_first(pool, len(pool), labeled, backend="reference")
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            got = farthest_first(pool, len(pool), labeled, backend="cpu")
            assert torch.equal(got.indices, want.indices)
            assert torch.equal(got.distances, want.distances)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("backend", EXACT_BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_block_sizes_change_nothing(name, backend, metric):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    pool = pool[:40]
    for k in (9, len(pool)):
        k = min(k, len(pool))
        got = farthest_first(pool, k, labeled, metric=metric, backend=backend)
        assert_equal(got, expected(pool, k, labeled, metric), metric)


@pytest.mark.parametrize(("n", "d"), [(3000, 4), (4000, 2), (4000, 1)])
def test_heads_too_large_to_keep_all_their_products(n, d):
    pool = gaussian(n, d)
    got = farthest_first(pool, 700, backend="cpu")
    assert_equal(got, expected(pool, 700))


@pytest.mark.parametrize("backend", BACKENDS)
def test_decides_by_the_definition_spelled_out(backend):
    """The reference itself, against distances computed one pair at a time in exact arithmetic."""
    pool = lattice(40, 3, levels=4) * np.float32(0.1)
    exact = [
        [
            sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, y, strict=True))
            for y in pool
        ]
        for x in pool
    ]
    distance = np.array([[np.float32(float(v)) for v in row] for row in exact])
    picks, minimum = [], np.full(40, np.inf, dtype=np.float32)
    for _ in range(40):
        order = [i for i in range(40) if i not in picks]
        picks.append(max(order, key=lambda i: (minimum[i], -i)))
        minimum = np.minimum(minimum, distance[picks[-1]])
    assert farthest_first(pool, 40, backend=backend).indices.tolist() == picks


def test_reference_rounds_once_to_even_in_exact_arithmetic():
    zero = np.zeros(2, dtype=np.float32)
    x = np.array([[4097, 0], [4096, 0]], dtype=np.float32)  # 4097^2 = 2^24 + 8193, a midpoint
    assert reference.decision_values(x, zero, "euclidean").tolist() == [2.0**24 + 8192, 2.0**24]
    x = np.array([[1, 2.0**-12], [1, 2.0**-12 + 2.0**-40]], dtype=np.float64)
    values = reference.decision_values(x, np.zeros(2), "euclidean")
    assert values.tolist() == [1.0, 1 + 2.0**-23]  # 1 + 2^-24 ties to even, a hair more does not


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_ignored(backend):
    pool = torch.from_numpy(clustered(60, 8)).requires_grad_()
    got = farthest_first(pool, 9, backend=backend)
    assert not got.distances.requires_grad
    assert_equal(got, expected(pool.detach().numpy(), 9))


@pytest.mark.parametrize("backend", BACKENDS)
def test_scaled_duplicates_tie_at_cosine_distance_zero(backend):
    base = gaussian(30, 50)
    pool = np.concatenate([base, base * np.float32(0.3), base * np.float32(70)])
    got = farthest_first(pool, 90, metric="cosine", backend=backend)
    assert (got.distances[30:] < 1e-6).all()
    assert got.indices[:30].max() < 90
    exact = np.concatenate([base, base * 2, base * 64])
    got = farthest_first(exact, 90, metric="cosine", backend=backend)
    assert (got.distances[30:] == 0).all()
    assert got.indices[30:].tolist() == list(range(30, 90))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_taken_as_given(dtype, backend):
    pool = torch.from_numpy(clustered(150, 33)).to(dtype)
    labeled = torch.from_numpy(clustered(20, 33, seed=1)).to(dtype)
    want = expected(pool.double().numpy(), 100, labeled.double().numpy())
    assert_equal(farthest_first(pool, 100, labeled, backend=backend), want)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_instruction_set_takes_every_dtype(dtype, metric):
    pool = torch.from_numpy(clustered(90, 37)).to(dtype)
    labeled = torch.from_numpy(clustered(20, 37, seed=1)).to(dtype)
    want = expected(pool.double().numpy(), 90, labeled.double().numpy(), metric)
    assert_equal(farthest_first(pool, 90, labeled, metric=metric, backend="cpu"), want, metric)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("exponent", [-30, -60, -100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hair_above_a_midpoint_decides(dtype, exponent):
    pool = np.array([[4097, 0], [4097, 2.0**exponent]], dtype)
    got = farthest_first(pool, 2, np.zeros((1, 2), dtype), backend="cpu")
    assert got.indices.tolist() == [1, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_differences_below_float32_resolution_decide(backend):
    pool = 1 + 1e-9 * np.random.default_rng(0).standard_normal((80, 6))
    assert_equal(farthest_first(pool, 80, backend=backend), expected(pool, 80))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_rows_and_memory_maps_are_read_in_place(tmp_path, backend):
    wide = clustered(120, 80)
    want = expected(wide[::2, 3:50], 30)
    assert_equal(farthest_first(wide[::2, 3:50], 30, backend=backend), want)
    assert_equal(farthest_first(torch.from_numpy(wide)[::2, 3:50], 30, backend=backend), want)
    np.save(tmp_path / "pool.npy", wide)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    assert_equal(farthest_first(mapped[::2, 3:50], 30, backend=backend), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labeled_indices_cover_and_are_never_picked(backend):
    pool = clustered(150, 20)
    labeled = np.array([5, 5, 149, 0, 77])
    want = expected(pool, 145 + 1, excluded=np.unique(labeled))
    got = farthest_first(pool, 146, labeled, backend=backend)
    assert_equal(got, want)
    assert not set(got.indices.tolist()) & set(labeled.tolist())
    np.testing.assert_array_equal(
        got.indices.numpy(), farthest_first(pool, 146, torch.tensor([0, 5, 77, 149])).indices
    )
    none = farthest_first(pool, 3, np.empty(0, np.int64), backend=backend)
    assert_equal(none, expected(pool, 3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_start(backend):
    pool, labeled = clustered(100, 10), clustered(9, 10, seed=1)
    got = farthest_first(pool, 50, start=42, backend=backend)
    assert got.indices[0] == 42
    assert got.distances[0] == math.inf
    assert_equal(got, expected(pool, 50, start=42))
    got = farthest_first(pool, 50, labeled, start=42, backend=backend)
    assert_equal(got, expected(pool, 50, labeled, start=42))
    assert farthest_first(pool, 2, backend=backend).indices[0] == 0
    draws = {
        int(farthest_first(pool, 1, start="random", generator=generator, backend=backend).indices)
        for generator in [torch.Generator().manual_seed(3)]
        for _ in range(8)
    }
    assert len(draws) > 1
    labeled = np.arange(1, 100)
    got = farthest_first(pool, 1, labeled, start="random", backend=backend)
    assert got.indices.tolist() == [0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_edges_of_k(backend):
    pool = gaussian(5, 3)
    got = farthest_first(pool, 0, backend=backend)
    assert got.indices.shape == (0,)
    assert got.indices.dtype == torch.int64
    assert got.distances.dtype == torch.float32
    assert got.radius == math.inf
    assert farthest_first(pool, 5, backend=backend).radius == 0
    assert farthest_first(pool[:0], 0, backend=backend).radius == 0
    assert farthest_first(pool, 0, pool[:1], backend=backend).radius == pytest.approx(
        math.sqrt(((pool - pool[0]) ** 2).sum(1).max())
    )
    assert farthest_first(pool, 0, np.arange(5), backend=backend).radius == 0
    # A start that is not picked covers nothing.
    assert farthest_first(pool, 0, start=3, backend=backend).radius == math.inf
    for start in (*range(1, 5), "random"):
        got = farthest_first(pool, 0, pool[:1], start=start, backend=backend)
        assert got.radius == farthest_first(pool, 0, pool[:1], backend=backend).radius


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 11}, r"k must be between 0 and 10, the number of pool samples .* got 11"),
        ({"k": -1}, r"k must be between 0 and 10"),
        ({"k": 2.5}, r"k must be an integer, got 2.5"),
        ({"k": True}, r"k must be an integer, got True"),
        ({"labeled": np.array([1, 2]), "k": 9}, r"k must be between 0 and 8"),
        ({"labeled": np.array([10])}, r"labeled holds pool index 10, outside \[0, 10\)"),
        ({"labeled": np.array([-1])}, r"labeled holds pool index -1"),
        ({"labeled": np.array([0.5])}, r"labeled with one axis must hold integer pool indices"),
        ({"labeled": gaussian(4, 5)}, r"labeled must have the pool's 3 dimensions, got 5"),
        ({"labeled": np.zeros((4, 3, 1), np.float32)}, r"labeled must have shape"),
        ({"pool": gaussian(10, 3)[0]}, r"pool must have shape \(samples, dimensions\)"),
        ({"pool": np.zeros((10, 0), np.float32)}, r"at least one dimension"),
        ({"pool": np.zeros((10, 3), np.complex64)}, r"pool must be float16, .* got complex64"),
        ({"pool": np.zeros((10, 3), "U3")}, r"pool must hold numbers, got dtype <U3"),
        (
            {"pool": torch.zeros(10, 3, dtype=torch.complex64).conj().imag},
            r"pool must .* negated view .*\.resolve_neg\(\)",
        ),
        ({"pool": torch.eye(10).to_sparse()}, r"pool must be a dense tensor.*\.to_dense\(\)"),
        ({"labeled": torch.eye(3).to_sparse_csr()}, r"labeled must be a dense tensor"),
        ({"pool": {1.0}}, r"pool must be a torch.Tensor, a NumPy array, .* got set"),
        ({"metric": "manhattan"}, r"metric must be one of .* got 'manhattan'"),
        ({"start": 10}, r"start must be between 0 and 9"),
        ({"start": "first"}, r"start must be a pool index, .* got 'first'"),
        ({"start": 3, "labeled": np.array([3])}, r"start must not be a labeled sample, got 3"),
        ({"pool": torch.empty(10, 3, device="meta")}, r"pool must be on one of .* got meta"),
        (
            {"pool": torch.empty(10, 3, device="meta"), "backend": "cpu"},
            r'backend "cpu" needs a pool on the CPU, got meta',
        ),
        ({"labeled": torch.empty(4, 3, device="meta")}, r"labeled must be on the pool's device"),
        ({"backend": "abacus"}, r"backend must be one of .* got 'abacus'"),
    ],
)
def test_bad_arguments_say_what_was_expected(change, message):
    arguments = {"pool": gaussian(10, 3), "k": 3, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        farthest_first(**arguments)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(value, backend):
    pool, labeled = gaussian(300, 7), gaussian(40, 7, seed=1)
    bad = pool.copy()
    bad[[123, 200], 6] = value
    with pytest.raises(ValueError, match=r"pool row 123 holds a NaN"):
        farthest_first(bad, 3, labeled, backend=backend)
    bad = labeled.copy()
    bad[39, 0] = value
    with pytest.raises(ValueError, match=r"labeled row 39 holds a NaN"):
        farthest_first(pool, 3, bad, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_overflow_or_have_no_direction_are_named(backend):
    pool = gaussian(30, 7)
    pool[17] = 3e38
    with pytest.raises(ValueError, match=r"pool row 17 has norm .* too large .* rescale"):
        farthest_first(pool, 3, backend=backend)
    pool[17] = 0
    with pytest.raises(ValueError, match=r"pool row 17 is zero"):
        farthest_first(pool, 3, metric="cosine", backend=backend)
    assert len(farthest_first(pool, 3, backend=backend).indices) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_compress_takes_a_traversal_of_each_class(backend):
    embeddings, rng = clustered(200, 12), np.random.default_rng(0)
    labels = np.array([4, 7, 9])[rng.integers(3, size=200)]
    labels[:2] = 11
    kept = farthest_first_compress(
        embeddings, labels, 40, generator=torch.Generator().manual_seed(1), backend=backend
    )
    assert len(kept) == 32  # 10 of each of three classes, both samples of the small one
    assert len(set(kept.tolist())) == 32
    assert labels[kept].tolist() == sorted(labels[kept].tolist())
    for label in (4, 7, 9, 11):
        members = np.flatnonzero(labels == label)
        picks = kept[torch.from_numpy(labels[kept.numpy()] == label)]
        start = int(np.flatnonzero(members == int(picks[0]))[0])
        want = expected(embeddings[members], len(picks), start=start)[0]
        assert picks.tolist() == members[want].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 2}, r"k must be at least the number of classes, 3, got 2"),
        ({"k": 21}, r"k must be between 0 and 20"),
        ({"labels": np.zeros(19, np.int64)}, r"labels must be 20 integers"),
        ({"labels": np.zeros(20)}, r"labels must be 20 integers.*float64"),
        ({"labels": None}, r"labels must be 20 integers.*got NoneType"),
        ({"labels": ["cat"] * 20}, r"labels must be 20 integers.*got list: \['cat'"),
        ({"labels": np.array(["cat"] * 20)}, r"labels must be 20 integers.*got ndarray"),
        ({"labels": np.zeros(20, complex)}, r"labels must be 20 integers.*complex128"),
    ],
)
def test_compress_checks(change, message):
    arguments = {"embeddings": gaussian(20, 3), "labels": np.arange(20) % 3, "k": 6, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        farthest_first_compress(**arguments)


def test_compress_takes_its_size_under_the_old_name():
    embeddings, labels = gaussian(20, 3), np.arange(20) % 3
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    want = farthest_first_compress(embeddings, labels, 6, generator=generators[0])
    with pytest.warns(DeprecationWarning, match=r"argument c of farthest_first_compress.* k now"):
        got = farthest_first_compress(embeddings, labels, c=6, generator=generators[1])
    assert torch.equal(got, want)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_certificate_accepts_the_reference(name, metric):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    k = len(pool) // 2
    got = farthest_first(pool, k, labeled, metric=metric)
    certificate = verify_traversal(pool, got, labeled, metric=metric)
    assert certificate.valid
    assert certificate.steps == k


def test_certificate_rejects_what_is_not_a_traversal():
    pool, labeled = clustered(300, 20), clustered(40, 20, seed=1)
    good = farthest_first(pool, 100, labeled)
    assert verify_traversal(pool, good, labeled).valid
    assert not verify_traversal(pool, good).valid
    swapped = good.indices.clone()
    swapped[[30, 31]] = swapped[[31, 30]]
    certificate = verify_traversal(pool, good._replace(indices=swapped), labeled)
    assert not certificate.valid
    assert certificate.largest_gap > 1e-6
    repeated = good.indices.clone()
    repeated[5] = repeated[4]
    assert not verify_traversal(pool, good._replace(indices=repeated), labeled).valid
    assert not verify_traversal(pool, good._replace(distances=good.distances * 1.01), labeled).valid
    unknown = torch.full_like(good.distances, torch.nan)
    assert not verify_traversal(pool, good._replace(distances=unknown), labeled).valid
    for radius in (math.nan, math.inf):
        assert not verify_traversal(pool, good._replace(radius=radius), labeled).valid
    from_nothing = farthest_first(pool, 3)
    assert from_nothing.distances[0] == math.inf
    assert verify_traversal(pool, from_nothing).valid
    finite = from_nothing.distances.clone()
    finite[0] = 1.0
    assert not verify_traversal(pool, from_nothing._replace(distances=finite)).valid
    assert not verify_traversal(pool, good._replace(radius=good.radius * 1.01), labeled).valid
    taken = np.sort(good.indices[:3].numpy())
    assert not verify_traversal(pool, good, taken).valid


def test_certificate_reports_ties_and_forced_starts():
    pool = np.eye(40, dtype=np.float32)
    got = farthest_first(pool, 20, start=7)
    certificate = verify_traversal(pool, got, start=True)
    assert certificate.valid
    assert certificate.near_ties == 19
    assert certificate.gaps == 0
    labeled = np.array([1, 2, 3])
    assert verify_traversal(pool, farthest_first(pool, 37, labeled), labeled).valid


def test_compression_measures_its_rows_once(monkeypatch):
    calls = []
    points = cpu.CpuKernels.points
    monkeypatch.setattr(
        cpu.CpuKernels, "points", lambda *arguments: calls.append(1) or points(*arguments)
    )
    farthest_first_compress(gaussian(60, 4), torch.arange(60) % 20, 40)
    assert len(calls) == 1


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="pool must have no mask"):
        farthest_first(np.ma.masked_less(gaussian(5, 3), 0), 1)
    with pytest.raises(TypeError, match="labeled must have no mask"):
        farthest_first(gaussian(5, 3), 1, np.ma.masked_less(np.arange(3), 1))
