"""Strategies made of several parts, each against a plain transcription of its definition."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training
from dynal_fast.pool.discrepancy import model_discrepancy, temporal_output_discrepancy
from dynal_fast.pool.formulas import vote_entropy
from dynal_fast.strategies.committee import committee_stats
from dynal_fast.strategies.hybrid import diversified, stratified_farthest_first
from dynal_fast.strategies.registry import SelectionContext, Strategy, get_strategy
from tests.cases.experiment import PROTOCOL, TRAINING, blobs

pytestmark = pytest.mark.usefixtures("one_thread")


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_vote_entropy_is_that_of_the_votes():
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 4, size=(50, 7))
    counts = np.stack([(votes == c).sum(1) for c in range(4)], 1)
    expected = [-sum(v / 7 * math.log(v / 7) for v in row if v) for row in counts.tolist()]
    got = vote_entropy(torch.from_numpy(counts).to(torch.uint8))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_committee_streams_into_vote_entropy_and_divergence_from_the_consensus():
    torch.manual_seed(0)
    committee = [nn.Linear(3, 4) for _ in range(5)]
    inputs = 3 * torch.randn(20, 3)
    ids = torch.arange(20).split(6)
    stats = committee_stats(committee, lambda: ((i, inputs[i]) for i in ids), 21, 4)
    with torch.no_grad():
        p = softmax(np.stack([member(inputs).double().numpy() for member in committee]))
    consensus = p.mean(0)
    divergence = (p * np.log(p / consensus)).sum(2).mean(0)
    np.testing.assert_allclose(stats.score("consensus_kl")[:20], divergence, atol=2e-6)
    counts = np.stack([(p.argmax(2) == c).sum(0) for c in range(4)], 1) / 5
    logs = np.log(counts, where=counts > 0, out=np.zeros_like(counts))
    np.testing.assert_allclose(stats.score("vote_entropy")[:20], -(counts * logs).sum(1), atol=1e-6)
    assert stats.score("vote_entropy")[20].isnan()
    with pytest.raises(ValueError, match="at least one member"):
        committee_stats([], lambda: [], 3, 4)


def test_temporal_output_discrepancy_between_any_two_steps():
    rng = np.random.default_rng(1)
    now, before = rng.normal(size=(2, 30, 5))
    expected = np.sqrt(((softmax(now) - softmax(before)) ** 2).sum(1))
    got = temporal_output_discrepancy(torch.from_numpy(now), torch.from_numpy(before))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="of one shape"):
        temporal_output_discrepancy(torch.zeros(2, 3), torch.zeros(2, 4))


def test_cod_by_stored_outputs_and_by_the_stored_model_agree():
    data = blobs()
    seen = []

    def compare(context: SelectionContext):
        previous = seen[-1] if seen else None
        if previous is not None:
            ids, scores = model_discrepancy(
                context.model, previous, context.batches(context.candidates)
            )
            torch.testing.assert_close(context.stats.score("cod")[ids], scores, atol=1e-6, rtol=0)
            assert scores.max() > 1e-3
        seen.append(copy.deepcopy(context.model))
        return context.stats.select("cod", context.budget, candidates=context.candidates)

    strategy = Strategy("compare", compare, tracks=("cod",))
    ActiveLearningExperiment(data, "mlp", strategy, protocol=PROTOCOL, training=TRAINING).run()
    assert len(seen) == PROTOCOL.cycles


def test_the_first_cycle_of_cod_compares_with_the_initial_model():
    experiment = ActiveLearningExperiment(
        blobs(), "mlp", "cod", protocol=Protocol(initial=12, budget=6, cycles=1), training=TRAINING
    )
    initial = experiment.initial_model()

    def compare(context):
        ids, scores = model_discrepancy(context.model, initial, context.batches(context.candidates))
        torch.testing.assert_close(context.stats.score("cod")[ids], scores, atol=1e-6, rtol=0)
        return context.candidates[: context.budget]

    experiment.strategy = Strategy("compare", compare, tracks=("cod",))
    experiment.run()


def test_tod_code_takes_the_lowest_at_first_and_the_highest_later():
    experiment = ActiveLearningExperiment(
        blobs(), "mlp", "tod_code", protocol=PROTOCOL, training=TRAINING
    )
    stranger = experiment.initial_model("independent model")
    previous = [stranger]
    select = get_strategy("tod_code").select

    def compare(context):
        picks = select(context)
        model = context.model
        with torch.no_grad():
            now, before = (
                torch.cat([m.eval()(x) for _, x in context.batches(context.candidates)])
                for m in (model, previous[-1])
            )
        p, q = softmax(now.double().numpy()), softmax(before.double().numpy())
        scores = 0.5 * ((p - q) ** 2).sum(1)
        order = np.argsort(scores if context.cycle == 0 else -scores)[: context.budget]
        assert picks.tolist() == context.candidates[torch.from_numpy(order)].tolist()
        previous.append(copy.deepcopy(model))
        return picks

    experiment.strategy = type(experiment.strategy)(
        "compare", compare, tracks=("cod",), needs=("independent_model",)
    )
    experiment.run()
    assert len(previous) == 1 + PROTOCOL.cycles


def test_emaod_compares_with_the_average_of_the_weights():
    """One epoch of one step, so that the average is 0.75 of the initial and 0.25 of the last."""
    training = Training(epochs=1, batch_size=16, learning_rate=0.05, ema_alpha=0.75)
    experiment = ActiveLearningExperiment(
        blobs(), "mlp", "emaod",
        protocol=Protocol(initial=12, budget=6, cycles=1), training=training,
    )  # fmt: skip
    average = experiment.initial_model()

    def compare(context):
        with torch.no_grad():
            for mean, last in zip(average.parameters(), context.model.parameters(), strict=True):
                mean.copy_(0.75 * mean + 0.25 * last)
        ids, expected = model_discrepancy(
            context.model, average, context.batches(context.candidates)
        )
        torch.testing.assert_close(context.stats.score("emaod")[ids], expected, atol=1e-6, rtol=0)
        assert expected.max() > 1e-3
        return context.candidates[: context.budget]

    experiment.strategy = Strategy("compare", compare, tracks=("emaod",))
    experiment.run()


def test_hybrid_shortlists_by_score_and_picks_farthest_first():
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 0.0])
    embeddings = torch.tensor([[0.0], [1.0], [2.0], [5.0], [50.0], [99.0], [0.0]])

    class Stats:
        def select(self, name, b, candidates, generator):
            assert name == "entropy"
            return candidates[scores[candidates].argsort(descending=True)[:b]]

    def picks(shortlist):
        hybrid = get_strategy("entropy+farthest_first").with_options({"shortlist": shortlist})
        return hybrid.select(SelectionContext(
            candidates=torch.arange(6), labeled=torch.tensor([6]),
            labeled_targets=torch.tensor([0]), budget=2, generator=torch.Generator(), cycle=0,
            model=nn.Identity(), strategy=hybrid, batches=lambda ids: [], tracked=Stats(),
            embedder=lambda ids: embeddings[ids],
        )).tolist()  # fmt: skip

    assert picks(2) == [3, 2]
    assert sorted(picks(1)) == [0, 1]
    assert picks(1e9) == [5, 4]
    with pytest.raises(ValueError, match=r"entropy\+farthest_first.shortlist must be at least 1"):
        picks(0.5)


@pytest.mark.parametrize(
    "name", ["bald", "mean_std", "query_by_committee", "label_dispersion", "vaal", "random"]
)
def test_any_strategy_can_shortlist(name):
    base, hybrid = get_strategy(name), get_strategy(f"{name}+k_center_greedy")
    seen = []

    def shortlist(context):
        ids = base.select(dataclasses.replace(context, budget=2 * context.budget))
        seen.append((ids, context.embeddings(ids), context.embeddings(context.labeled)))
        return ids[: context.budget]

    def first_picks(strategy):
        experiment = ActiveLearningExperiment(
            blobs(60, 30), "mlp", strategy, protocol=PROTOCOL, training=TRAINING
        )
        return experiment.run().cycles[0].selected

    first_picks(dataclasses.replace(hybrid, name=name, select=shortlist))
    ids, rows, labeled = seen[0]
    minimum = torch.cdist(rows.double(), labeled.double()).amin(1)
    expected = []
    for _ in range(PROTOCOL.budget):
        pick = int(minimum.argmax())
        expected.append(int(ids[pick]))
        minimum = torch.minimum(minimum, (rows.double() - rows[pick].double()).norm(dim=1))
        minimum[pick] = -1
    assert hybrid.name == f"{name}+farthest_first"
    assert first_picks(hybrid.with_options({"shortlist": 2})) == expected


def test_only_what_selects_from_the_pool_can_shortlist():
    with pytest.raises(ValueError, match="does not select from unlabeled samples"):
        get_strategy("farthest_first_compress+farthest_first")
    with pytest.raises(ValueError, match="unknown strategy 'no_such'"):
        get_strategy("no_such+farthest_first")
    with pytest.raises(ValueError, match=r"unknown strategy 'margin\+entropy'"):
        get_strategy("margin+entropy")
    own = dataclasses.replace(get_strategy("random"), name="mine", options={"shortlist": 3})
    with pytest.raises(ValueError, match=r"mine\+farthest_first has an option 'shortlist' of its "):
        diversified(own)
    with pytest.raises(ValueError, match=r"random\+farthest_first\+farthest_first has an option"):
        get_strategy("random+farthest_first+farthest_first")


def test_stratified_farthest_first_traverses_each_class_alone():
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(40, 3, generator=generator)
    labeled = torch.randn(6, 3, generator=generator)
    pseudo = torch.tensor([0] * 25 + [1] * 12 + [2] * 3)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    picks = stratified_farthest_first(pool, pseudo, 14, labeled, labels)
    expected = []
    for label, share in ((0, 6), (1, 5), (2, 3)):
        members = (pseudo == label).nonzero().flatten().numpy()
        anchors = labeled[labels == label].double().numpy()
        points = pool.double().numpy()
        nearest = np.full(40, np.inf)
        for anchor in anchors:
            nearest = np.minimum(nearest, np.linalg.norm(points - anchor, axis=1))
        left = list(members)
        for _ in range(share):
            pick = max(left, key=lambda i: (nearest[i], -i))
            expected.append(int(pick))
            left.remove(pick)
            nearest = np.minimum(nearest, np.linalg.norm(points - points[pick], axis=1))
    assert picks.tolist() == expected


def test_the_oracle_picks_what_the_model_misclassifies():
    data = blobs()
    select = get_strategy("oracle").select

    def check(context):
        picks = select(context)
        labels = data.oracle.label(context.candidates)
        with torch.no_grad():
            logits = torch.cat(
                [context.model.eval()(x) for _, x in context.batches(context.candidates)]
            )
        wrong = context.candidates[logits.argmax(1) != labels]
        taken = torch.isin(picks, wrong).sum()
        assert taken == min(len(wrong), context.budget)
        return picks

    strategy = type(get_strategy("oracle"))("check", check, needs=("oracle",))
    ActiveLearningExperiment(data, "mlp", strategy, protocol=PROTOCOL, training=TRAINING).run()


def test_labels_are_told_to_declared_oracles_only():
    with pytest.raises(LookupError, match="uses oracle but does not declare it"):
        ActiveLearningExperiment(
            blobs(), "mlp", lambda context: context.true_labels(context.candidates),
            protocol=PROTOCOL, training=TRAINING,
        ).run()  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["coreset", "emaod", "mc_dropout_vote_entropy", "query_by_committee", "query_by_committee_kl",
     "query_by_snapshots", "coreset+farthest_first",
     "margin+farthest_first", "farthest_first_stratified", "oracle", "tod_code",
     "prediction_stability_times_margin", "prediction_stability_rank_entropy",
     "farthest_first_mc_dropout"],
)  # fmt: skip
def test_each_runs_and_repeats_itself(name):
    def run():
        return ActiveLearningExperiment(
            blobs(60, 30), "mlp", name, protocol=PROTOCOL, training=Training(epochs=2, batch_size=8)
        ).run()

    first = run()
    assert first == run()
    assert len(first.cycles) == PROTOCOL.cycles + 1
    if name == "coreset":
        report = first.cycles[0].report
        assert report["lower_bound"] <= report["radius"] <= report["greedy_radius"]
    if name == "coreset+farthest_first":
        assert first.cycles[0].report == {}  # the radius of the shortlist is not that of the picks


def test_candidates_can_be_a_random_subset_and_the_error_can_decide_when_to_stop():
    sizes = []

    def first_ones(context):
        sizes.append(len(context.candidates))
        assert torch.equal(context.candidates, context.candidates.unique())
        return context.candidates[: context.budget]

    ActiveLearningExperiment(
        blobs(), "mlp", first_ones, training=TRAINING,
        protocol=Protocol(initial=12, budget=6, cycles=2, subset=20),
    ).run()  # fmt: skip
    assert sizes == [20, 20]
    protocol = Protocol(initial=6, budget=12, cycles=8)
    full = ActiveLearningExperiment(
        blobs(), "mlp", "random", protocol=protocol, training=TRAINING
    ).run()
    gains = [accuracy - full.accuracies[0] for accuracy in full.accuracies]
    wanted = max(gains) / 2
    assert wanted > 0
    stop = next(i for i, gain in enumerate(gains) if gain >= wanted)
    stopped = ActiveLearningExperiment(
        blobs(), "mlp", "random", training=TRAINING,
        protocol=Protocol(initial=6, budget=12, cycles=8, error_reduction=wanted),
    ).run()  # fmt: skip
    assert stopped.accuracies == full.accuracies[: stop + 1]
    assert stopped.cycles[-1].selected == []
