"""small-text: the picks are those of its own ``GreedyCoreset``, as indices into the data set."""

import numpy as np
import pytest
import torch

pytest.importorskip("small_text", reason="small-text is not installed")

from scipy.sparse import csr_matrix
from small_text import (
    ConfidenceEnhancedLinearSVC,
    EmptyPoolException,
    GreedyCoreset,
    PoolBasedActiveLearner,
    PoolExhaustedException,
    SklearnClassifierFactory,
    SklearnDataset,
    SubsamplingQueryStrategy,
)

from dynal_fast import PoolStats, badge, farthest_first
from dynal_fast.integrations.small_text import Badge, FarthestFirst, TrackedScore

N, D = 60, 8
LABELED = np.array([40, 3, 17, 59])
UNLABELED = np.array([i for i in range(N) if i not in LABELED])
Y = np.array([0, 1, 0, 1])


class Embedder:
    """A classifier that knows the embeddings of the samples by their positions."""

    def __init__(self, embeddings, with_proba=True):
        self.embeddings, self.with_proba = embeddings, with_proba

    def embed(self, dataset, return_proba=False, pbar="tqdm", layer=0):
        rows = self.embeddings[dataset.x[:, 0].astype(int)] + layer
        return (rows, np.full((len(rows), 2), 0.5)) if return_proba else rows


class PlainEmbedder(Embedder):
    def embed(self, dataset, pbar="tqdm"):
        return self.embeddings[dataset.x[:, 0].astype(int)]


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def dataset():
    return SklearnDataset(
        np.arange(N, dtype=float)[:, None], np.zeros(N, dtype=int), target_labels=np.arange(2)
    )


@pytest.fixture
def stats():
    stats = PoolStats(N, 3, track=("margin",))
    with stats.observe(1, 1):
        logits = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
        stats.update(torch.arange(N), logits)
    return stats


def truth(embeddings, unlabeled, labeled, n, normalize, metric):
    """The float64 reference on the unlabeled rows, in their order."""
    rows = embeddings.astype(np.float64)
    if normalize:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    picks = farthest_first(
        rows[unlabeled], n, rows[labeled], metric=metric, backend="reference"
    ).indices
    return unlabeled[picks.numpy()]


@pytest.mark.filterwarnings("ignore:Default distance metric", "ignore:invalid value encountered")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("embedder", [Embedder, PlainEmbedder])
def test_picks_are_those_of_greedy_coreset(embeddings, dataset, metric, normalize, embedder):
    clf = embedder(embeddings.astype(np.float64))
    given = (clf, dataset, UNLABELED, LABELED, Y)
    theirs = GreedyCoreset(distance_metric=metric, normalize=normalize).query(*given, n=12)
    ours = FarthestFirst(distance_metric=metric, normalize=normalize).query(*given, n=12)
    np.testing.assert_array_equal(ours, theirs)
    wanted = truth(embeddings, UNLABELED, LABELED, 12, normalize, metric)
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("order", ["ascending", "shuffled", "some are ignored"])
def test_given_embeddings_have_the_order_of_the_data_set(embeddings, dataset, order):
    """small-text 1.4 takes their rows for the unlabeled, then the labeled samples."""
    unlabeled = {
        "ascending": UNLABELED,
        "shuffled": np.random.default_rng(1).permutation(UNLABELED),
        "some are ignored": UNLABELED[5:],
    }[order]
    wanted = truth(embeddings, unlabeled, LABELED, 9, False, "euclidean")
    given = (None, dataset, unlabeled, LABELED, Y)
    strategy = FarthestFirst(normalize=False)
    np.testing.assert_array_equal(strategy.query(*given, n=9, embeddings=embeddings), wanted)
    if order == "some are ignored":
        used = embeddings[np.concatenate([unlabeled, LABELED])]
        np.testing.assert_array_equal(strategy.query(*given, n=9, embeddings=used), wanted)
        with pytest.raises(ValueError, match=r"each of the 60 samples.*or for each of the 55"):
            strategy.query(*given, n=9, embeddings=embeddings[:50])


def test_labeled_and_ignored_samples_are_never_picked(embeddings, dataset):
    unlabeled = np.array([50, 4, 9, 33, 12])
    strategy = FarthestFirst(normalize=False)
    picks = strategy.query(None, dataset, unlabeled, LABELED, Y, n=4, embeddings=embeddings)
    np.testing.assert_array_equal(
        picks, truth(embeddings, unlabeled, LABELED, 4, False, "euclidean")
    )


