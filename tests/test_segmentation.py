"""Segmentation in the loop, on a Cityscapes tree that the test writes."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, xlogy
from torch import nn
from torch.nn import functional

from dynal_fast.data.cityscapes import CLASSES
from dynal_fast.experiment import (
    ActiveLearningExperiment,
    Protocol,
    RunConfig,
    Training,
    load_data,
    run_grid,
)
from dynal_fast.experiment.image_ensembles import ensemble_scores
from dynal_fast.experiment.segmentation import (
    ENSEMBLE_SCORES,
    IMAGE_SCORES,
    VOID,
    ImageObserver,
    ImageScores,
    confusion_matrix,
    iou_of,
)
from dynal_fast.experiment.training import evaluate
from dynal_fast.strategies.registry import SelectionContext, get_strategy
from dynal_fast.strategies.vaal import VAALSettings, random_crops, tiles, vaal
from tests.cases.street_scenes import HEIGHT, WIDTH, write_streets

pytestmark = pytest.mark.usefixtures("one_thread")

PROTOCOL = Protocol(initial=4, budget=2, cycles=2)
TRAINING = Training(epochs=2, batch_size=4, learning_rate=0.003)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def data(root):
    return load_data("cityscapes", root, image_size=(HEIGHT, WIDTH))


def small_model():
    """A model that labels pixels, smaller than DRN-D-22."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 19, 1)
    )


def experiment(data, strategy="random", model=small_model, **changes):
    settings = {"protocol": PROTOCOL, "training": TRAINING, "seed": 1} | changes
    return ActiveLearningExperiment(data, model, strategy, **settings)


def test_label_maps_are_told_for_the_images_asked_for_with_void_pixels_marked(data):
    maps = data.oracle.label(torch.tensor([5, 2]))
    assert len(maps) == 2
    told = maps[torch.tensor([1])]
    assert told.shape == (1, HEIGHT, WIDTH)
    assert told.dtype == torch.int64
    assert (told[0, 0] == VOID).all()
    names = list(CLASSES.values())
    assert set(told.unique().tolist()) == {VOID, *map(names.index, ("sky", "road", "car"))}
    assert data.segments
    assert data.metric == "mean IoU"


def test_mean_iou_is_that_of_the_definition():
    rng = np.random.default_rng(1)
    predicted, truth = rng.integers(0, 4, (2, 3, 5, 7))
    truth[rng.random(truth.shape) < 0.2] = VOID
    counted = truth != VOID
    ratios = []
    for label in range(5):  # class 4 occurs nowhere: it has no ratio
        mine, theirs = (predicted == label) & counted, truth == label
        if (mine | theirs).any():
            ratios.append((mine & theirs).sum() / (mine | theirs).sum())
    confusion = confusion_matrix(torch.tensor(predicted), torch.tensor(truth), 5)
    assert confusion.sum() == counted.sum()
    assert len(ratios) == 4
    found = iou_of(confusion)
    assert found[:4].tolist() == pytest.approx(ratios, rel=1e-12)
    assert found[4].isnan()


def test_evaluation_adds_up_over_batches(data):
    torch.manual_seed(0)
    model = small_model().eval()
    images = data.test_samples[torch.arange(3)][1]
    truth = data.test_labels[torch.arange(3)]
    expected = iou_of(confusion_matrix(model(images).argmax(1), truth, 19))
    for batch in (1, 2, 3):
        score, by_class = evaluate(model, data, batch, torch.device("cpu"))
        assert score == pytest.approx(expected.nanmean().item())
        for mine, theirs in zip(by_class, expected.tolist(), strict=True):
            assert mine == pytest.approx(theirs) if mine is not None else math.isnan(theirs)


def softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def test_scores_of_images_are_means_over_pixels():
    torch.manual_seed(2)
    logits, earlier = 3 * torch.randn(2, 4, 5, 5, 7)
    scores = ImageScores(6, IMAGE_SCORES)
    scores.update(torch.tensor([4, 0, 3, 1]), logits, earlier)
    p, q = softmax(logits.double().numpy()), softmax(earlier.double().numpy())
    ordered = np.sort(p, axis=1)
    definition = {
        "cod": ((p - q) ** 2).sum(1),
        "entropy": -(p * np.log(p)).sum(1),
        "least_confidence": 1 - p.max(1),
        "margin": -(ordered[:, -1] - ordered[:, -2]),
    }
    for name, pixels in definition.items():
        found = scores.score(name)
        assert found[[2, 5]].isnan().all()
        np.testing.assert_allclose(found[[4, 0, 3, 1]], pixels.mean((1, 2)), rtol=1e-5, atol=1e-6)
    best = scores.select("cod", 2, torch.tensor([0, 1, 4]))
    values = dict(zip([4, 0, 3, 1], definition["cod"].mean((1, 2)), strict=True))
    assert best.tolist() == sorted([0, 1, 4], key=lambda i: -values[i])[:2]


