"""modAL: the picks are those of the float64 definition; each query calls the strategy once."""

from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("modAL", reason="modAL is not installed")

import pandas
from modAL.models import ActiveLearner, Committee
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dynal_fast import PoolStats
from dynal_fast import badge as definition_of_badge
from dynal_fast import farthest_first as definition
from dynal_fast.integrations.modal import TrackedScore, badge, farthest_first

N, M, D = 50, 6, 4


@pytest.fixture(scope="module")
def pool():
    return np.random.default_rng(0).standard_normal((N, D))


@pytest.fixture(scope="module")
def taught():
    return np.random.default_rng(1).standard_normal((M, D)), np.array(list("ababab"))


@pytest.fixture
def stats():
    stats = PoolStats(N, 3, track=("margin",))
    with stats.observe(1, 1):
        logits = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
        stats.update(torch.arange(N), logits)
    return stats


def reference(pool, labeled, k, metric="euclidean"):
    return definition(pool, k, labeled, metric=metric, backend="reference")


def counted(strategy):
    def query(*args, **options):
        query.calls += 1
        return strategy(*args, **options)

    query.calls = 0
    return query


@pytest.mark.parametrize("kind", ["array", "float32", "frame", "rows"])
def test_picks_are_farthest_from_what_was_taught(pool, taught, kind):
    wanted = reference(pool, taught[0], 7)
    as_kind = {
        "array": np.asarray,
        "float32": lambda rows: rows.astype(np.float32),
        "frame": pandas.DataFrame,
        "rows": np.ndarray.tolist,
    }[kind]
    strategy = counted(farthest_first)
    learner = ActiveLearner(KNeighborsClassifier(1), strategy, as_kind(taught[0]), taught[1])
    indices, instances, metrics = learner.query(as_kind(pool), n_instances=7, return_metrics=True)
    np.testing.assert_array_equal(indices, wanted.indices)
    np.testing.assert_allclose(metrics, wanted.distances, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(instances), pool[wanted.indices], rtol=1e-6)
    assert strategy.calls == 1


def test_cycles_of_the_librarys_loop_equal_one_traversal(pool, taught):
    learner = ActiveLearner(LogisticRegression(), farthest_first, *taught)
    rest = np.arange(N)
    picked = []
    for _ in range(3):
        indices, instances = learner.query(pool[rest], n_instances=4)
        learner.teach(instances, np.array(list("abab")))
        picked += rest[indices].tolist()
        rest = np.delete(rest, indices)
    assert picked == reference(pool, taught[0], 12).indices.tolist()


@pytest.mark.parametrize("labeled", ["nothing", "no rows"])
def test_nothing_taught(pool, labeled):
    none = np.empty((0, D)) if labeled == "no rows" else None
    learner = ActiveLearner(KNeighborsClassifier(1), farthest_first)
    learner.X_training = none
    indices, _ = learner.query(pool, n_instances=5)
    np.testing.assert_array_equal(indices, reference(pool, None, 5).indices)


def test_on_transformed_measures_after_the_pipeline(pool, taught):
    scaled = StandardScaler().fit(taught[0] * [1, 10, 100, 1000])
    big = pool * [1, 10, 100, 1000]
    learner = ActiveLearner(
        make_pipeline(StandardScaler(), LogisticRegression()),
        farthest_first,
        taught[0] * [1, 10, 100, 1000],
        taught[1],
        on_transformed=True,
    )
    indices, _ = learner.query(big, n_instances=6)
    wanted = reference(scaled.transform(big), scaled.transform(learner.X_training), 6).indices
    np.testing.assert_array_equal(indices, wanted)
    assert indices.tolist() != reference(big, learner.X_training, 6).indices.tolist()


def test_sparse_samples(taught):
    X = sparse.random(N, 30, density=0.3, format="csr", random_state=0)
    learner = ActiveLearner(LogisticRegression(), farthest_first, X[:M], taught[1])
    with pytest.raises(
        TypeError, match=r"X_training must be dense, got csr_matrix.*on_transformed"
    ):
        learner.query(X[M:], n_instances=3)
    pipeline = make_pipeline(TruncatedSVD(5, random_state=0), LogisticRegression())
    learner = ActiveLearner(pipeline, farthest_first, X[:M], taught[1], on_transformed=True)
    indices, _ = learner.query(X[M:], n_instances=3)
    rows = pipeline[:-1].transform(X)
    np.testing.assert_array_equal(indices, reference(rows[M:], rows[:M], 3).indices)