def test_embed_kwargs_reach_the_classifier(embeddings, dataset):
    given = (Embedder(embeddings), dataset, UNLABELED, LABELED, Y)
    strategy = FarthestFirst()
    shifted = strategy.query(*given, n=5, embed_kwargs={"layer": 3})
    wanted = truth(embeddings + 3, UNLABELED, LABELED, 5, True, "euclidean")
    np.testing.assert_array_equal(shifted, wanted)


def test_nothing_labeled_begins_with_the_first_unlabeled_sample(embeddings, dataset):
    nobody = np.empty(0, dtype=int)
    picks = FarthestFirst(normalize=False).query(
        None, dataset, np.arange(N), nobody, nobody, n=4, embeddings=embeddings
    )
    np.testing.assert_array_equal(picks, farthest_first(embeddings, 4, backend="reference").indices)


@pytest.mark.parametrize("kind", ["farthest first", "tracked"])
def test_pools_that_are_too_small(embeddings, dataset, stats, kind):
    strategy = FarthestFirst() if kind == "farthest first" else TrackedScore(stats, "margin")
    given = {"embeddings": embeddings} if kind == "farthest first" else {}
    with pytest.raises(EmptyPoolException):
        strategy.query(None, dataset, [], np.arange(N), np.zeros(N), n=1, **given)
    with pytest.raises(PoolExhaustedException, match="56 available / 57 requested"):
        strategy.query(None, dataset, UNLABELED, LABELED, Y, n=57, **given)
    rest = strategy.query(None, dataset, UNLABELED, LABELED, Y, n=56, **given)
    assert sorted(rest) == list(UNLABELED)


@pytest.mark.parametrize(
    ("cast", "message"),
    [
        (lambda ids: np.isin(np.arange(N), ids), r"got a mask: pass np.flatnonzero\(indices_un"),
        (lambda ids: ids + 0.5, "indices_unlabeled must be positions .*, got float64 numbers"),
        (lambda ids: ids - 1, "indices_unlabeled must be positions .* of 60 samples, got -1 to 57"),
        (lambda ids: ids + 2, "indices_unlabeled must be positions .* of 60 samples, got 2 to 60"),
        (lambda ids: np.append(ids, ids[:2]), "must .*(once, got 2|distinct, got 0, 1) repeatedly"),
    ],
    ids=["mask", "floats", "negative", "beyond", "twice"],
)
@pytest.mark.parametrize("kind", ["farthest first", "badge", "tracked"])
def test_indices_that_are_no_positions_are_refused(embeddings, dataset, stats, kind, cast, message):
    strategy = {"farthest first": FarthestFirst(), "badge": Badge()}.get(kind)
    given = {"embeddings": embeddings} if strategy else {}
    clf = Embedder(embeddings)
    with pytest.raises(ValueError, match=message):
        (strategy or TrackedScore(stats, "margin")).query(
            clf, dataset, cast(UNLABELED), LABELED, Y, n=2, **given
        )


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, "n must be at least 0, got -1"),
        (2.0, TypeError, "n must be an integer, got 2.0"),
        (None, TypeError, "n must be an integer, got None"),
    ],
)
@pytest.mark.parametrize("kind", ["farthest first", "tracked"])
def test_numbers_of_picks_that_are_none(embeddings, dataset, stats, kind, n, error, message):
    strategy = FarthestFirst() if kind == "farthest first" else TrackedScore(stats, "margin")
    given = {"embeddings": embeddings} if kind == "farthest first" else {}
    with pytest.raises(error, match=message):
        strategy.query(None, dataset, UNLABELED, LABELED, Y, n=n, **given)


def test_sparse_features_and_embeddings_of_half_precision(embeddings, dataset, stats):
    """What a learner on TF-IDF features has: they are no embeddings, and scores need none."""
    sparse = csr_matrix(np.abs(embeddings))
    texts = SklearnDataset(sparse, np.zeros(N, dtype=int), target_labels=np.arange(2))
    query = UNLABELED, LABELED, Y, 5
    with pytest.raises(TypeError, match="embeddings must be dense, got csr_matrix: pass"):
        FarthestFirst().query(None, texts, *query, embeddings=texts.x)
    with pytest.raises(TypeError, match="embeddings must be dense, got csr_matrix: pass"):
        FarthestFirst().query(None, sparse, *query)
    with pytest.raises(
        TypeError, match=r"embeddings must be given, as clf, a Confidence.* no meth"
    ):
        FarthestFirst().query(ConfidenceEnhancedLinearSVC(), texts, *query)
    with pytest.raises(ValueError, match=r"embeddings must have shape .*, got \(60,\)"):
        FarthestFirst().query(None, dataset, *query, embeddings=embeddings[:, 0])
    picks = TrackedScore(stats, "margin").query(None, sparse, *query)
    np.testing.assert_array_equal(picks, stats.select("margin", 5, torch.from_numpy(UNLABELED)))
    half = torch.from_numpy(embeddings).bfloat16().requires_grad_()
    np.testing.assert_array_equal(
        FarthestFirst().query(None, dataset, *query, embeddings=half),
        truth(half.detach().float().numpy(), UNLABELED, LABELED, 5, True, "euclidean"),
    )


