"""What the papers' analyses need is recorded, is right, and changes nothing in the run."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast.experiment import ActiveLearningExperiment
from dynal_fast.experiment.analysis import recorded
from dynal_fast.experiment.checkpoint import Checkpoint
from dynal_fast.experiment.gradients import gradient_norms
from dynal_fast.experiment.grid import run_grid
from dynal_fast.report.write import write_report
from dynal_fast.strategies.registry import Strategy
from tests.cases.experiment import PROTOCOL, TRAINING, blobs, grid_config
from tests.report_pages import sections_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_recorded_arrays_are_those_of_the_model_that_selected(tmp_path):
    data = blobs()
    expected = []

    def select(context):
        with torch.no_grad():
            logits = torch.cat(
                [context.model.eval()(x) for _, x in context.batches(context.candidates)]
            ).double()
        labels = data.oracle.label(context.candidates).numpy()
        p = np.exp(logits.numpy())
        truth = (p / p.sum(1, keepdims=True))[np.arange(len(labels)), labels]
        picks = context.stats.select("entropy", context.budget, candidates=context.candidates)
        scores = context.stats.score("entropy")[context.candidates]
        correct = logits.argmax(1).numpy() == labels
        expected.append((context.candidates, picks, truth, correct, scores))
        return picks

    experiment = ActiveLearningExperiment(
        data, "mlp", Strategy("mine", select, tracks=("entropy",)),
        protocol=PROTOCOL, training=TRAINING, directory=tmp_path, analysis=True,
    )  # fmt: skip
    experiment.run()
    found = recorded(tmp_path)
    assert list(found) == list(range(PROTOCOL.cycles))
    for arrays, (ids, picks, truth, correct, scores) in zip(found.values(), expected, strict=True):
        assert torch.equal(arrays["ids"], ids)
        assert torch.equal(arrays["picks"], picks)
        assert arrays["correct"].tolist() == correct.tolist()
        np.testing.assert_allclose(arrays["loss"], -np.log(truth), atol=1e-5)
        assert torch.equal(arrays["score.entropy"], scores)
        assert arrays["trajectories"].shape == (TRAINING.epochs, len(arrays["followed_ids"]))
        rows = torch.searchsorted(ids, arrays["followed_ids"])
        np.testing.assert_allclose(arrays["trajectories"][-1], truth[rows], atol=1e-5)


@pytest.mark.parametrize("strategy", ["cod", "farthest_first"])
def test_recording_changes_nothing_and_repeats_itself(tmp_path, strategy):
    def run(name, analysis):
        return ActiveLearningExperiment(
            blobs(), "mlp", strategy, protocol=PROTOCOL, training=TRAINING,
            directory=tmp_path / name, analysis=analysis,
        ).run()  # fmt: skip

    plain, first, second = run("plain", False), run("first", True), run("second", True)
    assert plain == first == second
    assert recorded(tmp_path / "plain") == {}
    names = sorted(path.name for path in (tmp_path / "first").glob("analysis-*"))
    assert len(names) == PROTOCOL.cycles
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_scores_of_mc_dropout_passes_are_recorded(tmp_path):
    def model():
        return torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3)
        )

    result = ActiveLearningExperiment(
        blobs(), model, "bald", protocol=PROTOCOL, training=TRAINING,
        directory=tmp_path, analysis=True,
    ).run()  # fmt: skip
    for cycle, arrays in recorded(tmp_path).items():
        scores = dict(zip(arrays["ids"].tolist(), arrays["score.bald"].tolist(), strict=True))
        picks = result.cycles[cycle].selected
        assert [scores.pop(i) for i in picks] >= [max(scores.values())] * len(picks)


@pytest.mark.parametrize(
    "name", ["bald", "query_by_committee", "vaal", "oracle", "cod", "label_dispersion"]
)
def test_candidates_alone_are_ranked_and_every_pick_has_a_score(tmp_path, name):
    ActiveLearningExperiment(
        blobs(), "mlp", name, protocol=dataclasses.replace(PROTOCOL, subset=20),
        training=TRAINING, directory=tmp_path, analysis=True,
    ).run()  # fmt: skip
    found = recorded(tmp_path)
    assert len(found) == PROTOCOL.cycles
    for arrays in found.values():
        ((_, scores),) = ((key, each) for key, each in arrays.items() if key.startswith("score."))
        assert len(scores) == len(arrays["ids"]) > 100
        assert int(scores.isfinite().sum()) == 20
        picked = torch.isin(arrays["ids"], arrays["picks"])
        assert int(picked.sum()) == PROTOCOL.budget
        assert scores[picked].isfinite().all()


def test_gradient_norms_are_those_of_the_whole_jacobian():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
    )
    inputs = torch.randn(5, 4)
    model(inputs)  # moves the batch statistics off their start
    found = gradient_norms(model, inputs)
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    model.eval()
    for row, one in enumerate(inputs):
        expected = 0.0
        for output in model(one[None]).softmax(1)[0]:
            gradients = torch.autograd.grad(output, [*model.parameters()], retain_graph=True)
            expected += sum(float(part.double().square().sum()) for part in gradients)
        assert found[row].item() == pytest.approx(expected, rel=1e-6)


def test_norms_of_gradients_are_recorded_and_shown(tmp_path):
    run_grid(grid_config(analysis=True, reference=False), tmp_path / "run", data=blobs())
    arrays = recorded(tmp_path / "run" / "cod" / "seed-0")
    assert [*arrays] == [0, 1]
    for of_cycle in arrays.values():
        ids = of_cycle["gradient_ids"]
        assert len(ids) == len(of_cycle["gradient_norms"]) == 32
        assert (ids[0], ids[-1]) == (0, 149)  # labeled and unlabeled alike
    page = write_report([tmp_path / "run"], tmp_path / "report").read_text()
    section = sections_of(page)["gradients"]
    every = torch.cat([
        recorded(tmp_path / "run" / "cod" / f"seed-{seed}")[1]["gradient_norms"] for seed in (0, 1)
    ])  # fmt: skip
    assert f"<td>{every.double().mean():.4g}</td>" in section
    damaged = {**arrays[0], "gradient_norms": -arrays[0]["gradient_norms"]}
    path = tmp_path / "run" / "cod" / "seed-0" / "analysis-0.safetensors"
    Checkpoint(damaged, {"cycle": 0}).save(path)
    with pytest.raises(ValueError, match="gradient_norms must be finite, at least 0"):
        recorded(path.parent)
