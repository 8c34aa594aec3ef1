"""The registry of strategies: names, additions, declared needs, and what a strategy may return."""

import math
import re

import pytest
import torch
from torch import nn

from dynal_fast.experiment import ActiveLearningExperiment
from dynal_fast.strategies.registry import (
    SelectionContext,
    as_strategy,
    get_strategy,
    register_strategy,
    strategies,
    unregister_strategy,
)
from tests.cases.experiment import PROTOCOL, TRAINING, blobs

pytestmark = pytest.mark.usefixtures("one_thread")


def run(strategy, model="mlp", directory=None):
    return ActiveLearningExperiment(
        blobs(), model, strategy, protocol=PROTOCOL, training=TRAINING, directory=directory
    ).run()


def test_the_names_that_people_look_for_are_there():
    for name in (
        "random", "softmax_response", "least_confidence", "entropy", "margin", "label_dispersion",
        "prediction_stability", "prediction_stability_logits", "absolute_increase", "cod", "bald",
        "mean_std", "variation_ratio", "farthest_first", "k_center_greedy", "k_center", "ff_active",
    ):  # fmt: skip
        assert get_strategy(name).select, name
    assert all(strategy.description for strategy in strategies())


@pytest.fixture
def lowest_ids():
    @register_strategy("lowest_ids", aliases=("first_ids",))
    def lowest_ids(context):
        return context.candidates[: context.budget]

    yield lowest_ids
    unregister_strategy("lowest_ids")


def test_a_registered_strategy_runs_by_its_name_and_alias(lowest_ids):
    result = run("first_ids")
    assert result.strategy == "lowest_ids"
    labeled = set(result.initial)
    for cycle in result.cycles[:-1]:
        expected = [i for i in range(150) if i not in labeled][:6]
        assert cycle.selected == expected
        labeled |= set(expected)


def test_a_plain_callable_is_a_strategy():
    def highest_ids(context):
        return context.candidates[-context.budget :]

    result = run(highest_ids)
    assert result.strategy == "highest_ids"
    assert as_strategy(highest_ids).tracks == ()
    assert result.cycles[0].selected[-1] in (148, 149)


def test_a_name_cannot_be_taken_twice(lowest_ids):
    with pytest.raises(ValueError, match="'lowest_ids' is already registered"):
        register_strategy("lowest_ids", lowest_ids)
    with pytest.raises(ValueError, match="'first_ids' is already registered"):
        register_strategy("other", lowest_ids, aliases=("first_ids",))
    with pytest.raises(ValueError, match="unknown strategy 'other'"):
        get_strategy("other")


@pytest.mark.parametrize("name", ["other", "bald+farthest_first"])
def test_what_is_not_registered_cannot_be_removed(name):
    with pytest.raises(ValueError, match=re.escape(f"no strategy called {name!r} is registered")):
        unregister_strategy(name)