def test_multi_label(embeddings, dataset, stats):
    y = csr_matrix(np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]]))
    given = (None, dataset, UNLABELED, LABELED)
    for strategy, extra in (
        (FarthestFirst(), {"embeddings": embeddings}),
        (TrackedScore(stats, "margin"), {}),
    ):
        np.testing.assert_array_equal(
            strategy.query(*given, y, n=5, **extra), strategy.query(*given, Y, n=5, **extra)
        )


def test_tracked_scores_are_indices_into_the_data_set(dataset, stats):
    strategy = TrackedScore(stats, "margin")
    assert strategy.scores_ is None
    picks = strategy.query(None, dataset, UNLABELED, LABELED, Y, n=7)
    scores = stats.score("margin").numpy()
    np.testing.assert_array_equal(picks, UNLABELED[(-scores[UNLABELED]).argsort()[:7]])
    np.testing.assert_array_equal(strategy.scores_, scores)


def test_a_part_of_the_tracked_data_set_is_refused(dataset, stats):
    strategy = SubsamplingQueryStrategy(TrackedScore(stats, "margin"), subsample_size=20)
    with pytest.raises(ValueError, match=r"dataset must have the 60 samples.*got 24"):
        strategy.query(None, dataset, UNLABELED, LABELED, Y, n=5)
    with pytest.raises(ValueError, match="'cod' is not tracked"):
        TrackedScore(stats, "cod")


def test_a_metric_that_does_not_exist():
    with pytest.raises(ValueError, match="Invalid distance metric: manhattan"):
        FarthestFirst(distance_metric="manhattan")
    text = str(FarthestFirst("cosine", normalize=False))
    assert text == "FarthestFirst(distance_metric=cosine, normalize=False)"


@pytest.mark.parametrize("way", ["embeddings", "representation", "tracked"])
def test_in_an_active_learner(embeddings, stats, way):
    """Two cycles of the library's own learner; each sample is picked once."""
    features = csr_matrix(np.random.default_rng(3).random((N, 5)))
    dataset = SklearnDataset(features, np.arange(N) % 2, target_labels=np.arange(2))
    strategy = TrackedScore(stats, "margin") if way == "tracked" else FarthestFirst()
    factory = SklearnClassifierFactory(ConfidenceEnhancedLinearSVC(), 2)
    learner = PoolBasedActiveLearner(factory, strategy, dataset)
    labeled = np.arange(4)
    learner.initialize_data(labeled, labeled % 2)
    given = {
        "embeddings": {"query_strategy_kwargs": {"embeddings": embeddings}},
        "representation": {"representation": embeddings},
        "tracked": {},
    }[way]
    for _ in range(2):
        unlabeled = np.setdiff1d(np.arange(N), labeled)
        picks = learner.query(num_samples=6, **given)
        if way == "tracked":
            wanted = unlabeled[(-stats.score("margin").numpy()[unlabeled]).argsort()[:6]]
        else:
            wanted = truth(embeddings, unlabeled, labeled, 6, True, "euclidean")
        np.testing.assert_array_equal(picks, wanted)
        learner.update(picks % 2)
        labeled = np.concatenate([labeled, picks])


@pytest.mark.parametrize("given", [None, "data set", "used"])
def test_badge_draws_from_gradients_of_the_unlabeled(embeddings, dataset, given):
    class Classifier(Embedder):
        def embed(self, dataset, return_proba=False, pbar="tqdm"):
            rows = super().embed(dataset)
            return (rows, self.predict_proba(dataset)) if return_proba else rows

        def predict_proba(self, dataset):
            logits = self.embeddings[dataset.x[:, 0].astype(int), :3]
            return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    clf, unlabeled = Classifier(embeddings), UNLABELED[:40]
    rows = {
        "data set": embeddings,
        "used": embeddings[np.concatenate([unlabeled, LABELED])],
        None: None,
    }[given]
    generator = torch.Generator().manual_seed(2)
    picks = Badge(generator).query(clf, dataset, unlabeled, LABELED, Y, n=7, embeddings=rows)
    want = badge(
        embeddings[unlabeled],
        clf.predict_proba(dataset[unlabeled]),
        7,
        generator=torch.Generator().manual_seed(2),
    )
    assert picks.tolist() == unlabeled[want.indices.numpy()].tolist()
