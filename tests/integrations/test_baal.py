"""baal: its loop labels what its own heuristics on the whole (n, C, T) array would."""

import numpy as np
import pytest
import torch

pytest.importorskip("baal", reason="baal is not installed")

from baal.active import ActiveLearningLoop
from baal.active.dataset import ActiveLearningDataset
from baal.active.heuristics import BALD, CombineHeuristics, Entropy
from baal.bayesian.dropout import MCDropoutModule
from baal.modelwrapper import ModelWrapper, TrainingArgs
from scipy.special import softmax
from torch.utils.data import Subset

from dynal_fast import PoolObservationError, PoolStats, badge, farthest_first
from dynal_fast.integrations.baal import (
    Badge,
    FarthestFirst,
    MonteCarlo,
    TrackedScore,
    _logits_of,
    pool_ids,
)

N, D, C = 30, 6, 4


@pytest.fixture
def dataset():
    inputs = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    samples = [(row, number % C) for number, row in enumerate(inputs)]
    labelled = np.zeros(N, dtype=int)
    labelled[[2, 11, 29]] = 1
    return ActiveLearningDataset(samples, labelled=labelled)


@pytest.fixture
def wrapper():
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(D, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(16, C)
    )
    return ModelWrapper(MCDropoutModule(model), TrainingArgs(batch_size=7, workers=0))


def embed(dataset):
    """The features themselves: what ``get_probabilities`` returns for a core-set."""
    return torch.stack([sample[0] for sample in dataset]) if len(dataset) else []


@pytest.mark.parametrize(
    ("score", "theirs"),
    [("bald", BALD()), ("predictive_entropy", Entropy())],
    ids=["bald", "predictive_entropy"],
)
@pytest.mark.parametrize("bytes_of_a_part", [1, 14 * C * 6 * 4, 1 << 26])
def test_scores_are_those_of_the_librarys_heuristics(
    dataset, wrapper, score, theirs, bytes_of_a_part, monkeypatch
):
    """Of the same seed: batches of 7 in parts of one, of two and of all."""
    monkeypatch.setattr("dynal_fast.integrations.baal.BYTES_OF_A_PART", bytes_of_a_part)
    stats = PoolStats(N, C, track=(score,))
    pool = dataset.pool
    for seed in (0, 1):  # the second cycle forgets the first
        torch.manual_seed(seed)
        ids = MonteCarlo(wrapper, stats)(pool, iterations=6, verbose=False)
        torch.manual_seed(seed)
        predictions = wrapper.predict_on_dataset(pool, 6, verbose=False)
    ranks, scores = TrackedScore(stats, score).get_ranks(ids)
    # Of probabilities: from logits, baal's Entropy takes the softmax of their mean.
    their_ranks, their_scores = theirs.get_ranks(softmax(predictions, axis=1))
    np.testing.assert_allclose(scores, their_scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ranks, their_ranks)


def test_probabilities_are_not_softmaxed_again(dataset, wrapper):
    logits = PoolStats(N, C, track=("predictive_entropy",))
    MonteCarlo(wrapper, logits)(dataset.pool, iterations=1, verbose=False)
    probabilities = PoolStats(N, C, track=("predictive_entropy",))

    class Softmaxed:
        def predict_on_dataset_generator(self, pool, iterations, verbose):
            for batch in wrapper.predict_on_dataset_generator(pool, iterations, verbose=verbose):
                yield torch.softmax(torch.from_numpy(batch), dim=1).numpy()

    for observe, stats in ((wrapper, logits), (Softmaxed(), probabilities)):
        torch.manual_seed(3)
        ids = MonteCarlo(observe, stats)(dataset.pool, iterations=4, verbose=False)
    torch.testing.assert_close(
        probabilities.score("max_entropy")[ids], logits.score("max_entropy")[ids]
    )