def test_the_first_loss_is_the_cross_entropy_of_the_pixels_that_are_not_void(data):
    single = Training(epochs=1, batch_size=4)
    run = experiment(data, training=single, protocol=Protocol(initial=4, budget=2, cycles=0))
    result = run.run()
    model = run.initial_model()
    images = data.samples[torch.tensor(result.initial)][1]
    truth = data.oracle.label(torch.tensor(result.initial))[torch.arange(4)]
    log = functional.log_softmax(model(images), 1).gather(1, truth.clamp(min=0)[:, None])[:, 0]
    expected = -log[truth != VOID].mean().item()
    assert result.cycles[0].train_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["random", "cod", "entropy", "margin", "softmax_response"])
def test_every_strategy_for_images_runs_and_repeats_itself(data, name):
    first = experiment(data, name).run()
    assert first.labeled == [4, 6, 8]
    assert experiment(data, name).run() == first


@pytest.mark.parametrize("name", ["farthest_first", "cod+farthest_first"])
def test_drn_d_22_runs_and_its_embeddings_select(data, name):
    run = experiment(
        data,
        name,
        "drn-d-22",
        protocol=Protocol(4, budget=2, cycles=1),
        training=Training(epochs=1),
    ).run()
    assert run.labeled == [4, 6]
    assert all(0 < value < 1 for value in run.accuracies)


@pytest.mark.parametrize("retrain", ["scratch", "continue"])
def test_cod_compares_with_the_model_at_the_end_of_the_last_cycle(data, retrain):
    models, compared = [], []

    class Watched(ImageObserver):
        def begin_cycle(self, model, pool, first):
            compared.append({name: value.clone() for name, value in model.state_dict().items()})
            return super().begin_cycle(model, pool, first)

        def observe(self, model, pool, epoch, num_epochs, teacher=None):
            seconds = super().observe(model, pool, epoch, num_epochs, teacher)
            if epoch == num_epochs:
                models.append({name: value.clone() for name, value in model.state_dict().items()})
            return seconds

    run = experiment(data, "cod", protocol=Protocol(4, False, 2, 2, retrain))
    run.observer = lambda: Watched(data.samples, ("cod",), 4)
    run.run()
    assert len(models) == len(compared) == 2
    initial = run.initial_model().state_dict()
    assert all(torch.equal(compared[0][name], initial[name]) for name in initial)
    assert all(torch.equal(compared[1][name], models[0][name]) for name in initial)
    assert not torch.equal(models[0]["0.weight"], initial["0.weight"])


def test_a_run_that_was_interrupted_goes_on_to_the_same_results(data, tmp_path):
    def stop(cycle, epoch):
        if (cycle, epoch) == (1, 2):
            raise KeyboardInterrupt

    whole = experiment(data, "cod").run()
    with pytest.raises(KeyboardInterrupt):
        experiment(data, "cod", directory=tmp_path, on_epoch=stop).run()
    assert experiment(data, "cod", directory=tmp_path).run() == whole


def with_dropout():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(8, 19, 1)
    )


def test_scores_over_several_outputs_are_means_over_pixels():
    logits = 3 * torch.randn(4, 2, 5, 3, 4, generator=torch.Generator().manual_seed(3))
    batches = [(torch.tensor([i]), torch.tensor([i])) for i in (1, 0)]
    scores = ensemble_scores(
        lambda rows: (output[rows] for output in logits), batches, 3, [*ENSEMBLE_SCORES]
    )
    p = np.stack([softmax(output.double().numpy()) for output in logits])
    votes = np.stack([(p.argmax(2) == c).mean(0) for c in range(5)], axis=1)

    def entropy(q):
        return -xlogy(q, q).sum(1)

    consensus = entropy(p.mean(0))
    information = consensus - np.mean([entropy(member) for member in p], axis=0)
    divergence = np.mean([rel_entr(member, p.mean(0)).sum(1) for member in p], axis=0)
    np.testing.assert_allclose(information, divergence, rtol=1e-6)
    definition = {
        "bald": information,
        "consensus_kl": divergence,
        "predictive_entropy": consensus,
        "vote_entropy": entropy(votes),
    }
    for name, pixels in definition.items():
        found = scores.score(name)
        np.testing.assert_allclose(found[:2], pixels.mean((1, 2)), rtol=1e-4, atol=1e-6)
        assert found[2].isnan()
    with pytest.raises(ValueError, match="at least one, got none"):
        ensemble_scores(lambda rows: [], batches, 3, ["bald"])


@pytest.mark.parametrize(
    "name", ["bald", "mc_dropout_vote_entropy", "query_by_committee", "query_by_committee_kl"]
)
def test_passes_and_committees_select_images(data, name):
    options = {"model": with_dropout, "protocol": Protocol(4, budget=2, cycles=1)}
    first = experiment(data, name, **options).run()
    assert first.labeled == [4, 6]
    assert experiment(data, name, **options).run() == first


