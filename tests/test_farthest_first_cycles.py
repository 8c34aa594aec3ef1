"""FarthestFirst: each pick of any cycle is what a traversal started anew returns."""

import copy
import pickle

import numpy as np
import pytest
import torch

from dynal_fast import FarthestFirst, assign_to_picks, farthest_first, verify_traversal
from dynal_fast.ops.farthest_first import cpu, heads, routing
from tests.cases.farthest_first import bootstrap, clustered, expected, gaussian
from tests.cases.farthest_first_cycles import KINDS, SHAPES, Anew, a_life, assert_same, draw

BACKENDS = ["cpu", "reference", "reference-heads"]


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks so small that small pools need many heads, fronts, clusters and chunks."""
    for name, value in {"HEAD": 7, "FRONT": 2, "MANY": 3}.items():
        monkeypatch.setattr(heads, name, value)
    monkeypatch.setattr(cpu, "HEAD_VALUES", 0)
    sizes = {"CLUSTERED_FROM": 5, "PROBES": 1, "MORE_PROBES": 1, "TILE": 16, "CHUNK": 50}
    for name, value in sizes.items():
        monkeypatch.setattr(routing, name, value)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_life_equals_starting_anew(kind, backend, metric):
    rng = np.random.default_rng([KINDS.index(kind), BACKENDS.index(backend), metric == "cosine"])
    for shape in SHAPES:
        n, d = int(rng.integers(1, 30)), int(rng.integers(1, 7))
        pool = draw(rng, n, d, kind, shape)

        def labeled_rows(m, d=d, shape=shape):
            return draw(rng, m, d, kind, shape)

        def make(pool=pool):
            return FarthestFirst(pool, metric=metric, backend=backend)

        a_life(rng, pool, metric, labeled_rows, make)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("make", [clustered, bootstrap])
def test_cycles_are_one_traversal(make, metric):
    """At the usual sizes of blocks, with more labeled samples than one cluster has."""
    pool, outside = make(4000, 16) + np.float32(0.1), make(700, 16, seed=5) + np.float32(0.1)
    inside = np.arange(0, 4000, 7)
    want = farthest_first(pool, 500, (inside, outside), metric=metric)
    selection = FarthestFirst(pool, (outside, inside), metric=metric)
    got = [selection.pick(100) for _ in range(5)]
    assert torch.equal(torch.cat([part.indices for part in got]), want.indices)
    assert torch.equal(torch.cat([part.distances for part in got]), want.distances)
    assert got[-1].radius == want.radius
    # Many labels at once are clustered, few wait.
    more = np.random.default_rng(1).integers(4000, size=900)
    selection.add_labeled(more)
    selection.add_labeled(outside[:40] * np.float32(1.01))
    covered = np.concatenate([selection.covered.numpy()])
    both = (covered, np.concatenate([outside, outside[:40] * np.float32(1.01)]))
    want = farthest_first(pool, 60, both, metric=metric)
    assert_same(selection.pick(60), want)
    certificate = verify_traversal(pool, want, both, metric=metric)
    assert certificate.valid


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_from_the_head_after_labels_that_wait(backend):
    """The start knows all labels when the other rows of its head do not yet."""
    pool = gaussian(30, 3)
    for start in range(30):
        anew, selection = Anew(pool, "euclidean"), FarthestFirst(pool, backend=backend)
        assert_same(selection.pick(3), anew.pick(3))
        label = next(i for i in range(29, 0, -1) if i not in {start, *anew.covered})
        selection.add_labeled([label])
        anew.covered.append(label)
        if start not in anew.covered:
            assert_same(selection.pick(9, start=start), anew.pick(9, start))


@pytest.mark.parametrize("backend", BACKENDS)
def test_larger_labeled_values_change_the_scale(backend):
    """Distances in the old units may have digits that those in the new ones lack."""
    pool = gaussian(60, 4) * np.logspace(-30, 0, 60, dtype=np.float32)[:, None]
    anew, selection = Anew(pool, "euclidean"), FarthestFirst(pool, backend=backend)
    for factor in (1, 1e8, 1e-8, 1e18):
        assert_same(selection.pick(7), anew.pick(7))
        outside = gaussian(3, 4, seed=2) * np.float32(factor)
        selection.add_labeled(outside)
        anew.outside = np.concatenate([anew.outside, outside])
        np.testing.assert_array_equal(selection.distances(), anew.distances())
    assert_same(selection.pick(32), anew.pick(32))


def test_a_pool_that_needs_its_labeled_samples_for_its_scale():
    pool, outside = clustered(30, 5).astype(np.float64) * 1e-42, clustered(4, 5)
    selection = FarthestFirst(pool)
    with pytest.raises(ValueError, match="nothing larger than"):
        selection.pick(3)
    selection.add_labeled(outside)
    assert_same(selection.pick(3), expected(pool, 3, outside.astype(np.float64)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_tell_every_distance(backend):
    pool = clustered(50, 6)
    selection, anew = FarthestFirst(pool, [4, 9], backend=backend), Anew(pool, "euclidean")
    anew.covered = [4, 9]
    selection.exclude([1, 2])
    anew.excluded = [1, 2]
    picks = []
    for pick, distances in selection.steps(6):
        picks += anew.pick(1)[0].tolist()
        assert pick == picks[-1]
        assert distances.dtype == torch.float32
        np.testing.assert_array_equal(distances, anew.distances())
        assert distances[pick] == 0
        if len(picks) == 3:  # a label may come in between
            selection.add_labeled([20])
            anew.covered.append(20)
    assert selection.covered.tolist() == anew.covered
    pick, _ = next(selection.steps(5))  # the loop may end at any time
    assert selection.covered.tolist() == [*anew.covered, pick]
    steps = FarthestFirst(pool).steps(2, start=17)
    assert [pick for pick, _ in steps] == farthest_first(pool, 2, start=17).indices.tolist()
    assert [pick for pick, _ in FarthestFirst(pool[:0]).steps(0)] == []
    assert (FarthestFirst(pool).distances() == torch.inf).all()


class Interrupted:
    """Raises KeyboardInterrupt at a call of a primitive."""

    def __init__(self, monkeypatch, after):
        self.left = after
        for name in ("points", "distances", "bound", "refresh", "traverse"):
            monkeypatch.setattr(cpu.CpuKernels, name, self.counted(getattr(cpu.CpuKernels, name)))

    def counted(self, primitive):
        def call(*arguments, **options):
            self.left -= 1
            result = primitive(*arguments, **options)
            if self.left == 0:
                raise KeyboardInterrupt
            return result

        return call


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("change", ["pick", "inside", "outside", "look"])
def test_an_interrupted_call_has_not_happened(change, monkeypatch):
    pool = clustered(40, 5)
    rows = {"inside": np.arange(20, 35), "outside": clustered(9, 5, seed=3) * np.float32(20)}
    for after in range(1, 400, 3):
        selection = FarthestFirst(pool, labeled=np.arange(9))
        selection.pick(6)
        before = repr(selection)
        anew = Anew(pool, "euclidean")
        anew.covered = selection.covered.tolist()
        with monkeypatch.context() as patch:
            interrupted = Interrupted(patch, after)
            try:
                if change == "pick":
                    selection.pick(20)
                elif change == "look":
                    selection.distances()
                else:
                    selection.add_labeled(rows[change])
            except KeyboardInterrupt:
                assert repr(selection) == before
        if interrupted.left > 0:  # it was not reached: all calls were tried
            break
        assert_same(selection.pick(5), anew.pick(5))
    assert after > 1


def test_a_saved_selection_goes_on():
    pool, outside = clustered(200, 8), clustered(20, 8, seed=3)
    selection = FarthestFirst(pool, (np.arange(30), outside), metric="cosine")
    selection.pick(10)
    selection.exclude([77, 78])
    copies = [copy.deepcopy(selection), pickle.loads(pickle.dumps(selection))]
    other = FarthestFirst(pool, labeled=[3], metric="cosine")
    other.pick(5)
    other.load_state_dict(selection.state_dict())
    want = selection.pick(150)
    for again in (*copies, other):
        assert repr(again) == "FarthestFirst(200 x 8, cosine, 40 covered, 158 available)"
        got = again.pick(150)
        assert torch.equal(got.indices, want.indices)
        assert torch.equal(got.distances, want.distances)
        assert torch.equal(again.covered, selection.covered)
    with pytest.raises(ValueError, match="state must be that of the same pool"):
        FarthestFirst(pool + 1).load_state_dict(selection.state_dict())
    assert torch.equal(FarthestFirst(pool).covered, torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["numpy", "torch", "one row of torch"])
def test_a_pool_that_changes_is_noticed(kind):
    pool = clustered(500, 4)
    if kind != "numpy":
        pool = torch.from_numpy(pool)
    selection = FarthestFirst(pool)
    selection.pick(3)
    if kind == "one row of torch":
        pool[333] = 0.5
    else:
        pool += 1
    for method in (
        lambda: selection.pick(3),
        selection.distances,
        lambda: selection.add_labeled([4]),
    ):
        with pytest.raises(ValueError, match="pool must stay as it is"):
            method()
    assert len(selection.covered) == 3


def test_another_part_of_the_memory_may_change_and_outside_embeddings_too():
    memory, outside = torch.from_numpy(clustered(60, 4)), clustered(5, 4, seed=2)
    selection = FarthestFirst(memory[:50], labeled=outside)
    want = farthest_first(memory[:50], 9, outside)
    memory[50:] = 0
    outside[:] = 0
    assert torch.equal(selection.pick(9).indices, want.indices)
    with torch.inference_mode():
        assert FarthestFirst(torch.ones(4, 2)).pick(4).indices.tolist() == [0, 1, 2, 3]


def test_bad_requests_change_nothing():
    pool = clustered(20, 3)
    selection = FarthestFirst(pool, labeled=[5])
    bad = {
        r"k must be between 0 and 19.* got 20": lambda: selection.pick(20),
        r"start must not be a labeled sample, got 5": lambda: selection.pick(2, start=5),
        r"k must be between 0 and 19": lambda: selection.steps(20),
        r"labeled holds pool index 20": lambda: selection.add_labeled([20]),
        r"labeled must have the pool's 3 dimensions": lambda: selection.add_labeled(pool[:, :2]),
        r"labeled row 1 holds a NaN": lambda: selection.add_labeled([[1.0] * 3, [np.nan] * 3]),
        r"samples holds pool index -1": lambda: selection.exclude([-1]),
        r"labeled must hold embeddings .* pair .* shapes \(20, 3\) and \(20, 3\)": (
            lambda: selection.add_labeled((pool, pool))
        ),
        r"metric must be one of": lambda: FarthestFirst(pool, metric="cos"),
        r"backend must be one of": lambda: FarthestFirst(pool, backend="gpu"),
    }
    for message, call in bad.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert repr(selection) == "FarthestFirst(20 x 3, euclidean, 1 covered, 19 available)"
    selection.add_labeled(None)
    selection.add_labeled([])
    selection.add_labeled([5, 5])
    assert selection.pick(0).indices.tolist() == []
    assert selection.available == 19


def test_random_starts_are_those_of_the_function():
    pool = clustered(40, 3)
    for labeled in (None, [1, 7, 30]):
        draw_one = torch.Generator().manual_seed(5)
        want = farthest_first(pool, 4, labeled, start="random", generator=draw_one)
        draw_one.manual_seed(5)
        got = FarthestFirst(pool, labeled).pick(4, start="random", generator=draw_one)
        assert torch.equal(got.indices, want.indices)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pair_of_labeled_samples_is_taken_by_the_functions(backend):
    pool, outside = clustered(40, 5), clustered(6, 5, seed=2)
    mask = np.zeros(40, bool)
    mask[[3, 8]] = True
    want = expected(pool, 9, outside, excluded=np.array([3, 8]))
    lists = ([8, 3], outside.tolist())
    for pair in ((outside, [8, 3]), (mask, outside), (torch.tensor([[3], [8]]), outside), lists):
        assert_same(farthest_first(pool, 9, pair, backend=backend), want)
    got = farthest_first(pool, 9, (mask, outside), backend=backend)
    assert verify_traversal(pool, got, (mask, outside)).valid
    nearest = assign_to_picks(pool, got.indices, (mask, outside), backend=backend)
    alone = assign_to_picks(
        np.concatenate([pool, outside]), [*range(40, 46), 3, 8, *got.indices.tolist()]
    )
    assert torch.equal(nearest.distances, alone.distances[:40])
    assert torch.equal(
        torch.where(nearest.labeled < 0, nearest.pick + 8, nearest.labeled), alone.pick[:40]
    )
    # Two rows, or two indices, are no pair.
    assert (
        farthest_first(pool, 2, (3, 8)).indices.tolist()
        == farthest_first(pool, 2, [3, 8]).indices.tolist()
    )
    assert_same(
        farthest_first(pool, 2, tuple(outside[:2].tolist())), expected(pool, 2, outside[:2])
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16, np.dtype(">f4")], ids=str)
def test_a_state_saved_of_an_array_loads_without_trust(dtype, tmp_path):
    pool = np.arange(60).reshape(20, 3).astype(dtype)
    selection = FarthestFirst(pool, labeled=pool[:2] + np.array(1, dtype=dtype))
    first = selection.pick(4)
    torch.save(selection.state_dict(), tmp_path / "state.pt")
    other = FarthestFirst(pool)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.covered, first.indices)
    assert torch.equal(other.pick(3).indices, selection.pick(3).indices)
    with pytest.raises(ValueError, match="state must be that of the same pool"):
        FarthestFirst(pool[::-1]).load_state_dict(selection.state_dict())