@pytest.mark.parametrize("max_sample", [-1, 12])
def test_the_loop_labels_the_highest_scores(dataset, wrapper, max_sample):
    stats = PoolStats(N, C, track=("bald",))
    loop = ActiveLearningLoop(
        dataset,
        MonteCarlo(wrapper, stats),
        TrackedScore(stats, "bald"),
        query_size=5,
        max_sample=max_sample,
        iterations=3,
        verbose=False,
    )
    before = dataset.labelled.copy()
    assert loop.step()
    labeled = (dataset.labelled & ~before).nonzero()[0]
    scores = stats.score("bald").numpy()
    observed = (~np.isnan(scores)).nonzero()[0]
    assert len(observed) == (27 if max_sample == -1 else 12)
    best = observed[(-scores[observed]).argsort()[:5]]
    np.testing.assert_array_equal(labeled, np.sort(best))


def test_scores_of_a_training_need_no_prediction(dataset):
    """Label dispersion was tracked while the model trained; the loop only asks for ids."""
    stats = PoolStats(N, C, track=("label_dispersion",))
    logits = torch.randn(5, N, C, generator=torch.Generator().manual_seed(0))
    for epoch in range(1, 6):
        with stats.observe(epoch, 5):
            stats.update(torch.arange(N), logits[epoch - 1])
    heuristic = TrackedScore(stats, "label_dispersion")
    before = dataset.labelled.copy()
    assert ActiveLearningLoop(dataset, pool_ids, heuristic, query_size=4).step()
    scores = stats.score("label_dispersion").numpy()
    labeled = scores[dataset.labelled & ~before]
    rest = scores[~dataset.labelled]
    assert len(labeled) == 4
    assert labeled.min() >= rest.max()


def test_tied_scores_are_ranked_at_random(dataset):
    stats = PoolStats(N, C, track=("label_dispersion",))
    with stats.observe(1, 1):
        stats.update(torch.arange(N), torch.ones(N, C))
    heuristic = TrackedScore(stats, "label_dispersion", torch.Generator().manual_seed(0))
    first, second = (heuristic(np.arange(N)) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(N))
    assert not np.array_equal(first, second)


def test_ids_in_parts_and_in_combinations(dataset):
    stats = PoolStats(N, C, track=("entropy", "margin"))
    with stats.observe(1, 1):
        stats.update(torch.arange(N), torch.randn(N, C, generator=torch.manual_seed(0)))
    ids = pool_ids(dataset.pool)
    heuristic = TrackedScore(stats, "margin")
    whole = heuristic.get_ranks(ids)
    parts = heuristic.get_ranks(part for part in np.array_split(ids, 4))
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])
    both = CombineHeuristics([TrackedScore(stats, "entropy"), heuristic], weights=[1, 1])
    sums = sum(stats.score(name)[ids] for name in ("entropy", "margin"))
    assert both([ids, ids])[0] == sums.argmax()


def test_pool_ids_follow_subsets(dataset):
    unlabelled = (~dataset.labelled).nonzero()[0]
    np.testing.assert_array_equal(pool_ids(dataset.pool), unlabelled)
    part = Subset(Subset(dataset.pool, [9, 4, 1]), [2, 0])
    np.testing.assert_array_equal(pool_ids(part), unlabelled[[1, 9]])
    for id_, (inputs, _) in zip(pool_ids(part), part, strict=True):
        assert inputs is not None
        torch.testing.assert_close(inputs, dataset._dataset[id_][0])


def test_farthest_first_in_the_loop(dataset):
    inputs = embed(dataset._dataset)
    labeled = dataset.labelled.nonzero()[0]
    wanted = farthest_first(inputs, 4, labeled, backend="reference").indices.numpy()
    before = dataset.labelled.copy()
    loop = ActiveLearningLoop(dataset, embed, FarthestFirst(num_samples=4), query_size=4)
    assert loop.step()
    np.testing.assert_array_equal((dataset.labelled & ~before).nonzero()[0], np.sort(wanted))


