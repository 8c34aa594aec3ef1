"""Random lives of a FarthestFirst, beside the definition started anew for each pick."""

import numpy as np

from dynal_fast.ops.farthest_first import reference
from tests.cases.farthest_first import exponent_of

KINDS = [np.float16, np.float32, np.float64, np.int8, np.int64]


class Anew:
    """What the definition says, with everything covered so far given as labeled."""

    def __init__(self, pool, metric):
        self.pool, self.metric = pool, metric
        self.covered, self.excluded = [], []
        self.outside = np.empty((0, pool.shape[1]), pool.dtype)

    @property
    def available(self):
        return len(self.pool) - len({*self.covered, *self.excluded})

    def minimum(self):
        exponent = exponent_of(self.pool, self.outside)
        minimum = np.full(len(self.pool), np.inf, dtype=np.float32)
        for centers in (self.outside, self.pool[self.covered]):
            reference.cover(minimum, self.pool, centers, self.metric, exponent)
        return minimum, exponent

    def distances(self):
        values, exponent = self.minimum()
        if self.metric == "cosine":
            return values
        return (np.sqrt(values.astype(np.float64)) * 2.0**-exponent).astype(np.float32)

    def pick(self, k, start=None):
        values, exponent = self.minimum()
        never = np.array([*self.covered, *self.excluded], dtype=np.int64)
        indices, distances, left = reference.farthest_first(
            self.pool,
            k,
            values,
            metric=self.metric,
            exponent=exponent,
            start=start,
            excluded=never,
        )
        self.covered += indices.tolist()
        if self.metric == "cosine":
            return indices, distances, float(left)
        root = np.sqrt(distances.astype(np.float64)) * 2.0**-exponent
        return indices, root.astype(np.float32), np.sqrt(float(left)) * 2.0**-exponent


def assert_same(got, want):
    np.testing.assert_array_equal(got.indices.cpu(), want[0])
    np.testing.assert_array_equal(got.distances.cpu(), want[1])
    assert got.radius == want[2]


def draw(rng, n, d, kind, shape):
    """Rows (n, d): clustered, on a lattice, with duplicates, near one point, or of many scales."""
    if kind in (np.int8, np.int64) or shape == "lattice":
        return rng.integers(1, 4, size=(n, d)).astype(kind)
    rows = rng.standard_normal((n, d)) + rng.integers(1, 4, size=(n, 1))
    if shape == "duplicates":
        rows = rows[rng.integers(max(n // 3, 1), size=n)]
    if shape == "offset":
        rows = 100 + rows / 10
    if shape == "scales":
        rows = rows * np.logspace(-2, 2, n)[:, None]
    return rows.astype(kind)


SHAPES = ["clustered", "lattice", "duplicates", "offset", "scales"]


def a_life(rng, pool, metric, labeled_rows, make, moved=np.asarray, events=6):
    """Random picks, labels, exclusions, copies: everything must be as if started anew."""
    anew, selection = Anew(pool, metric), make()
    for _ in range(events):
        event = rng.choice(["pick", "inside", "outside", "both", "exclude", "look", "save"])
        if event == "pick":
            k = min(int(rng.choice([0, 1, 2, 5, 9, len(pool)])), anew.available)
            start = None
            free = [i for i in range(len(pool)) if i not in {*anew.covered, *anew.excluded}]
            if k and rng.random() < 0.3:
                start = int(rng.choice(free))
            assert_same(selection.pick(k, start=start), anew.pick(k, start))
        if event in ("inside", "both"):
            rows = rng.integers(len(pool), size=int(rng.integers(0, 8)))
            new = [i for i in np.unique(rows).tolist() if i not in anew.covered]
            anew.covered += new
            given = rows
            if len(rows) == len(pool) or rng.random() < 0.5:
                given = np.zeros(len(pool), bool)
                given[rows] = True
        if event in ("outside", "both"):
            outside = labeled_rows(int(rng.integers(0, 9)))
            anew.outside = np.concatenate([anew.outside, outside])
            outside = moved(outside)
        if event == "inside":
            selection.add_labeled(given)
        elif event == "outside":
            selection.add_labeled(outside)
        elif event == "both":
            selection.add_labeled((given, outside) if rng.random() < 0.5 else (outside, given))
        if event == "exclude":
            rows = rng.integers(len(pool), size=min(int(rng.integers(0, 4)), len(pool) - 1))
            anew.excluded += rows.tolist()
            selection.exclude(rows)
        if event == "look":
            np.testing.assert_array_equal(selection.distances().cpu(), anew.distances())
        if event == "save":
            other = make()
            other.load_state_dict(selection.state_dict())
            selection = other
        assert selection.covered.tolist() == anew.covered
        assert selection.available == anew.available
    rest = anew.available
    assert_same(selection.pick(rest), anew.pick(rest))
