"""Query by committee with separately trained models, against a NumPy transcription."""

import copy

import numpy as np
import pytest
import torch

from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training
from dynal_fast.experiment import selection as selection_module
from dynal_fast.experiment.analysis import recorded
from dynal_fast.experiment.selection import trained_member
from dynal_fast.models import build_model
from dynal_fast.strategies.registry import Strategy, get_strategy
from tests.cases.experiment import PROTOCOL, TRAINING, blobs

pytestmark = pytest.mark.usefixtures("one_thread")


def experiment(strategy="query_by_committee", **changes):
    settings = {"protocol": PROTOCOL, "training": TRAINING, "seed": 4} | changes
    return ActiveLearningExperiment(blobs(), "mlp", strategy, **settings)


def probabilities(models, context):
    """float64 ``(members, candidates, classes)``."""
    with torch.no_grad():
        logits = [
            torch.cat([model.eval()(inputs) for _, inputs in context.batches(context.candidates)])
            for model in models
        ]
    e = np.exp(torch.stack(logits).double().numpy())
    return e / e.sum(2, keepdims=True)


def vote_entropy(p):
    """- sum_c V_c / m ln (V_c / m) of the m members' labels."""
    shares = np.stack([(p.argmax(2) == c).mean(0) for c in range(p.shape[2])], 1)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)


def divergence_from_the_consensus(p):
    """1/m sum_t sum_c p_t(c) ln (p_t(c) / mean_t p_t(c))."""
    return (p * np.log(p / p.mean(0))).sum(2).mean(0)


@pytest.fixture
def members(monkeypatch):
    """Every further member that is trained."""
    trained = []

    def watched(experiment, state, member):
        model = trained_member(experiment, state, member)
        trained.append(copy.deepcopy(model))
        return model

    monkeypatch.setattr(selection_module, "trained_member", watched)
    return trained


@pytest.mark.parametrize(
    ("name", "disagreement"),
    [("qbc", vote_entropy), ("query_by_committee_kl", divergence_from_the_consensus)],
)
def test_what_the_members_disagree_on_most_is_picked(name, disagreement, members):
    chosen = get_strategy(name).with_options({"members": 4})
    seen = []

    def check(context):
        picks = chosen.select(context)
        committee = [copy.deepcopy(context.model), *members[-3:]]
        scores = disagreement(probabilities(committee, context))
        picked = torch.isin(context.candidates, picks).numpy()
        assert scores[picked].min() >= scores[~picked].max() - 1e-6
        assert scores[picked].max() > 0.02
        seen.append(picked.sum())
        return picks

    strategy = Strategy("check", check, needs=chosen.needs, options=chosen.options)
    experiment(strategy).run()
    assert seen == [6, 6, 6]
    assert len(members) == 3 * 3


def test_members_are_models_of_their_own_and_the_same_in_every_run(members):
    first = experiment().run()
    mine = [torch.cat([w.flatten() for w in model.parameters()]) for model in members]
    assert len(mine) == 3 * 4, "the model itself is the fifth"
    assert len({tuple(weights.tolist()) for weights in mine}) == 12
    assert experiment().run() == first
    again = [torch.cat([w.flatten() for w in model.parameters()]) for model in members[12:]]
    assert all(map(torch.equal, mine, again))
    other = experiment(seed=5)
    other.run()
    assert not torch.equal(next(members[24].parameters()), next(members[0].parameters()))


def test_the_committee_changes_nothing_in_the_training_of_the_model():
    """Cycle 0 of every strategy of a seed is alike; so are later ones where the picks are."""

    def first_ones(context):
        context.committee(2, ("bald",))
        return context.candidates[: context.budget]

    with_committee = experiment(Strategy("first", first_ones, needs=("committee",))).run()
    without = experiment(Strategy("first", lambda c: c.candidates[: c.budget])).run()
    assert with_committee == without


@pytest.mark.parametrize("member", [2, 6])
def test_a_run_killed_while_a_member_trains_goes_on_to_the_same_results(
    tmp_path, monkeypatch, member
):
    whole = experiment().run()
    trained = []

    def dies(experiment, state, number):
        trained.append(number)
        if len(trained) == member:
            raise KeyboardInterrupt
        return trained_member(experiment, state, number)

    monkeypatch.setattr(selection_module, "trained_member", dies)
    with pytest.raises(KeyboardInterrupt):
        experiment(directory=tmp_path).run()
    monkeypatch.undo()
    assert experiment(directory=tmp_path).run() == whole


def test_the_scores_are_recorded_for_the_analyses(tmp_path):
    settings = {"protocol": Protocol(12, budget=6, cycles=1), "directory": tmp_path}
    plain = experiment(**settings | {"directory": None}).run()
    assert experiment(analysis=True, **settings).run() == plain
    arrays = recorded(tmp_path)[0]
    scores, picked = arrays["score.vote_entropy"], torch.isin(arrays["ids"], arrays["picks"])
    assert len(scores) == 150 - 12
    assert scores[picked].min() >= scores[~picked].max()


def test_what_makes_no_committee_is_refused():
    with pytest.raises(ValueError, match="members must be at least 2, got 1"):
        experiment(get_strategy("qbc").with_options({"members": 1})).run()
    diverging = experiment(training=Training(epochs=1, batch_size=16))
    diverging.build_model = lambda: build_model("mlp", (8,), 3)
    state = diverging._start()
    state.targets = diverging.data.oracle.label(state.labeled)
    broken = diverging.build_model()
    with torch.no_grad():
        broken[1].weight.fill_(torch.nan)
    diverging.build_model = lambda: broken
    with pytest.raises(FloatingPointError, match="loss of committee member 1 of cycle 0 is nan"):
        trained_member(diverging, state, 1)