def test_farthest_first_ranks_and_scores():
    rng = np.random.default_rng(0)
    pool, labeled = rng.standard_normal((20, 3)), rng.standard_normal((4, 3))
    traversal = farthest_first(pool, 5, labeled)
    for given in (pool, pool[..., None], torch.from_numpy(pool), (p for p in np.split(pool, 4))):
        ranks, scores = FarthestFirst(5).get_ranks(given, labeled)
        np.testing.assert_array_equal(ranks[:5], traversal.indices)
        np.testing.assert_array_equal(np.sort(ranks), np.arange(20))
        np.testing.assert_allclose(scores[ranks[:5]], traversal.distances)
        np.testing.assert_allclose(scores[ranks[5:]], traversal.radius)
    assert (
        list(FarthestFirst(99)(pool, labeled)) == farthest_first(pool, 20, labeled).indices.tolist()
    )


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("nothing", [None, [], np.empty((0, 3))])
def test_farthest_first_where_nothing_is_labeled(k, nothing):
    pool = np.random.default_rng(0).standard_normal((9, 3))
    ranks, scores = FarthestFirst(k).get_ranks(pool, nothing)
    np.testing.assert_array_equal(ranks[:k], farthest_first(pool, k).indices)
    assert k == 0 or np.isfinite(scores).all()


def test_what_cannot_be_ranked_is_named(dataset, wrapper):
    stats = PoolStats(N, C, track=("bald",))
    heuristic = TrackedScore(stats, "bald")
    with pytest.raises(
        ValueError, match=r"needs the ids .* got \(5, 4, 2\) float64: pass pool_ids"
    ):
        heuristic(np.zeros((5, C, 2)))
    with pytest.raises(ValueError, match="27 candidates have no 'bald'"):
        heuristic(pool_ids(dataset.pool))
    with pytest.raises(ValueError, match="'entropy' is not tracked"):
        TrackedScore(stats, "entropy")
    with pytest.raises(TypeError, match="stats must be a PoolStats"):
        MonteCarlo(wrapper, "stats")
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        MonteCarlo(wrapper, stats)(dataset.pool, iterations=0)
    for kind in (FarthestFirst, Badge):
        with pytest.raises(TypeError, match="num_samples must be an integer, got None"):
            kind(None)
        with pytest.raises(ValueError, match="num_samples must be at least 0, got -1"):
            kind(-1)


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        (np.zeros((5, C, 8, 8, 1)), ValueError, r"must return \(batch, C\) logits"),
        (np.full((27, C, 1), np.nan), PoolObservationError, "27 samples"),
    ],
)
def test_outputs_that_cannot_be_tracked_are_named(dataset, outputs, error, message):
    class Wrapper:
        def predict_on_dataset_generator(self, pool, iterations):
            yield outputs

    with pytest.raises(error, match=message):
        MonteCarlo(Wrapper(), PoolStats(N, C, track=("bald",)))(dataset.pool, iterations=2)


def test_probabilities_in_half_precision_are_probabilities_in_every_batch():
    outputs = softmax(np.random.default_rng(0).normal(size=(500, 7)), axis=1).astype(np.float16)
    for rows in np.array_split(outputs, 250):
        logits = _logits_of(rows)
        np.testing.assert_allclose(np.exp(logits), rows, rtol=1e-3)


def test_a_tracker_of_sigmoids_is_refused(wrapper):
    with pytest.raises(ValueError, match="stats must have activation='softmax'"):
        MonteCarlo(wrapper, PoolStats(4, 3, track=("bald",), activation="sigmoid"))


def test_badge_labels_what_is_drawn(dataset):
    def predict(pool, **options):
        inputs = torch.stack([pool[i][0] for i in range(len(pool))])
        return inputs.numpy(), inputs[:, :C].softmax(1).numpy()

    want = badge(*predict(dataset.pool), 5, generator=torch.Generator().manual_seed(6))
    ids = pool_ids(dataset.pool)[want.indices.numpy()]
    heuristic = Badge(5, torch.Generator().manual_seed(6))
    ranks, scores = heuristic.get_ranks(predict(dataset.pool))
    assert ranks[:5].tolist() == want.indices.tolist()
    assert sorted(ranks) == list(range(len(dataset.pool)))
    assert scores.sum() == 5
    heuristic = Badge(5, torch.Generator().manual_seed(6))
    before = dataset.labelled.copy()
    assert ActiveLearningLoop(dataset, predict, heuristic, 5).step()
    assert sorted(np.flatnonzero(dataset.labelled != before)) == sorted(ids)
    with pytest.raises(ValueError, match="predictions must be a pair"):
        heuristic.get_ranks(np.zeros((3, 2)))