def test_vaal_learns_crops_of_images(data):
    settings = VAALSettings(width=4, batch_size=4)
    strategy = dataclasses.replace(get_strategy("vaal"), select=vaal(settings))
    strategy = strategy.with_options({"crop": 8, "latent": 3})
    shapes = []

    def recorded(images, side):
        crops = random_crops(images, side)
        shapes.append(tuple(crops.shape[1:]))
        return crops

    one = {"protocol": Protocol(4, budget=2, cycles=1), "training": Training(epochs=1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynal_fast.strategies.vaal.random_crops", recorded)
        first = experiment(data, strategy, **one).run()
    assert set(shapes) == {(3, 8, 8)}
    assert first == experiment(data, strategy, **one).run()
    whole = experiment(data, strategy.with_options({"crop": 0}), **one).run()
    assert whole.labeled == [4, 6]


def test_tiles_cover_an_image_and_crops_are_inside_it():
    image = torch.arange(63.0).reshape(1, 1, 7, 9)
    parts = [*tiles(image, 4)]
    assert {tuple(part.shape[2:]) for part in parts} == {(4, 4)}
    assert len(torch.cat([part.flatten() for part in parts]).unique()) == 63
    crops = random_crops(image.expand(50, 1, 7, 9), 4)
    assert crops.shape == (50, 1, 4, 4)
    corners = crops[:, 0, 0, 0]
    assert set((corners // 9).tolist()) == {0, 1, 2, 3}
    assert set((corners % 9).tolist()) == {0, 1, 2, 3, 4, 5}
    assert torch.equal(crops[:, 0, 3, 3], corners + 30)


def test_training_learns_the_scenes(data):
    trained = experiment(
        data,
        training=Training(epochs=30, batch_size=4, learning_rate=0.02),
        protocol=Protocol(initial=8, budget=1, cycles=0),
    ).run()
    assert trained.accuracies[0] > 0.8


def test_the_unsupervised_loss_changes_the_training(data):
    plain = experiment(data).run()
    for variant in ("ema", "cyclic"):
        training = Training(
            epochs=2, batch_size=4, learning_rate=0.003, unsupervised=variant,
            unsupervised_weight=5.0, ema_alpha=0.5,
        )  # fmt: skip
        assert experiment(data, training=training).run().accuracies != plain.accuracies


@pytest.mark.parametrize(
    ("name", "strategies"),
    [("tod/cityscapes", "cod random"), ("tod/cityscapes-task", "cod farthest_first random")],
)
def test_a_grid_by_name_with_a_share_of_the_images(root, tmp_path, name, strategies):
    config = RunConfig.from_mapping(
        {
            "preset": name,
            "scale": 0.75,
            "data_root": str(root),
            "image_size": [HEIGHT, WIDTH],
            "seeds": [0],
            "protocol": {"initial": 2, "budget": 1, "cycles": 1},
            "training": {"epochs": 1, "batch_size": 2},
        }
    )
    grid = run_grid(config, tmp_path)
    assert grid.metric == "mean IoU"
    assert grid.strategies() == strategies.split()
    assert [run.labeled for run in grid.runs] == [*[[2, 3]] * len(grid.strategies()), [9]]
    assert len(grid.runs[0].cycles[-1].by_class) == 19
    assert type(grid).load(tmp_path).metric == "mean IoU"


REFUSED = {
    "analysis": ({"analysis": True}, "analysis needs one label for each sample"),
    "balanced": ({"protocol": Protocol(4, True, 2, 1)}, "balanced needs one class"),
    "flips": ({"training": Training(horizontal_flip=True)}, "horizontal_flip needs one label"),
    "inflated": ({"protocol": Protocol(4, pool_factor=2.0)}, "pool_factor needs one label"),
    "tod-code": ({"training": Training(unsupervised="tod-code")}, "tod-code needs one label"),
    "classifier": (
        {"model": "lenet"},
        "model must be one of drn-d-22, drn-d-22-dropout to label pixels",
    ),
    "oracle": ({"strategy": "oracle"}, "strategy 'oracle' needs one label"),
    "mc dropout": ({"strategy": "mean_std"}, "strategy 'mean_std' needs one label"),
    "committee": ({"strategy": "query_by_committee+farthest_first"}, "needs one label"),
    "no dropout": ({"strategy": "bald"}, "needs dropout"),
    "dispersion": (
        {"strategy": "label_dispersion"},
        "segmentation has the scores cod, .* not 'label_dispersion'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_one_label_for_each_sample_is_refused_before_training(data, case):
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        experiment(data, **changes).check_needs()


def test_a_strategy_that_needs_predicted_labels_says_what_it_got(data):
    context = SelectionContext(
        candidates=torch.arange(3),
        labeled=torch.arange(0),
        labeled_targets=torch.arange(0),
        budget=1,
        generator=torch.Generator(),
        cycle=0,
        model=small_model(),
        strategy=get_strategy("farthest_first_stratified"),
        batches=lambda ids: data.samples.loader(ids, 2),
    )
    with pytest.raises(ValueError, match=r"needs one label.* logits \(2, 19, 16, 24\)"):
        context.predicted_labels(torch.arange(3))


def test_a_score_that_is_not_tracked_is_named():
    with pytest.raises(LookupError, match="'entropy' is not tracked; tracked are cod"):
        ImageScores(3, ("cod",)).score("entropy")
