"""The primitives of farthest_first: bounds that hold, minima that are exact, heads that stop."""

import math

import numpy as np
import pytest
import torch

from dynal_fast import _extension
from dynal_fast.ops.farthest_first import cpu, highest, reference
from dynal_fast.ops.farthest_first.contract import as_rows
from dynal_fast.ops.farthest_first.cpu import CpuKernels
from dynal_fast.ops.farthest_first.kernels import Groups, Kernels, Points
from dynal_fast.ops.farthest_first.reference_kernels import ReferenceKernels
from tests.cases.farthest_first import gaussian, small_cases

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
        return kernels, *(kernels.scaled(kernels.points(rows, "pool"), 0) for rows in (x, y))

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
        outside = highest.NOTHING
        if stop < len(head):  # the key of the pick at which to stop
            outside = int(
                highest.keys(torch.tensor([decisions[stop]]), torch.tensor([int(want[stop])]))[0]
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


class Counting:
    """The native primitives, counting calls."""

    def __init__(self, native) -> None:
        self.native, self.calls = native, 0

    def __getattr__(self, name: str):
        member = getattr(self.native, name)
        if name not in ("distances", "bound", "refresh", "traverse"):
            return member

        def counted(**arguments: object) -> object:
            self.calls += 1
            return member(**arguments)

        return counted


def counting(monkeypatch, work: int, pool: np.ndarray) -> tuple[CpuKernels, Counting]:
    """Kernels whose calls stop after so much work, and the count of their calls."""
    monkeypatch.setattr(cpu, "WORK", work)
    kernels = CpuKernels(as_rows(pool, "pool"), "euclidean")
    native = Counting(kernels.native)
    monkeypatch.setattr(kernels, "native", native)
    return kernels, native


@pytest.mark.parametrize("primitive", ["distances", "bound", "refresh", "refresh from"])
@pytest.mark.parametrize(("n", "m", "d"), [(900, 800, 1024), (120, 90, 65_536)])
def test_calls_stop_after_their_share_and_go_on(monkeypatch, primitive, n, m, d):
    pool, labeled = gaussian(n, d), gaussian(m, d, seed=1)
    groups = Groups.one(torch.arange(n).int(), torch.arange(m).int())
    first = (torch.arange(n) % m).sort().values.int() if primitive == "refresh from" else None

    def run(work: int) -> tuple[torch.Tensor, int]:
        kernels, native = counting(monkeypatch, work, pool)
        x = kernels.scaled(kernels.points(as_rows(pool, "pool"), "pool"), 0)
        y = kernels.scaled(kernels.points(as_rows(labeled, "labeled"), "labeled"), 0)
        if primitive == "distances":
            return torch.stack(kernels.distances(x, groups.rows, y, groups.centers)), native.calls
        bound, exact = torch.full((2, n), torch.inf)
        if primitive == "bound":
            kernels.bound(x, y, groups, bound)
        else:
            kernels.refresh(x, y, groups, first, bound, exact)
        return torch.stack([bound, exact]), native.calls

    whole, calls = run(2**40)
    assert calls == 1
    shares, calls = run(1)
    assert torch.equal(shares, whole)
    units = (n * m * d) // (2 if first is not None else 1) / 2**27
    assert calls >= units / torch.get_num_threads()


def test_calls_count_what_is_decided_exactly(monkeypatch):
    """All distances are equal, so that each pick is compared with every row by its exact value."""
    rows, work = 512, 2**24
    pool = np.eye(rows, 1024, dtype=np.float32)

    def run(work: int) -> tuple[list[int], int]:
        kernels, native = counting(monkeypatch, work, pool)
        x = kernels.scaled(kernels.points(as_rows(pool, "pool"), "pool"), 0)
        exact = torch.full((rows,), torch.inf)
        picks, values = torch.empty(rows, dtype=torch.int32), torch.empty(rows)
        head = torch.arange(rows, dtype=torch.int32)
        count = kernels.traverse(x, head, highest.NOTHING, exact, picks, values)
        return picks[:count].tolist(), native.calls

    assert run(2**40) == (list(range(rows)), 1)
    picks, calls = run(work)
    assert picks == list(range(rows))
    products, decided = rows * rows * 1024, rows * rows // 2 * 1024
    assert calls > 4 * (products + decided) // work
