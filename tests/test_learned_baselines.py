"""LL4AL, TA-VAAL, SRAAL, UncertainGCN and CoreGCN: their definitions, and runs of the loop."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dynal_fast import farthest_first
from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training, load_data
from dynal_fast.models import build_model
from dynal_fast.models.loss_prediction import (
    LossPredicting,
    feature_layers,
    margin_ranking_loss,
    ranking_cross_entropy,
)
from dynal_fast.strategies.graph import Graph, GraphNetwork, train_graph
from dynal_fast.strategies.registry import SelectionContext, get_strategy
from dynal_fast.strategies.sraal import SRAALSettings, sraal, uncertainty
from dynal_fast.strategies.vaal import VAALSettings, ta_vaal

pytestmark = pytest.mark.usefixtures("one_thread")

NODES = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])


def dense_adjacency(nodes, columns):
    similar = nodes @ nodes.T - np.eye(len(nodes))
    sums = similar.sum(1)
    return (similar / sums if columns else similar / sums[:, None]) + np.eye(len(nodes))


@pytest.mark.parametrize("columns", [False, True])
def test_the_graph_is_the_dense_adjacency(columns):
    embeddings = torch.rand(30, 7, generator=torch.Generator().manual_seed(0))
    nodes = functional.normalize(embeddings).double().numpy()
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    want = dense_adjacency(nodes, columns) @ features.double().numpy()
    np.testing.assert_allclose(Graph(embeddings, columns) @ features, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        (False, [[3.3, 0], [3.871429, 0], [4.3, 0.2]]),
        (True, [[2.042857, 0], [5.3, 0], [3.357143, 0.285714]]),
    ],
)
def test_a_graph_convolution_by_hand(columns, want):
    network = GraphNetwork(2, hidden=2).eval()
    network.first.weight.data = torch.tensor([[1.0, -1.0], [2.0, 0.5]]).T
    network.first.bias.data = torch.tensor([0.1, -0.1])
    hidden, odds = network(Graph(NODES, columns))
    torch.testing.assert_close(hidden, torch.tensor(want), rtol=1e-4, atol=1e-5)
    dense = torch.tensor(dense_adjacency(NODES.numpy(), columns)).float()
    second = dense @ functional.linear(hidden, network.second.weight) + network.second.bias
    torch.testing.assert_close(odds, second[:, 0], rtol=1e-4, atol=1e-5)


def test_a_sample_like_no_other_is_a_node_of_its_own():
    graph = Graph(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    product = graph @ torch.eye(4)
    assert torch.isfinite(product).all()
    assert product[0].tolist() == [1, 0, 0, 0]


def blobs(seed=0):
    """Labeled and unlabeled samples around one centre, and unlabeled ones elsewhere: 100-119."""
    inputs = torch.randn(120, 6, generator=torch.Generator().manual_seed(seed)) / 4
    inputs[:, 0] += 1
    inputs[100:, 0] -= 1
    inputs[100:, 1] += 1
    return inputs


def context_of(name, inputs, budget, model=None, seed=1, epochs=8, **options):
    strategy = get_strategy(name).with_options(options)
    return SelectionContext(
        candidates=torch.arange(40, 120),
        labeled=torch.arange(40),
        labeled_targets=torch.arange(40) % 2,
        budget=budget,
        generator=torch.Generator().manual_seed(seed),
        cycle=0,
        model=model or nn.Linear(6, 2),
        strategy=strategy,
        batches=lambda ids: ((part, inputs[part]) for part in ids.split(32)),
        embedder=lambda ids: inputs[ids],
        epochs=epochs,
    )


def test_core_gcn_is_farthest_first_in_the_hidden_layer():
    context = context_of("core_gcn", blobs(), 10, epochs=1)
    context.strategy = context.strategy.with_options({"epochs": 20})
    picks = context.strategy.select(context)
    again = context_of("core_gcn", blobs(), 10)
    with torch.random.fork_rng([]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=again.generator)))
        inputs = blobs()
        trained = train_graph(
            inputs[:40], inputs[40:], epochs=20, unlabeled_weight=1.2, columns=False
        )
    want = farthest_first(trained.hidden[40:], 10, labeled=trained.hidden[:40])
    assert picks.tolist() == (40 + want.indices).tolist()
    assert trained.odds[:40].mean() > trained.odds[60:].mean()  # it tells labeled nodes


@pytest.mark.parametrize("code", [0, 1])
def test_uncertain_gcn_ranks_by_the_distance_from_the_margin(code):
    context = context_of("uncertain_gcn", blobs(), 5)
    context.strategy = context.strategy.with_options({"epochs": 10, "code": code})
    picks = context.strategy.select(context)
    scores = context.scores["uncertain_gcn"]
    assert (scores <= 0).all() if code else (scores >= 0).all()
    assert sorted(picks.tolist()) == sorted((40 + scores.topk(5).indices).tolist())


def test_wrong_options_of_the_graph_are_refused():
    context = context_of("core_gcn", blobs(), 5)
    context.strategy = context.strategy.with_options({"epochs": 0})
    with pytest.raises(ValueError, match=r"core_gcn\.epochs must be at least 1, got 0"):
        context.strategy.select(context)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("mlp", (6,), 2),
        ("cnn", (1, 8, 8), 3),
        ("lenet", (1, 8, 8), 2),
        ("resnet18", (3, 8, 8), 4),
        ("vgg16", (3, 32, 32), 4),
    ],
)
def test_every_model_of_the_papers_has_features(name, shape, count):
    model = build_model(name, shape, 5)
    assert len(feature_layers(model)) == count
    predicting = LossPredicting(model, shape).eval()
    inputs = torch.randn(3, *shape)
    logits, losses = predicting.with_losses(inputs)
    assert losses.shape == (3,)
    assert torch.equal(logits, predicting(inputs))


def test_the_loss_module_has_the_authors_size():
    predicting = LossPredicting(build_model("resnet18", (3, 8, 8), 10), (3, 8, 8))
    assert sum(weight.numel() for weight in predicting.predictor.parameters()) == 123_905


def test_a_model_without_features_is_refused():
    with pytest.raises(ValueError, match="Linear has no intermediate features"):
        LossPredicting(nn.Linear(3, 2), (3,))


def test_ranking_losses_by_hand():
    rng = np.random.default_rng(0)
    predicted, losses = rng.normal(size=(2, 9))
    losses[2] = losses[6]  # a tie
    margin, entropy = [], []
    for k in range(4):
        a, b = predicted[k], predicted[8 - k]
        larger = losses[k] > losses[8 - k]
        margin.append(max(0, 0.5 - (1 if larger else -1) * (a - b)))
        probability = 1 / (1 + np.exp(b - a))
        entropy.append(-np.log(probability if larger else 1 - probability))
    tensors = torch.tensor(predicted), torch.tensor(losses)
    assert margin_ranking_loss(*tensors, 0.5).item() == pytest.approx(np.mean(margin), rel=1e-12)
    assert ranking_cross_entropy(*tensors).item() == pytest.approx(np.mean(entropy), rel=1e-12)
    one = torch.ones(1)
    assert margin_ranking_loss(one, one).item() == ranking_cross_entropy(one, one).item() == 0


def test_the_ranking_gradient_reaches_the_model_in_the_first_epochs_only():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs, targets = torch.randn(10, 6), torch.arange(10) % 2
    gradients = []
    for progress, weight in [(0.0, 1.0), (0.7, 1.0), (0.0, 0.0)]:
        predicting = LossPredicting(copy.deepcopy(model), (6,), weight=weight, flow=0.605)
        for parameter in predicting.predictor.parameters():
            nn.init.constant_(parameter, 0.1)
        predicting.loss(inputs, targets, progress).backward()
        gradients.append(predicting.model[0].weight.grad)
    assert not torch.equal(gradients[0], gradients[2])
    assert torch.equal(gradients[1], gradients[2])


def test_ll4al_picks_the_highest_predicted_losses():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    predicting, inputs = LossPredicting(model, (6,)), blobs()
    context = context_of("ll4al", inputs, 7, predicting)
    picks = context.strategy.select(context)
    predicted = predicting.eval().with_losses(inputs[40:])[1]
    assert picks.tolist() == (40 + predicted.topk(7).indices).tolist()


def test_a_plain_model_predicts_no_losses():
    context = context_of("ll4al", blobs(), 7)
    with pytest.raises(TypeError, match="'ll4al' needs a LossPredicting model, got Linear"):
        context.strategy.select(context)


def test_the_indicator_of_sure_and_unsure_outputs():
    outputs = torch.tensor([[1.0, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]], dtype=torch.float64)
    found = uncertainty(outputs)
    assert found[0].item() == pytest.approx(0)
    assert found[1].item() == pytest.approx(2 / 3)
    # MINVar of a maximum of 0.5 is that of [0.5, 0.25, 0.25].
    want = 1 - 0.5 * np.var([0.5, 0.25, 0.25]) / np.var([0.5, 0.5, 0])
    assert found[2].item() == pytest.approx(want)


def test_sraal_picks_what_is_unlike_the_labeled_and_unsure():
    inputs = blobs() * 4
    model = nn.Linear(6, 2)
    nn.init.zeros_(model.weight)  # unsure of all
    nn.init.zeros_(model.bias)
    settings = SRAALSettings(latent=4, batch_size=32)
    picks = sraal(settings)(context_of("sraal", inputs, 15, model, epochs=16))
    assert (picks >= 100).float().mean() > 0.5  # a quarter by chance


def test_ta_vaal_sees_the_predicted_losses():
    inputs = blobs()
    inputs[:, :2] = 0  # nothing else tells the unlabeled from the labeled
    model = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 2))
    predicting = LossPredicting(model, (6,))

    class Ranked(LossPredicting):
        def with_losses(self, batch, flows=True):
            return self.model(batch), (batch[:, 2:].sum(1) > 0.4).float() * 8

    predicting.__class__ = Ranked
    context = context_of("ta_vaal", inputs, 10, predicting, epochs=12)
    context.labeled = context.labeled[inputs[:40, 2:].sum(1) <= 0.4]
    picks = ta_vaal(VAALSettings(latent=4, batch_size=16))(context)
    assert (inputs[picks, 2:].sum(1) > 0.4).float().mean() > 0.8


@pytest.mark.parametrize("name", ["ll4al", "uncertain_gcn", "core_gcn", "sraal"])
def test_the_loop_runs_and_resumes(name, tmp_path):
    settings = {
        "protocol": Protocol(initial=40, budget=10, cycles=2, subset=100),
        "training": Training(epochs=2),
    }
    strategy = get_strategy(name)
    if "gcn" in name:
        strategy = strategy.with_options({"epochs": 10})
    if name == "sraal":
        strategy = dataclasses.replace(strategy, select=sraal(SRAALSettings(latent=4, width=4)))
    data = load_data("digits")
    whole = ActiveLearningExperiment(data, "mlp", strategy, **settings).run()
    stopped = ActiveLearningExperiment(data, "mlp", strategy, directory=tmp_path, **settings)

    def stop(cycle, epoch):
        if (cycle, epoch) == (1, 2):
            raise KeyboardInterrupt

    stopped.on_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = ActiveLearningExperiment(data, "mlp", strategy, directory=tmp_path, **settings).run()
    assert whole.labeled == [40, 50, 60]
    assert [cycle.selected for cycle in resumed.cycles] == [c.selected for c in whole.cycles]
    assert [cycle.accuracy for cycle in resumed.cycles] == [c.accuracy for c in whole.cycles]


def test_a_ranking_loss_and_an_unsupervised_one_are_refused_together():
    with pytest.raises(ValueError, match=r"'ll4al' trains the model with a ranking loss"):
        ActiveLearningExperiment(
            load_data("digits"), "mlp", "ll4al", training=Training(unsupervised="ema")
        )
