"""The filter in 16-bit integers: bounds that hold, whatever the rows, and the same picks."""

import math
import platform

import numpy as np
import pytest
import torch

from dynal_fast import _extension, assign_to_picks, farthest_first
from dynal_fast.ops.farthest_first import cpu, reference
from dynal_fast.ops.farthest_first.contract import as_rows
from dynal_fast.ops.farthest_first.cpu import CpuKernels
from dynal_fast.ops.farthest_first.kernels import Groups, Points, on_one_scale
from dynal_fast.ops.farthest_first.routing import Centers
from tests.cases.farthest_first import bootstrap, clustered, exponent_of, gaussian

X86 = platform.machine().lower() in ("x86_64", "amd64")
N, M = 420, 630  # with 33 columns or more, so many products are computed in integers


def far_from_the_mean(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Clusters so tight and so far away (n, d) that integers leave their distances open."""
    rng = np.random.default_rng(seed)
    centers = 100 * np.random.default_rng(9).standard_normal((5, d))
    rows = centers[rng.integers(5, size=n)] + 0.5 * rng.standard_normal((n, d))
    return rows.astype(np.float32)


def one_hot(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows of one element each (n, d), of either sign: the largest integers that there are."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, d), dtype=np.float32)
    rows[np.arange(n), rng.integers(d, size=n)] = 3 * rng.standard_normal(n)
    return rows


def fading(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Columns from 1 down to 1e-12 (n, d)."""
    return gaussian(n, d, seed) * np.logspace(0, -12, d, dtype=np.float32)


def of_all_lengths(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows of lengths from 1e-30 to 1, and zeros (n, d): the shortest are zeros to the filter."""
    rows = gaussian(n, d, seed) * np.logspace(-30, 0, n, dtype=np.float32)[:, None]
    rows[::7] = 0
    rows[1::2] *= -1
    return rows - rows.mean(0, dtype=np.float64).astype(np.float32)


MAKERS = [gaussian, clustered, bootstrap, far_from_the_mean, one_hot, fading, of_all_lengths]


def proven(d: int) -> float:
    """The error bound of a squared distance, of the sum of both squared norms."""
    return 1.01 * (2 * 0.502 * math.sqrt(d) / 32000 + 1e-5)


def made(make, d: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    pool, labeled = make(N, d), make(M, d, seed=1)
    if metric == "cosine":  # no row may be zero
        pool, labeled = (rows + np.float32(0.01) for rows in (pool, labeled))
    return pool, labeled


@pytest.mark.parametrize(("d", "metric"), [(33, "euclidean"), (515, "cosine")])
@pytest.mark.parametrize("make", MAKERS)
def test_bounds_hold_and_are_as_tight_as_proven(isa, make, d, metric):
    pool, labeled = made(make, d, metric)
    rows = [as_rows(part, "pool") for part in (pool, labeled)]
    kernels = CpuKernels(rows[0], metric)
    (x, y), exponent = on_one_scale(kernels, [kernels.points(part, "pool") for part in rows])
    some = np.arange(0, N, 35)  # the definition is slow
    values = np.stack(
        [reference.decision_values(labeled, pool[row], metric, exponent) for row in some]
    )
    every, centers = (torch.arange(size, dtype=torch.int32) for size in (N, M))
    lower, upper = (part.numpy() for part in kernels.distances(x, every, y, centers))
    assert (lower[some] <= values).all()
    assert (upper[some] >= values).all()
    squares = np.ones((N, M))
    if metric == "euclidean":
        squares = x.norms.double().numpy()[:, None] + y.norms.double().numpy()
    slack = proven(d)
    assert (upper - lower <= 2.01 * slack * squares + 2.0**-22).all()
    if X86 and make is gaussian:  # these are integers: float32 would be a dozen times as tight
        assert (upper - lower).mean(dtype=np.float64) > slack * squares.mean()
    bound = torch.full((N,), math.inf)
    kernels.bound(x, y, Groups.one(every, centers), bound)
    exact = torch.full((N,), math.inf)
    kernels.refresh(x, y, Groups.one(every, centers), None, bound, exact)
    np.testing.assert_array_equal(exact.numpy()[some], values.min(axis=1))
    assert (bound >= exact).all()


@pytest.mark.parametrize("part", [0.49, 0.51])
def test_bounds_hold_where_all_is_rounded_one_way(isa, part):
    """Every element lies `part` above an integer, and the centers lie along these errors."""
    d = 64
    half = 3990 + np.random.default_rng(0).integers(20, size=(N // 2, d)) + part
    half[:, -1] = np.sqrt(32000.0**2 - (half[:, :-1] ** 2).sum(axis=1))  # the scale is 1
    pool = np.concatenate([half, -half]).astype(np.float32)  # and the mean 0
    labeled = np.full((M, d), 4000, dtype=np.float32)
    rows = [as_rows(part, "pool") for part in (pool, labeled)]
    kernels = CpuKernels(rows[0], "euclidean")
    x, y = (kernels.scaled(kernels.points(part, "pool"), 0) for part in rows)
    every, centers = (torch.arange(size, dtype=torch.int32) for size in (N, M))
    lower, upper = (got[:, 0].numpy() for got in kernels.distances(x, every, y, centers))
    values = reference.decision_values(pool, labeled[0], "euclidean")
    assert (lower <= values).all()
    assert (upper >= values).all()
    margin = (upper - values)[: N // 2] / (proven(d) * 2 * 32000**2)
    if X86:  # nearly half of what is proven comes about
        assert margin.min() > 1.4 if part < 0.5 else margin.max() < 0.6


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("make", MAKERS)
def test_picks_are_those_of_the_definition(make, metric):
    pool, labeled = made(make, 72, metric)
    labeled = labeled[:500]  # one cluster: all of it is compared with many rows at once
    want = farthest_first(pool, 30, labeled, metric=metric, backend="reference", progress=False)
    got = farthest_first(pool, 30, labeled, metric=metric, backend="cpu", progress=False)
    assert got.indices.tolist() == want.indices.tolist()
    assert got.distances.tolist() == want.distances.tolist()
    assert got.radius == want.radius


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_rows_of_other_types(dtype):
    pool, labeled = (torch.from_numpy(10 * gaussian(size, 35, size)).to(dtype) for size in (N, M))
    for metric in ("euclidean", "cosine"):
        want, got = (
            farthest_first(pool, 9, labeled, metric=metric, backend=backend, progress=False)
            for backend in ("reference", "cpu")
        )
        assert got.indices.tolist() == want.indices.tolist()


def test_the_nearest_center_is_that_of_the_definition():
    pool = bootstrap(N + M, 40)
    picks = np.arange(0, len(pool), 3)
    want, got = (assign_to_picks(pool, picks, backend=name) for name in ("reference", "cpu"))
    assert got.pick.tolist() == want.pick.tolist()
    assert got.distances.tolist() == want.distances.tolist()


def test_lengths_end_where_they_must():
    """Rows just above and below the length from which the filter takes a row for zeros."""
    pool = np.zeros((N, 40), dtype=np.float32)
    pool[:, 0] = np.float32(2.0) ** -np.linspace(1, 120, N).astype(np.float32)
    pool[0] = 1
    labeled = -pool[np.arange(M) % N]
    want, got = (
        farthest_first(pool, 80, labeled, backend=name, progress=False)
        for name in ("reference", "cpu")
    )
    assert exponent_of(pool, labeled) < 64
    assert got.indices.tolist() == want.indices.tolist()
    assert got.distances.tolist() == want.distances.tolist()


def in_clusters(metric: str, d: int) -> tuple[CpuKernels, Points, Points, Centers]:
    """Kernels, a pool, and labeled samples in clusters: packed where there are integers."""
    labeled = clustered(1300, d, seed=1) + np.float32(0.01)
    rows = [as_rows(part, "pool") for part in (clustered(2700, d) + np.float32(0.01), labeled)]
    kernels = CpuKernels(rows[0], metric)
    (x, y), _ = on_one_scale(kernels, [kernels.points(part, "pool") for part in rows])
    centers = Centers(kernels, x, y, torch.arange(len(labeled), dtype=torch.int32))
    assert (centers.kept is not None) == X86
    return kernels, x, y, centers


@pytest.mark.parametrize(("d", "metric"), [(33, "euclidean"), (70, "cosine")])
def test_packed_clusters_bound_as_others_do(isa, monkeypatch, d, metric):
    monkeypatch.setattr(cpu, "WORK", 2**22)  # several calls
    kernels, x, y, centers = in_clusters(metric, d)
    every = torch.randperm(x.rows.size, dtype=torch.int32, generator=torch.manual_seed(0))
    exact = torch.full((len(every),), math.inf)
    kernels.refresh(x, y, Groups.one(every, centers.members), None, exact.clone(), exact)
    for probes in (1, 3, centers.clusters):
        packed, plain = (torch.full((len(every),), math.inf) for _ in range(2))
        centers.probe(every, packed, probes)
        with monkeypatch.context() as patch:
            patch.setattr(centers, "kept", None)
            centers.probe(every, plain, probes)
        assert (packed >= exact).all()
        assert (packed <= plain * 1.01 + 1e-3).double().mean() > 0.99  # but where clusters tie


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_packed_clusters_are_exact(isa, monkeypatch, metric):
    kernels, x, y, centers = in_clusters(metric, 96)
    every = torch.arange(x.rows.size, dtype=torch.int32)
    want = torch.full((len(every),), math.inf)
    kernels.refresh(x, y, Groups.one(every, centers.members), None, want.clone(), want)
    for most in (2**27, 0):  # clusters kept, and packed by each call
        bound, got = (torch.full((len(every),), math.inf) for _ in range(2))
        centers.begin()
        centers.route(every, bound)
        if most == 0:
            monkeypatch.setattr(cpu, "KEPT_BYTES", most)
            centers.kept = kernels.keep(centers.held)
            assert centers.kept is None
        centers.make_exact(every, bound, got)
        assert torch.equal(got, want)
        assert torch.equal(bound, want)


@pytest.mark.skipif(not X86, reason="nothing is packed")
def test_clusters_packed_for_another_instruction_set(isa):
    native = _extension.load()
    *_, x, _, centers = in_clusters("euclidean", 40)
    every = torch.arange(x.rows.size, dtype=torch.int32)
    for name in native.supported_isas():
        native.set_isa(name)
        bound, exact = (torch.full((len(every),), math.inf) for _ in range(2))
        centers.begin()
        centers.route(every, bound)
        centers.make_exact(every, bound, exact)
        assert centers.kept.usable == (name == isa)
        if name == "baseline":
            want = exact.clone()
        assert torch.equal(exact, want)
