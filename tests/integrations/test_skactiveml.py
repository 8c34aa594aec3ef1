"""scikit-activeml: the picks are those of its own ``CoreSet``, or of the float64 definition."""

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("skactiveml", reason="scikit-activeml is not installed")

from skactiveml.classifier import SklearnClassifier
from skactiveml.exceptions import MappingError
from skactiveml.pool import Badge as TheirBadge
from skactiveml.pool import CoreSet, SubSamplingWrapper
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from dynal_fast import PoolStats, badge, farthest_first
from dynal_fast.integrations.skactiveml import Badge, FarthestFirst, TrackedScore

N = 120


@pytest.fixture(scope="module", name="X")
def features():
    return np.random.default_rng(0).standard_normal((N, 9))


def labels(count, missing=np.nan, label=1.0, dtype=float):
    y = np.full(N, missing, dtype=dtype)
    y[np.random.default_rng(1).permutation(N)[:count]] = label
    return y


@pytest.fixture
def stats():
    stats = PoolStats(N, 3, track=("margin", "label_dispersion"))
    with stats.observe(1, 1):
        logits = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
        stats.update(torch.arange(N), logits)
    return stats


@pytest.mark.parametrize("labeled", [0, 1, 30, N - 5])
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("kind", ["all", "indices", "features"])
def test_picks_and_utilities_are_those_of_core_set(X, labeled, batch_size, kind):
    y = labels(labeled)
    unlabeled = np.isnan(y).nonzero()[0]
    candidates = {
        "all": None,
        "indices": unlabeled[::-1][: max(5, len(unlabeled) // 2)],
        "features": np.random.default_rng(2).standard_normal((40, 9)),
    }[kind]
    given = {"candidates": candidates, "batch_size": batch_size, "return_utilities": True}
    theirs, their_utilities = CoreSet(random_state=3).query(X, y, **given)
    ours, utilities = FarthestFirst(random_state=3).query(X, y, **given)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(utilities, their_utilities, rtol=1e-6)
    alone = FarthestFirst(random_state=3).query(X, y, candidates, batch_size)
    np.testing.assert_array_equal(alone, ours)


def test_duplicates_are_picked_last_and_once(X):
    """CoreSet forgets its distances once all of them are 0, and draws among ties."""
    twice = np.concatenate([X[:10], X[:10]])
    y = np.full(20, np.nan)
    y[0] = 0
    picks = FarthestFirst().query(twice, y, batch_size=19)
    assert sorted(picks) == list(range(1, 20))
    np.testing.assert_array_equal(
        picks, farthest_first(twice, 19, labeled=[0], backend="reference").indices
    )


@pytest.mark.parametrize(
    ("missing", "label", "dtype"),
    [(None, "cat", object), ("", "cat", "U3"), (-1, 2, int), (np.nan, 2.0, float)],
)
def test_missing_labels_of_all_kinds(X, missing, label, dtype):
    y = labels(10, missing, label, dtype)
    expected = farthest_first(X, 4, labeled=~np.isnan(labels(10))).indices
    picks = FarthestFirst(missing_label=missing).query(X, y, batch_size=4)
    np.testing.assert_array_equal(picks, expected)


def test_labeled_samples_are_never_picked(X):
    y = labels(100)
    with pytest.warns(UserWarning, match="batch_size=50 is larger than the 20 candidates"):
        picks = FarthestFirst().query(X, y, candidates=np.arange(N), batch_size=50)
    assert sorted(picks) == list(np.isnan(y).nonzero()[0])


@pytest.mark.parametrize("strategy", ["farthest_first", "tracked"])
def test_nothing_is_left_to_label(X, stats, strategy):
    strategy = FarthestFirst() if strategy == "farthest_first" else TrackedScore(stats, "margin")
    with pytest.warns(UserWarning, match="batch_size"):
        picks, utilities = strategy.query(X, labels(N), batch_size=3, return_utilities=True)
    assert (picks.shape, utilities.shape) == ((0,), (0, N))


def test_a_batch_larger_than_the_pool_is_cut(X):
    with pytest.warns(UserWarning, match="larger than number of candidates"):
        picks = FarthestFirst(random_state=0).query(X, labels(0), batch_size=N + 1)
    assert sorted(picks) == list(range(N))


def test_random_state_draws_the_first_pick_only_where_nothing_is_labeled(X):
    firsts = {int(FarthestFirst(random_state=seed).query(X, labels(0))[0]) for seed in range(8)}
    assert len(firsts) > 3
    state = np.random.RandomState(5)
    strategy = FarthestFirst(random_state=state)
    np.testing.assert_array_equal(strategy.query(X, labels(0)), strategy.query(X, labels(0)))


def test_features_as_lists_and_integers_and_float32(X):
    whole = (10 * X).round()
    y = labels(10)
    expected = FarthestFirst().query(whole, y, batch_size=5)
    for same in (whole.tolist(), whole.astype(int), whole.astype(np.float32)):
        np.testing.assert_array_equal(FarthestFirst().query(same, list(y), batch_size=5), expected)


def test_what_cannot_be_taken_is_named(X):
    sparse = pytest.importorskip("scipy.sparse")
    y = labels(5)
    one_hot = np.eye(3)[np.zeros(N, dtype=int)]
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        FarthestFirst().query(sparse.csr_matrix(X), y)
    with pytest.raises(ValueError, match=r"y should be a 1d array, got an array of shape \(120, 3"):
        FarthestFirst().query(X, one_hot)
    with pytest.raises(ValueError, match="dim 3"):
        FarthestFirst().query(X.reshape(N, 3, 3), y)
    with pytest.raises(ValueError, match="NaN"):
        FarthestFirst().query(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match=r"candidates must be positions in X, .* got -121"):
        FarthestFirst().query(X, y, candidates=[7, -121])
    with pytest.raises(TypeError, match="batch_size must be an integer, got True"):
        FarthestFirst().query(X, y, batch_size=True)
    with pytest.raises(ValueError, match="metric must be"):
        FarthestFirst(metric="manhattan").query(X, y)


def test_cosine(X):
    y = labels(10)
    picks, utilities = FarthestFirst(metric="cosine").query(X, y, None, 4, return_utilities=True)
    assert list(picks) == farthest_first(X, 4, ~np.isnan(y), metric="cosine").indices.tolist()
    np.testing.assert_array_equal(np.nanargmax(utilities, axis=1), picks)


def test_tracked_scores_are_ranked(X, stats):
    y = labels(40)
    unlabeled = np.isnan(y)
    scores = stats.score("margin").numpy().astype(float)
    picks, utilities = TrackedScore(stats, "margin").query(
        X, y, batch_size=3, return_utilities=True
    )
    np.testing.assert_array_equal(picks, np.where(unlabeled, -scores, np.inf).argsort()[:3])
    first = np.where(unlabeled, scores, np.nan)
    np.testing.assert_array_equal(utilities[0], first)
    first[picks[:2]] = np.nan
    np.testing.assert_array_equal(utilities[2], first)
    chosen = TrackedScore(stats, "margin").query(X, y, candidates=[7, 3, 9])
    assert chosen == [max((3, 7, 9), key=lambda sample: scores[sample])]


def test_ties_of_scores_follow_random_state(X):
    stats = PoolStats(N, 3, track=("label_dispersion",))
    with stats.observe(1, 1):
        stats.update(torch.arange(N), torch.ones(N, 3))

    def picks(seed):
        strategy = TrackedScore(stats, "label_dispersion", random_state=seed)
        return tuple(strategy.query(X, labels(0), batch_size=5))

    assert picks(0) == picks(0)
    assert len({picks(seed) for seed in range(5)}) == 5


def test_a_tracker_of_other_samples_is_refused(X, stats):
    with pytest.raises(ValueError, match=r"X must have the 120 samples that stats tracks.*got 119"):
        TrackedScore(stats, "margin").query(X[1:], labels(0)[1:])
    with pytest.raises(MappingError):
        TrackedScore(stats, "margin").query(X, labels(0), candidates=X[:3])
    with pytest.raises(ValueError, match="'cod' is not tracked"):
        TrackedScore(stats, "cod").query(X, labels(0))
    with pytest.raises(TypeError, match="stats must be a PoolStats, got str"):
        TrackedScore("stats", "margin").query(X, labels(0))
    empty = PoolStats(N, 3, track=("margin",))
    with pytest.raises(ValueError, match="no 'margin'"):
        TrackedScore(empty, "margin").query(X, labels(0))


def test_clones_share_the_tracker(X, stats):
    strategy = TrackedScore(stats, "margin", random_state=1)
    assert clone(strategy).stats is stats
    assert clone(strategy).get_params(deep=False) == strategy.get_params(deep=False)


def test_inside_the_librarys_wrapper(X):
    y = labels(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        picks = [
            SubSamplingWrapper(query_strategy=strategy, max_candidates=30, random_state=0).query(
                X, y, batch_size=4
            )
            for strategy in (FarthestFirst(random_state=0), CoreSet(random_state=0))
        ]
    np.testing.assert_array_equal(*picks)


def test_a_mask_is_no_list_of_candidates(X, stats):
    y = np.full(len(X), np.nan)
    for strategy in (FarthestFirst(), TrackedScore(stats, "margin")):
        with pytest.raises(
            ValueError, match="candidates must be positions or features, got a mask"
        ):
            strategy.query(X, y, candidates=np.arange(len(X)) > 2)


@pytest.mark.parametrize("kind", ["all", "indices", "features"])
def test_badge_draws_among_the_candidates(X, kind):
    y = labels(12)
    y[np.flatnonzero(~np.isnan(y))[:6]] = 0
    clf = SklearnClassifier(LogisticRegression(), classes=[0, 1, 2])
    unlabeled = np.isnan(y).nonzero()[0]
    chosen = {"all": None, "indices": unlabeled[::-2], "features": X[unlabeled[:20]]}[kind]
    rows = {"all": unlabeled, "indices": np.sort(unlabeled[::-2]), "features": np.arange(20)}[kind]
    features = X[unlabeled[:20]] if kind == "features" else X[rows]
    got, utilities = Badge(random_state=3).query(
        X, y, clf, candidates=chosen, batch_size=5, return_utilities=True
    )
    assert np.array_equal(
        got, Badge(random_state=3).query(X, y, clf, candidates=chosen, batch_size=5)
    )
    probabilities = clone(clf).fit(X, y).predict_proba(features)
    q = probabilities - np.eye(3)[probabilities.argmax(1)]
    gradients = (q[:, :, None] * features[:, None]).reshape(len(features), -1)
    assert got[0] == rows[(gradients**2).sum(1).argmax()]
    assert set(got) <= set(rows)
    assert len(set(got)) == 5
    known = np.searchsorted(rows, got)
    nearest = ((gradients[:, None] - gradients[known[:4]]) ** 2).sum(2).min(1)
    want = nearest / nearest.sum()
    free = ~np.isin(rows, got[:4])
    np.testing.assert_allclose(utilities[4, rows[free]], want[free], rtol=1e-9, atol=1e-12)
    assert np.isnan(utilities[4, got[:4]]).all()
    assert utilities.shape == (5, 20 if kind == "features" else N)
    with pytest.warns(UserWarning, match="batch_size=3"):
        assert len(Badge().query(X, y, clf, candidates=unlabeled[:3], batch_size=5)) == 3
    theirs = TheirBadge(random_state=3).query(X, y, clf, candidates=chosen, batch_size=5)
    assert len(theirs) == len(got)


def test_badge_takes_the_embeddings_of_the_classifier(X):
    class Embeds(SklearnClassifier):
        def predict_proba(self, X, embeds=False):
            proba = super().predict_proba(X)
            return (proba, X[:, :4] ** 2) if embeds else proba

    y = labels(12)
    y[np.flatnonzero(~np.isnan(y))[:6]] = 0
    clf = Embeds(LogisticRegression(), classes=[0, 1]).fit(X, y)
    got = Badge("embeds", random_state=1).query(X, y, clf, fit_clf=False, batch_size=4)
    unlabeled = np.isnan(y).nonzero()[0]
    seed = int(np.random.RandomState(1).randint(2**31 - 1))
    drawn = badge(
        X[unlabeled, :4] ** 2,
        clf.predict_proba(X[unlabeled]),
        4,
        generator=torch.Generator().manual_seed(seed),
    )
    assert got[0] == unlabeled[drawn.indices[0]]
    assert len(set(got)) == 4