def test_a_committee_is_far_from_what_any_learner_was_taught(pool, taught):
    learners = [
        ActiveLearner(KNeighborsClassifier(1), farthest_first, taught[0][part], taught[1][part])
        for part in (slice(0, 4), slice(2, 6))
    ]
    committee = Committee(learners, query_strategy=farthest_first)
    indices, _ = committee.query(pool, n_instances=5)
    np.testing.assert_array_equal(indices, reference(pool, taught[0], 5).indices)


def test_options(pool, taught):
    strategy = partial(farthest_first, metric="cosine")
    learner = ActiveLearner(KNeighborsClassifier(1), strategy, *taught)
    wanted = reference(pool, taught[0], 5, "cosine").indices
    np.testing.assert_array_equal(learner.query(pool, n_instances=5)[0], wanted)
    embeddings, labeled = pool[:, :2], taught[0][:, :2]
    indices, _ = learner.query(embeddings, n_instances=5, labeled=labeled)
    np.testing.assert_array_equal(indices, reference(embeddings, labeled, 5, "cosine").indices)


def test_more_than_the_pool_has(pool, taught, stats):
    for strategy in (farthest_first, TrackedScore(stats, "margin")):
        learner = ActiveLearner(KNeighborsClassifier(1), strategy, *taught)
        with pytest.raises(ValueError, match="n_instances must be between 0 and the 50 samples"):
            learner.query(pool, n_instances=51)
        assert sorted(learner.query(pool, n_instances=50)[0]) == list(range(N))
        for wrong in (2.0, None, True):
            with pytest.raises(TypeError, match=f"n_instances must be an integer, got {wrong}"):
                learner.query(pool, n_instances=wrong)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(N) / 1, "ids must be positions .*, integers, got float64 numbers"),
        (["a"] * N, "ids must be positions .*, integers, got <U1 numbers"),
        (np.arange(N) - 1, f"ids must be positions .* of {N} samples, got -1 to {N - 2}"),
    ],
    ids=["floats", "texts", "negative"],
)
def test_ids_that_are_no_positions_are_refused(pool, stats, ids, message):
    with pytest.raises(ValueError, match=message):
        TrackedScore(stats, "margin")(None, pool, 2, ids=ids)


def test_tracked_scores_follow_a_shrinking_pool(pool, taught, stats):
    scores = stats.score("margin").numpy().copy()
    strategy = counted(TrackedScore(stats, "margin"))
    learner = ActiveLearner(KNeighborsClassifier(1), strategy, *taught)
    rest = np.arange(N)
    for cycle in range(1, 4):
        indices, _, metrics = learner.query(pool[rest], n_instances=5, return_metrics=True)
        best = rest[(-scores[rest]).argsort()[:5]]
        np.testing.assert_array_equal(rest[indices], best)
        np.testing.assert_array_equal(metrics, scores[best])
        again, _ = learner.query(pool[rest], n_instances=5, ids=rest)
        np.testing.assert_array_equal(again, indices)
        assert strategy.calls == 2 * cycle
        stats.drop(best)
        rest = np.delete(rest, indices)


def test_a_pool_that_is_not_the_trackers_is_refused(pool, taught, stats):
    learner = ActiveLearner(KNeighborsClassifier(1), TrackedScore(stats, "margin"), *taught)
    with pytest.raises(ValueError, match=r"that stats has not dropped, 50 of them, got 49"):
        learner.query(pool[1:], n_instances=2)
    with pytest.raises(ValueError, match=r"that ids names, 3 of them, got 50"):
        learner.query(pool, n_instances=2, ids=[1, 2, 3])
    with pytest.raises(ValueError, match="'cod' is not tracked"):
        TrackedScore(stats, "cod")


def test_badge_draws_from_the_gradients(pool, taught):
    steps = make_pipeline(StandardScaler(), LogisticRegression())
    strategy = partial(badge, generator=torch.Generator().manual_seed(4))
    learner = ActiveLearner(steps, strategy, *taught, on_transformed=True)
    indices, _ = learner.query(pool, n_instances=6)
    want = definition_of_badge(
        steps[:-1].transform(pool),
        steps.predict_proba(pool),
        6,
        generator=torch.Generator().manual_seed(4),
    )
    assert indices.tolist() == want.indices.tolist()
    committee = Committee([ActiveLearner(LogisticRegression(), badge, *taught) for _ in range(2)])
    picks, metrics = badge(committee, pool, 3, embeddings=pool**2)
    assert len(set(picks)) == 3
    assert np.isinf(metrics[0])
    with pytest.raises(ValueError, match="n_instances must be between 0 and the 50"):
        badge(committee, pool, N + 1)
