"""Compression of a labeled set: FF-Comp against its definition, the protocol, and its report."""

import json

import numpy as np
import pytest
import torch

from dynal_fast.experiment import (
    ActiveLearningExperiment,
    CompressionExperiment,
    Protocol,
    Training,
)
from dynal_fast.experiment.grid import run_grid, total_epochs
from dynal_fast.experiment.training import Trainer
from dynal_fast.report.compression import samples_needed
from dynal_fast.report.write import write_report
from dynal_fast.strategies.registry import Strategy, get_strategy, register_strategy
from tests.cases.experiment import TRAINING, blobs, grid_config

pytestmark = pytest.mark.usefixtures("one_thread")

COMPRESS = Protocol(initial=150, compress=[0.64, 0.5])


def experiment(strategy="farthest_first_compress", **changes):
    settings = {"protocol": COMPRESS, "training": TRAINING, "seed": 2} | changes
    return CompressionExperiment(blobs(), "mlp", strategy, **settings)


def watched(seen):
    """FF-Comp that keeps what it was shown."""
    select = get_strategy("ff_comp").select

    def watch(context):
        kept = select(context)
        seen.append((context, context.embeddings(context.labeled).double().numpy(), kept))
        return kept

    return Strategy("watched", watch, needs=("embeddings",), selects_from=("labeled",))


def test_ff_comp_is_algorithm_1_on_the_embeddings_of_the_model_trained_on_everything():
    seen = []
    result = experiment(watched(seen)).run()
    labels = blobs().oracle.label(torch.arange(150)).numpy()
    assert [len(kept) for _, _, kept in seen] == [96, 75]
    for context, embeddings, kept in seen:
        assert context.candidates.tolist() == context.labeled.tolist() == list(range(150))
        assert context.model is seen[0][0].model
        kept = kept.numpy()
        share = len(kept) // 3
        for label, picks in enumerate(np.split(kept, 3)):
            assert len(picks) == share
            assert (labels[picks] == label).all()
            members = (labels == label).nonzero()[0]
            nearest = ((embeddings[members] - embeddings[picks[0]]) ** 2).sum(1)
            for pick in picks[1:]:
                assert pick == members[nearest.argmax()]
                distances = ((embeddings[members] - embeddings[pick]) ** 2).sum(1)
                nearest = np.minimum(nearest, distances)
    assert [cycle.selected for cycle in result.cycles[:-1]] == [kept.tolist() for *_, kept in seen]
    assert result.cycles[-1].selected == []
    assert seen[0][2].tolist()[:25] != seen[1][2].tolist()[:25], "each share has a start of its own"


def test_each_training_is_from_the_initial_weights_on_what_is_kept(monkeypatch):
    trained, train = [], Trainer.run_epoch

    def run_epoch(self, samples, ids, targets, generator, pool=None):
        if not trained or not torch.equal(trained[-1][0], ids):
            first = next(self.model.parameters()).detach().clone()
            trained.append((ids, first))
            assert torch.equal(targets, blobs().oracle.label(ids))
        return train(self, samples, ids, targets, generator, pool)

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    result = experiment().run()
    assert result.labeled == [150, 96, 75] == [len(ids) for ids, _ in trained]
    assert sorted(trained[0][0].tolist()) == sorted(result.initial) == list(range(150))
    for (ids, weights), kept in zip(trained[1:], result.cycles, strict=False):
        assert ids.tolist() == kept.selected
        assert torch.equal(weights, trained[0][1])
    assert len(result.timings) == 3
    assert result.timings[0].selection.seconds > 0
    assert result.timings[-1].selection is None


def test_every_strategy_starts_from_the_training_on_all_data_and_repeats_itself():
    whole = ActiveLearningExperiment(
        blobs(), "mlp", "random", protocol=Protocol(150, cycles=0), training=TRAINING, seed=2
    ).run()
    for name in ("farthest_first_compress", "random"):
        first = experiment(name).run()
        assert first == experiment(name).run()
        assert first.accuracies[0] == whole.accuracies[0]
        assert first.cycles[0].train_loss == whole.cycles[0].train_loss
        assert all(len(set(cycle.selected)) == len(cycle.selected) for cycle in first.cycles)
    assert experiment("random").run().cycles[1] != experiment("ff_comp").run().cycles[1]


