"""The primitives of farthest_first: bounds that hold, minima that are exact, heads that stop."""

import math

import numpy as np
import pytest
import torch

from dynal_fast import _extension
from dynal_fast.ops.farthest_first import cpu, heads, reference
from dynal_fast.ops.farthest_first.checks import as_rows
from dynal_fast.ops.farthest_first.cpu import CpuKernels
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, Points
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels
from tests.farthest_first_cases import small_cases

CASES = {
    name: (pool, pool[::-3].copy() if labeled is None or len(labeled) == 0 else labeled)
    for name, (pool, labeled) in small_cases().items()
}
Built = tuple[Kernels, Points, Points]


@pytest.fixture(params=["reference", *_extension.load().supported_isas()])
def build(request):
    """Makes the kernels of each implementation, with both sets of points."""
    native = _extension.load()
    usual = native.active_isa()

    def make(pool: np.ndarray, labeled: np.ndarray, metric: str) -> Built:
        x, y = as_rows(pool, "pool"), as_rows(labeled, "labeled")
        if request.param == "reference":
            kernels: Kernels = ReferenceKernels(metric)
        else:
            native.set_isa(request.param)
            kernels = CpuKernels(x, metric)
        return kernels, kernels.points(x, "pool"), kernels.points(y, "labeled")

    yield make
    native.set_isa(usual)