def test_options_of_a_strategy_are_part_of_the_configuration(tmp_path):
    @register_strategy("every_nth", options={"n": 2, "weight": 0.5})
    def every_nth(context):
        return context.candidates[:: context.strategy.options["n"]][: context.budget]

    strategy = get_strategy("every_nth")
    unregister_strategy("every_nth")
    assert (
        run(strategy).cycles[0].selected != run(strategy.with_options({"n": 3})).cycles[0].selected
    )
    assert strategy.with_options({"weight": 2}).options == {"n": 2, "weight": 2.0}
    assert strategy.options == {"n": 2, "weight": 0.5}
    for given, message in (
        ({"m": 1}, "every_nth has no option 'm'; it has: n, weight"),
        ({"n": 1.5}, r"every_nth\.n must be an integer, got 1\.5"),
        ({"n": True}, r"every_nth\.n must be an integer, got True"),
        ({"weight": "x"}, r"every_nth\.weight must be a number, got 'x'"),
        ({"weight": math.nan}, r"every_nth\.weight must be a number, got nan"),
        ({"n": math.inf}, r"every_nth\.n must be an integer, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            strategy.with_options(given)
    run(strategy, directory=tmp_path)
    with pytest.raises(ValueError, match=r"different configuration: options\.n is 2 there and 3"):
        run(strategy.with_options({"n": 3}), directory=tmp_path)


def test_unknown_names_and_needs_are_named():
    with pytest.raises(ValueError, match="unknown strategy 'entropie'; known: random, least_c"):
        get_strategy("entropie")
    with pytest.raises(ValueError, match=r"needs must be among .*, got 'labels'"):
        register_strategy("x", lambda context: context.candidates, needs=("labels",))
    with pytest.raises(
        ValueError, match=r"ranks_by must be among least_confidence, .*, got 'marge'"
    ):
        register_strategy("x", lambda context: context.candidates, ranks_by="marge")


@pytest.mark.parametrize("argument", ["tracks", "needs", "aliases", "selects_from"])
def test_names_may_come_from_any_iterable_but_a_string(argument):
    names = {"tracks": "margin", "needs": "oracle", "aliases": "seldom", "selects_from": "labeled"}
    name = names[argument]
    with pytest.raises(
        ValueError, match=f"{argument} must be a sequence of names, got .* '{name}'"
    ):
        register_strategy("x", lambda c: c.candidates, **{argument: name})
    register_strategy("x", lambda c: c.candidates, **{argument: iter([name])})
    try:
        assert getattr(get_strategy("x"), argument) == (name,)
    finally:
        unregister_strategy("x")


def test_what_it_ranks_by_may_be_an_alias():
    register_strategy("surest_last", lambda c: c.candidates, ranks_by="softmax_response")
    try:
        assert get_strategy("surest_last").ranks_by == "least_confidence"
    finally:
        unregister_strategy("surest_last")


def test_what_a_strategy_did_not_declare_it_does_not_get():
    cases = {
        "pool statistics": lambda context: context.stats.select("margin", context.budget),
        "embeddings": lambda context: context.embeddings(context.candidates),
        "mc_dropout": lambda context: context.mc_dropout(("bald",)),
        "committee": lambda context: context.committee(3, ("bald",)),
    }
    for what, undeclared in cases.items():
        with pytest.raises(LookupError, match=f"uses {what}|reads {what}"):
            run(undeclared)


def test_needs_are_checked_before_the_first_training():
    def epochs_seen(model, strategy):
        seen = []
        experiment = ActiveLearningExperiment(
            blobs(), model, strategy, protocol=PROTOCOL, training=TRAINING,
            on_epoch=lambda cycle, epoch: seen.append(epoch),
        )  # fmt: skip
        with pytest.raises(ValueError) as error:
            experiment.run()
        return seen, str(error.value)

    seen, message = epochs_seen(lambda: nn.Linear(8, 3), "bald")
    assert seen == []
    assert "needs dropout" in message

    class NoLinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3))

        def forward(self, inputs):
            return inputs @ self.weight

    seen, message = epochs_seen(NoLinear, "farthest_first")
    assert seen == []
    assert "nn.Linear" in message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c: c.candidates[: c.budget - 1], "must return 6 picks, got 5"),
        (lambda c: c.candidates[:1].repeat(c.budget), "returned the same sample twice"),
        (lambda c: torch.cat([c.labeled[:1], c.candidates[: c.budget - 1]]), "is no candidate"),
        (lambda c: c.candidates[: c.budget].float(), "must return a 1-D int64 tensor, got torch.f"),
        (lambda c: None, "must return a 1-D int64 tensor, got None"),
    ],
)
def test_what_a_strategy_returns_is_checked(wrong, message):
    wrong.__name__ = "mine"
    with pytest.raises(ValueError, match=f"strategy 'mine' .*{message}"):
        run(wrong)


def test_a_strategy_sees_inputs_in_batches_and_the_labels_that_were_told():
    data = blobs()

    def inspect(context: SelectionContext):
        ids, inputs = next(iter(context.batches(context.candidates[3:5])))
        assert torch.equal(ids, context.candidates[3:5])
        assert torch.equal(inputs, data.samples.source[ids])
        assert torch.equal(context.labeled_targets, data.oracle.label(context.labeled))
        assert not torch.isin(context.labeled, context.candidates).any()
        assert len(context.labeled) + len(context.candidates) == 150
        return context.candidates[: context.budget]

    ActiveLearningExperiment(data, "mlp", inspect, protocol=PROTOCOL, training=TRAINING).run()
