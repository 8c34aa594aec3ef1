"""The loop: equal starts, determinism, what statistics observe, and labels that do not leak."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast.experiment import ActiveLearningExperiment, ExperimentData, Protocol, Training
from dynal_fast.experiment.grid import run_grid, total_epochs
from dynal_fast.experiment.observation import parsed_schedules
from dynal_fast.measured import measured
from dynal_fast.pool import Epochs, EveryEpoch, LastEpochs
from dynal_fast.strategies.registry import get_strategy, strategies
from tests.cases.experiment import PROTOCOL, TRAINING, blobs, grid_config

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [each.name for each in strategies() if "unlabeled" in each.selects_from]
NAMES += ["margin+farthest_first", "bald+farthest_first"]


def experiment(strategy="random", data=None, model="mlp", **changes):
    settings = {"protocol": PROTOCOL, "training": TRAINING, "seed": 3} | changes
    return ActiveLearningExperiment(data or blobs(), model, strategy, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_runs_and_repeats_itself(name):
    first, second = experiment(name).run(), experiment(name).run()
    assert first == second
    assert first.labeled == [12, 18, 24, 30]
    chosen = first.initial + [i for cycle in first.cycles for i in cycle.selected]
    assert len(set(chosen)) == len(chosen) == 30
    assert first.cycles[-1].selected == []
    assert len(first.timings) == 4
    assert first.timings[0].selection.seconds > 0
    assert first.timings[-1].selection is None


def test_every_strategy_of_a_seed_starts_alike():
    """Observing, also with a model that has dropout, must not change how the model is trained."""
    alike = [name for name in NAMES if "loss_prediction" not in get_strategy(name).needs]
    results = [experiment(name).run() for name in alike]
    assert len({tuple(result.initial) for result in results}) == 1
    assert len({result.accuracies[0] for result in results}) == 1
    assert len({result.cycles[0].train_loss for result in results}) == 1


def test_seeds_differ():
    one, other = experiment(seed=1).run(), experiment(seed=2).run()
    assert one.initial != other.initial
    assert one.cycles[0].train_loss != other.cycles[0].train_loss


def test_the_callers_random_state_is_left_alone():
    def draw_after(step):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002 - the global generator is what is tested
        random.seed(5)
        step()
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    assert draw_after(lambda: experiment("bald").run()) == draw_after(lambda: None)


def test_the_result_does_not_depend_on_the_callers_random_state():
    torch.manual_seed(1)
    first = experiment("bald").run()
    torch.manual_seed(2)
    assert experiment("bald").run() == first


def test_an_initial_set_can_be_balanced():
    data = blobs()
    initial = experiment(data=data, protocol=Protocol(12, True, 6, 1)).run().initial
    assert data.oracle.label(torch.tensor(initial)).bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "oracle" not in get_strategy(name).needs]
)
def test_labels_of_unlabeled_samples_do_not_reach_a_strategy(name):
    """With all labels outside the initial set changed, the first selection stays the same."""
    honest = blobs()
    first = experiment(name, honest).run()
    labels = honest.oracle.label(torch.arange(150))
    changed = (labels + 1) % 3
    changed[first.initial] = labels[first.initial]
    other = ExperimentData.from_tensors(
        honest.samples.source, changed, honest.test_samples.source, honest.test_labels
    )
    second = experiment(name, other).run()
    assert second.initial == first.initial
    assert second.cycles[0] == first.cycles[0]
    assert second.cycles[1].train_loss != first.cycles[1].train_loss


def test_from_scratch_means_the_initial_weights_and_continuing_the_last_ones():
    started = []

    class Recorded(nn.Linear):
        def forward(self, inputs):
            if self.training and len(inputs) != 512:
                started.append(self.weight.detach().clone())
            return super().forward(inputs)

    def first_weights(retrain):
        started.clear()
        experiment(
            model=lambda: Recorded(8, 3),
            protocol=Protocol(12, False, 6, 2, retrain),
            training=Training(epochs=1, batch_size=64),
        ).run()
        return list(started)

    scratch, kept = first_weights("scratch"), first_weights("continue")
    assert len(scratch) == len(kept) == 3
    assert torch.equal(scratch[0], kept[0])
    assert torch.equal(scratch[1], scratch[0])
    assert not torch.equal(kept[1], kept[0])
    assert not torch.equal(kept[2], kept[1])


def test_the_learning_rate_drops_after_its_milestones():
    losses = {}
    for milestones in ([], [2], [4]):
        training = Training(epochs=4, batch_size=16, milestones=milestones, gamma=1e-9)
        result = experiment(training=training, protocol=Protocol(12, False, 6, 0)).run()
        losses[tuple(milestones)] = result.cycles[0].train_loss
    assert losses[(4,)] == losses[()]
    assert losses[(2,)] != losses[()]


def test_cod_compares_with_the_initial_model_and_then_with_the_last_cycle():
    """Temporal output discrepancy 4.2, against outputs that the test computes itself."""
    data = blobs()
    outputs, scores = [], []

    def softmax(model):
        model.eval()
        with torch.no_grad():
            return model(data.samples.source).softmax(1)

    def record(context):
        outputs.append(softmax(context.model))
        scores.append(context.stats.score("cod"))
        picks = context.stats.select("cod", context.budget, candidates=context.candidates)
        unseen.append(context.candidates)
        return picks

    from dynal_fast.strategies.registry import Strategy

    unseen = []
    running = experiment(Strategy("record", record, tracks=("cod",)), data)
    initial = softmax(running.initial_model())
    running.run()
    for before, after, score, candidates in zip(
        [initial, *outputs], outputs, scores, unseen, strict=False
    ):
        expected = (after - before).double().norm(dim=1)[candidates]
        assert torch.allclose(score[candidates].double(), expected, atol=1e-5)
        assert score.isnan().sum() == 150 - len(candidates)


def test_dynamics_are_those_of_the_current_cycle():
    """Label dispersion of three epochs takes the values 0, 1/3 and 2/3 in every cycle."""
    from dynal_fast.strategies.registry import Strategy

    seen = []

    def record(context):
        seen.append(context.stats.score("label_dispersion")[context.candidates])
        return context.candidates[: context.budget]

    training = Training(epochs=3, learning_rate=0.05, batch_size=4)
    experiment(Strategy("record", record, tracks=("label_dispersion",)), training=training).run()
    thirds = torch.tensor([0.0, 1 / 3, 2 / 3])
    for values in seen:
        assert (values[:, None] - thirds).abs().amin(1).max() < 1e-6
    assert len(seen) == 3


def test_schedules_are_read_from_plain_values():
    parsed = parsed_schedules(
        {
            "prediction_stability": {"last": 3, "interval": 2},
            "label_dispersion": "every",
            "softmax_response": "final",
            "bald": {"every": 2},
            "cod": {"epochs": [1, 3]},
        }
    )
    assert parsed == {
        "prediction_stability": LastEpochs(3, 2),
        "label_dispersion": EveryEpoch(),
        "least_confidence": LastEpochs(1),
        "bald": EveryEpoch(2),
        "cod": Epochs([1, 3]),
    }


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        (
            {"stability": "every"},
            "schedules.stability: no such statistic; known: least_confidence, ",
        ),
        ({"margin": "sometimes"}, 'schedules.margin must be "every", "final"'),
        ({"margin": {"last": 0}}, "schedules.margin: n must be a positive integer, got 0"),
        ({"margin": {"last": 3, "first": 1}}, "schedules.margin must be"),
        ({"margin": {"epochs": 3}}, "schedules.margin: "),
    ],
)
def test_schedules_that_make_no_sense_are_named(schedules, message):
    with pytest.raises(ValueError, match=message):
        experiment(schedules=schedules).run()


def test_a_protocol_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"at most the 150 samples, got 212"):
        experiment(protocol=Protocol(12, False, 100, 2))


def test_a_diverging_training_is_an_error():
    training = Training(epochs=5, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"loss is nan in cycle 0, epoch .*learning_rate"):
        experiment(training=training).run()


def test_any_map_style_data_set_works():
    class Pairs(torch.utils.data.Dataset):
        def __init__(self, inputs, labels):
            self.pairs = list(zip(inputs, labels.tolist(), strict=True))

        def __len__(self):
            return len(self.pairs)

        def __getitem__(self, index):
            return self.pairs[index]

    data = blobs()
    labels = data.oracle.label(torch.arange(150))
    wrapped = ExperimentData.from_datasets(
        Pairs(data.samples.source, labels), Pairs(data.test_samples.source, data.test_labels)
    )
    assert experiment("margin", wrapped).run() == experiment("margin", data).run()


def test_a_grid_runs_every_strategy_with_every_seed_and_all_labels(tmp_path):
    data = blobs()
    seen = []
    config = grid_config()
    grid = run_grid(config, tmp_path, data=data, on_epoch=lambda where, done: seen.append(done))
    assert seen == list(range(1, total_epochs(config) + 1))
    assert [(run.strategy, run.seed) for run in grid.runs] == [
        (name, seed) for name in ("random", "cod", "all_data") for seed in (0, 1)
    ]
    assert [run.labeled for run in grid.of("all_data")] == [[150], [150]]
    assert len(grid.reference_accuracies()) == 2
    assert grid.strategies() == ["random", "cod"]


def test_a_grid_gives_the_same_bytes_twice(tmp_path):
    data = blobs()
    for folder in ("a", "b"):
        run_grid(grid_config(), tmp_path / folder, data=data)
    for name in ("results.json", "results.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_memory_is_how_far_it_rose_at_its_highest():
    heap = [bytes(5000) for _ in range(30_000)]
    last = heap.pop()  # keeps the free heap from going back to the system by itself
    del heap  # the block must not look cheap because it reuses this
    with measured() as step:
        block = torch.ones(16 << 20, dtype=torch.float32)
        del block
    assert 60e6 < step.peak_extra_bytes < 120e6
    assert step.memory_method
    assert last
    with measured() as step:
        pass
    assert step.peak_extra_bytes < 5e6


def test_memory_is_sampled_where_the_high_water_mark_cannot_be_reset(monkeypatch, tmp_path):
    from dynal_fast import measured as module

    monkeypatch.setattr(module, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    with measured() as step:
        block = torch.ones(16 << 20, dtype=torch.float32)
        torch.ones(8 << 20).sort()
        del block
    assert "sampled" in step.memory_method
    assert step.peak_extra_bytes > 60e6
    monkeypatch.setattr(module, "_STATM", tmp_path / "missing")
    with measured() as step:
        pass
    assert "ru_maxrss" in step.memory_method
    assert step.seconds < 1