@pytest.mark.parametrize("epoch", [2, 5, 9, 11])
def test_an_interrupted_compression_ends_with_the_same_results(tmp_path, epoch):
    epochs = []

    def interrupt(cycle, number):
        epochs.append((cycle, number))
        if len(epochs) == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment(directory=tmp_path, on_epoch=interrupt).run()
    assert experiment(directory=tmp_path).run() == experiment().run()


def test_what_needs_an_unlabeled_pool_is_refused():
    with pytest.raises(ValueError, match=r"'entropy' does not select from labeled .*random, f"):
        experiment("entropy")
    with pytest.raises(ValueError, match="'farthest_first_compress' does not select from unlabele"):
        ActiveLearningExperiment(blobs(), "mlp", "ff_comp")
    with pytest.raises(ValueError, match=r"protocol.compress must be empty .* got \[0.64, 0.5\]"):
        ActiveLearningExperiment(blobs(), "mlp", "random", protocol=COMPRESS)
    with pytest.raises(ValueError, match=r"protocol\.compress must be empty but for"):
        CompressionExperiment(blobs(), "mlp", "random")
    with pytest.raises(ValueError, match="no unlabeled pool, got analysis"):
        experiment(analysis=True)
    with pytest.raises(ValueError, match="no unlabeled pool, got unsupervised ema"):
        experiment(training=Training(unsupervised="ema"))
    with pytest.raises(ValueError, match="selects_from must be among unlabeled, labeled"):
        register_strategy("x", lambda context: 0, tracks=("cod",), selects_from=("labeled",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compress": [1.0]}, "compress must be shares above 0 and below 1"),
        ({"retrain": "continue"}, "retrain must be 'scratch' with compress, got 'continue'"),
        ({"pool_factor": 2.0}, "pool_factor must be 1.0 with compress, got 2.0"),
        ({"subset": 100}, "subset must be 0 with compress, got 100"),
        ({"error_reduction": 0.1}, "error_reduction must be 0.0 with compress"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**({"initial": 100, "compress": [0.5]} | settings))


def test_fewer_than_one_sample_a_class_is_refused_and_what_does_not_divide_is_left_out():
    with pytest.raises(ValueError, match="k must be at least the number of classes, 3, got 2"):
        experiment(protocol=Protocol(initial=10, compress=[0.2])).run()
    assert experiment(protocol=Protocol(initial=150, compress=[0.52])).run().labeled == [150, 78]
    assert experiment(protocol=Protocol(initial=150, compress=[0.53])).run().labeled == [150, 78]


def test_a_grid_of_compressions_and_its_report(tmp_path):
    config = grid_config(
        strategies=["ff_comp", "random"],
        protocol={"initial": 150, "compress": [0.64, 0.5]},
        reference=False,
    )
    assert total_epochs(config) == 2 * 2 * 3 * 3
    done = []
    grid = run_grid(config, tmp_path, data=blobs(), on_epoch=lambda where, n: done.append(n))
    assert done == list(range(1, 37))
    first = {run.seed: run.accuracies[0] for run in grid.runs}
    assert grid.reference_accuracies() == [first[0], first[1]]
    assert grid.of("farthest_first_compress")[0].labeled == [150, 96, 75]
    assert json.loads((tmp_path / "results.json").read_text())["samples"] == 150
    page = write_report([tmp_path], tmp_path / "report").read_text()
    changes = [
        100 * (run.accuracies[2] - run.accuracies[0]) for run in grid.of("farthest_first_compress")
    ]
    cells = "".join(
        f"<td>{cell}</td>"
        for cell in (
            "75",
            "50",
            f"{50 * sum(run.accuracies[2] for run in grid.of('farthest_first_compress')):.2f}",
            f"{np.mean(changes):+.2f} ± {np.std(changes, ddof=1):.2f}",
        )
    )
    assert f'<th scope="row">farthest_first_compress</th>{cells}' in page
    assert '<a href="#compression">' in page
    assert "informativeness" not in page
    assert "No training on all data" not in page


def test_how_many_random_samples_reach_an_accuracy():
    curve = {50: 0.5, 64: 0.8, 100: 0.9}
    assert samples_needed(curve, 0.65) == pytest.approx(57)
    assert samples_needed(curve, 0.8) == pytest.approx(64)
    assert samples_needed(curve, 0.85) == pytest.approx(82)
    assert samples_needed(curve, 0.95) is None
    assert samples_needed(curve, 0.5) is None