def inputs(name: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pool, a labeled set and all decision values between them (pool, labeled)."""
    pool, labeled = CASES[name]
    if metric == "cosine" and ((pool == 0).all(axis=1).any() or (labeled == 0).all(axis=1).any()):
        pool, labeled = pool + 1, labeled + 1
    pool, labeled = pool[:70], labeled[:50]
    values = [reference.decision_values(pool, center, metric) for center in labeled]
    return pool, labeled, np.stack(values, axis=1)


def two_groups(n: int, m: int) -> Groups:
    """Even rows with the first half of the centers, all rows backwards with the rest, and none."""
    return Groups(
        torch.cat([torch.arange(0, n, 2), torch.arange(n - 1, -1, -1)]).to(torch.int32),
        torch.tensor([(n + 1) // 2, (n + 1) // 2, (n + 1) // 2 + n]),
        torch.arange(m, dtype=torch.int32),
        torch.tensor([m // 2, m // 2, m]),
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_distances_bracket_the_decision_values(build, name, metric):
    pool, labeled, values = inputs(name, metric)
    kernels, x, y = build(pool, labeled, metric)
    n, m = values.shape
    chosen, centers = torch.arange(n - 1, -1, -1).to(torch.int32), torch.arange(m).to(torch.int32)
    lower, upper = kernels.distances(x, chosen, y, centers)
    values = values[::-1]
    assert lower.min() >= 0
    assert (lower.numpy() <= values).all()
    assert (upper.numpy() >= values).all()
    scale = 1.0 if metric == "cosine" else float(x.norms.max() + y.norms.max())
    assert float((upper - lower).max()) <= max(1e-3 * scale, 2.0**-90)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_bound_and_refresh_cover_each_group(build, name, metric):
    pool, labeled, values = inputs(name, metric)
    kernels, x, y = build(pool, labeled, metric)
    n, m = values.shape
    least = values[:, m // 2 :].min(axis=1)
    least[::2] = np.minimum(least[::2], values[::2, : m // 2].min(axis=1, initial=np.inf))
    bound = torch.full((n,), torch.inf)
    kernels.bound(x, y, two_groups(n, m), bound)
    assert (bound.numpy() >= least).all()
    scale = 1.0 if metric == "cosine" else float(x.norms.max() + y.norms.max())
    assert (bound.numpy() <= least + max(1e-3 * scale, 2.0**-90)).all()
    for known in (torch.full((n,), torch.inf), bound):
        exact = torch.full((n,), torch.inf)
        kernels.refresh(x, y, two_groups(n, m), None, known, exact)
        np.testing.assert_array_equal(exact.numpy(), least)


@pytest.mark.parametrize("name", CASES)
def test_refresh_applies_the_centers_a_row_has_not_seen(build, name):
    pool, labeled, values = inputs(name, "euclidean")
    kernels, x, y = build(pool, labeled, "euclidean")
    n, m = values.shape
    first = np.sort(np.arange(n) % (m + 1))
    seen = [values[row, :start].min(initial=np.inf) for row, start in enumerate(first)]
    exact = torch.tensor(np.array(seen, dtype=np.float32))
    groups = Groups.one(torch.arange(n).to(torch.int32), torch.arange(m).to(torch.int32))
    kernels.refresh(x, y, groups, torch.from_numpy(first).to(torch.int32), exact.clone(), exact)
    np.testing.assert_array_equal(exact.numpy(), values.min(axis=1))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_traverse_stops_where_a_row_outside_comes_first(build, name, metric):
    pool, labeled, values = inputs(name, metric)
    kernels, x, _ = build(pool, labeled, metric)
    n = len(pool)
    head = torch.arange(0, n, 2).to(torch.int32)
    minimum = values.min(axis=1)
    want, decisions, _ = reference.farthest_first(
        pool, len(head), minimum, metric=metric, excluded=np.arange(1, n, 2)
    )
    for stop in sorted({0, len(head) // 2, len(head)}):
        outside = heads.NOTHING
        if stop < len(head):  # the key of the pick at which to stop
            outside = int(
                heads.keys(torch.tensor([decisions[stop]]), torch.tensor([int(want[stop])]))[0]
            )
        exact = torch.from_numpy(minimum.copy())
        picks = torch.full((len(head) + 3,), -7, dtype=torch.int32)
        picked = torch.full((len(head) + 3,), torch.nan)
        count = kernels.traverse(x, head, outside, exact, picks, picked)
        assert count == stop
        assert picks[:count].tolist() == want[:count].tolist()
        assert picks[count:].eq(-7).all()
        np.testing.assert_array_equal(picked[:count].numpy(), decisions[:count])
        left = minimum.copy()
        reference.cover(left, pool, pool[want[:count]], metric)
        left[want[:count]] = -np.inf
        np.testing.assert_array_equal(exact[head].numpy(), left[head])
        np.testing.assert_array_equal(exact[1::2].numpy(), minimum[1::2])


def euclidean_midpoints(tiny: float) -> np.ndarray:
    """Rows whose squared norm is half-way between two float32 numbers, or ``tiny`` squared more."""
    rows = [[base, 0.0, 0.0] for base in (4097, 4099, 5793, 5795)]  # odd squares above 2^24
    rows += [[1.0, 2.0**-12, 0.0], [1.0, 3 * 2.0**-12, 0.0]]  # 1 + 2^-24 and 1 + 9 * 2^-24
    nudged = np.array(rows)
    nudged[:, 2] = tiny
    return np.concatenate([rows, nudged])


def is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def cosine_midpoints(tiny: float) -> np.ndarray:
    """Rows at a cosine distance to the first axis half-way between two values, or a hair off."""
    rows = []
    for first in (12_345_677, 12_345_679, -3_000_001, -3_000_003):
        rest = 2**48 - first * first  # the other components' squares: the norm is 2^24
        second = math.isqrt(rest)
        second -= 1 - second % 2  # odd: leaves 6 modulo 8, always a sum of three squares
        rest -= second * second
        for third in range(math.isqrt(rest), -1, -1):
            left = rest - third * third
            fourth = next((a for a in range(math.isqrt(left) + 1) if is_square(left - a * a)), None)
            if fourth is not None:
                break
        rows.append([first, second, third, fourth, math.isqrt(left - fourth**2), 0.0])
        assert sum(int(v) ** 2 for v in rows[-1]) == 2**48
    nudged = np.array(rows)
    nudged[:, 5] = tiny
    return np.concatenate([rows, nudged])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-12, -30, -60, -100])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_midpoints_round_to_even_and_a_hair_more_away(build, metric, exponent, dtype):
    """Decided in float64, in double-double, and where even that is too coarse, exactly."""
    midpoints = euclidean_midpoints if metric == "euclidean" else cosine_midpoints
    rows = midpoints(2.0**exponent).astype(dtype)
    center = np.zeros((1, rows.shape[1]), dtype)
    center[0, 0] = metric == "cosine"
    on, off = np.split(reference.decision_values(rows, center[0], metric), 2)
    assert (off != on).any()
    # A longer row is farther from the origin, and nearer to a right angle.
    assert (off >= on).all() if metric == "euclidean" else (abs(1 - off) <= abs(1 - on)).all()
    kernels, x, y = build(rows, center, metric)
    assert_refreshed(kernels, x, y, np.concatenate([on, off]))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_products_that_underflow_still_decide(build, metric):
    if metric == "euclidean":  # 2^-150: half the smallest float32 number
        rows, center = np.array([[2.0**-75, 0], [2.0**-75, 2.0**-600]]), np.zeros((1, 2))
    else:
        rows, center = cosine_midpoints(2.0**-100) * 2.0**-480, np.eye(1, 6)
    want = reference.decision_values(rows, center[0], metric)
    assert len(set(want.tolist())) > len(want) // 2
    assert_refreshed(*build(rows, center, metric), want)


def assert_refreshed(kernels: Kernels, x: Points, y: Points, want: np.ndarray) -> None:
    """`refresh` finds the decision values of all rows of x to the one row of y."""
    exact = torch.full((len(want),), torch.inf)
    groups = Groups.one(torch.arange(len(want)).to(torch.int32), torch.zeros(1, dtype=torch.int32))
    kernels.refresh(x, y, groups, None, exact.clone(), exact)
    np.testing.assert_array_equal(exact.numpy(), want)


@pytest.mark.parametrize("shape", ["first", "one", "two"])
@pytest.mark.parametrize("work", [1, 2000, 2**34])
def test_calls_are_short_and_change_nothing(monkeypatch, shape, work):
    pool, labeled, values = inputs("clustered", "euclidean")
    (n, m), d = values.shape, pool.shape[1]
    monkeypatch.setattr(cpu, "WORK", work)
    monkeypatch.setattr(cpu, "BLOCK", 4)
    sizes = []
    build_groups = CpuKernels._groups

    def record(self, groups):
        rows, centers = (
            np.diff(ends.numpy(), prepend=0) for ends in (groups.row_ends, groups.center_ends)
        )
        sizes.append(int((rows * centers).sum()) * d)
        return build_groups(self, groups)

    monkeypatch.setattr(CpuKernels, "_groups", record)
    x, y = as_rows(pool, "pool"), as_rows(labeled, "labeled")
    kernels = CpuKernels(x, "euclidean")
    exact, first = torch.full((n,), torch.inf), None
    groups, want = Groups.one(torch.arange(n).int(), torch.arange(m).int()), values.min(axis=1)
    if shape == "first":
        first = torch.from_numpy(np.sort(np.arange(n) % (m + 1)).astype(np.int32))
        seen = [values[row, :start].min(initial=np.inf) for row, start in enumerate(first)]
        exact = torch.tensor(np.array(seen, dtype=np.float32))
    elif shape == "two":
        groups, want = two_groups(n, m), values[:, m // 2 :].min(axis=1)
        want[::2] = values[::2].min(axis=1)
    x_points, y_points = kernels.points(x, "pool"), kernels.points(y, "labeled")
    bound = torch.full((n,), torch.inf)
    kernels.bound(x_points, y_points, groups, bound)
    assert (bound.numpy() >= want).all()
    kernels.refresh(x_points, y_points, groups, first, exact.clone(), exact)
    np.testing.assert_array_equal(exact.numpy(), want)
    assert max(sizes) <= max(2 * work, 4 * 4 * d)
    assert sum(sizes) == 2 * d * int((n + 1) // 2 * (m // 2) + n * (m - m // 2)) or shape != "two"
    assert sum(sizes) == 2 * n * m * d or shape == "two"
