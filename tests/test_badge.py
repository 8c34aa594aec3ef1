"""BADGE against a transcription of its authors' definition, and in the loop."""

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast import badge, gradient_embeddings, kmeans_plusplus
from dynal_fast.experiment import ActiveLearningExperiment
from dynal_fast.strategies.registry import SelectionContext, get_strategy
from tests.cases.experiment import PROTOCOL, TRAINING, blobs


def outputs(n=60, d=7, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return rng.standard_normal((n, d)).astype(np.float32), p.astype(np.float32)


def authors_embedding(features, p):
    """What get_grad_embedding of the authors' code fills in, class by class."""
    n, d, classes = len(features), features.shape[1], p.shape[1]
    embedding = np.zeros((n, classes * d), dtype=np.float32)
    for j in range(n):
        for c in range(classes):
            weight = (1 - p[j, c]) if c == p[j].argmax() else -p[j, c]
            embedding[j, d * c : d * (c + 1)] = features[j] * weight
    return embedding


def test_gradients_are_those_of_the_loss_in_the_last_layer():
    torch.manual_seed(0)
    head, features = nn.Linear(5, 3, bias=False), torch.randn(1, 5)
    logits = head(features)
    nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
    points = gradient_embeddings(features, logits.softmax(1))
    assert torch.allclose(points.left[0, :, None] * points.right[0], head.weight.grad, atol=1e-6)


def test_the_points_are_the_authors_up_to_the_sign():
    features, p = outputs()
    points = gradient_embeddings(features, p)
    matrix = (points.left[:, :, None].numpy() * points.right[:, None, :]).reshape(60, -1)
    np.testing.assert_allclose(-matrix, authors_embedding(features, p), rtol=1e-6)
    before = p.copy()
    gradient_embeddings(features, p)
    np.testing.assert_array_equal(p, before)


def test_the_first_pick_has_the_largest_gradient_and_the_rest_is_d2_sampling():
    features, p = outputs()
    first = int(np.linalg.norm(authors_embedding(features, p), axis=1).argmax())
    for backend in ("reference", "cpu"):
        generator = torch.Generator().manual_seed(3)
        got = badge(features, p, 20, generator=generator, backend=backend)
        assert got.indices[0] == first
        want = kmeans_plusplus(
            gradient_embeddings(features, p),
            20,
            start=first,
            generator=torch.Generator().manual_seed(3),
        )
        assert torch.equal(got.indices, want.indices)
    assert len(set(got.indices.tolist())) == 20


def test_half_precision_and_certain_samples():
    features, p = outputs()
    p[:30] = np.eye(4, dtype=np.float32)[np.arange(30) % 4]  # certain: gradient 0
    got = badge(torch.from_numpy(features).bfloat16(), torch.from_numpy(p).bfloat16(), 60)
    assert sorted(got.indices.tolist()) == list(range(60))
    assert (got.indices[:31] < 30).sum() <= 1  # those are duplicates of each other
    assert badge(features[:0], p[:0], 0).indices.tolist() == []


def test_bad_outputs_are_refused_by_name():
    features, p = outputs()
    with pytest.raises(ValueError, match=r"probabilities must have shape \(60, classes\)"):
        badge(features, p[:5], 3)
    with pytest.raises(ValueError, match=r"probabilities must have shape \(60, classes\)"):
        gradient_embeddings(features, p[:, 0])
    p[7] = np.nan
    with pytest.raises(ValueError, match=r"pool\.left row 7 holds a NaN"):
        badge(features, p, 3)


@pytest.mark.usefixtures("one_thread")
def test_the_strategy_picks_by_one_pass_over_the_candidates():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Dropout(0.9), nn.Linear(6, 4))
    inputs, passes = torch.randn(50, 3), []

    def batches(ids):
        passes.append(len(ids))
        return ((part, inputs[part]) for part in ids.split(16))

    candidates = torch.arange(5, 45)
    context = SelectionContext(
        candidates=candidates,
        labeled=torch.arange(5),
        labeled_targets=torch.arange(5) % 4,
        budget=9,
        generator=torch.Generator().manual_seed(0),
        cycle=0,
        model=model,
        strategy=get_strategy("badge"),
        batches=batches,
    )
    picks = context.strategy.select(context)
    assert passes == [40]
    assert model.training
    model.eval()
    with torch.no_grad():
        features = model[:3](inputs[candidates])
        p = model[3](features).softmax(1)
    want = badge(features, p, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(picks, candidates[want.indices])


def test_logits_are_not_taken_for_probabilities():
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="probabilities must be between 0 and 1, got -1 to 2: p"):
        badge(torch.ones(2, 3), logits, 1)
    rounded = torch.tensor([[1.0, 0.0], [1.002, 0.0]], dtype=torch.float16)
    assert len(badge(torch.ones(2, 3), rounded, 1).indices) == 1


@pytest.mark.usefixtures("one_thread")
def test_the_strategy_in_the_loop():
    def run():
        experiment = ActiveLearningExperiment(
            blobs(), "mlp", "badge", protocol=PROTOCOL, training=TRAINING
        )
        return [cycle.selected for cycle in experiment.run().cycles]

    first, second = run(), run()
    assert sum(map(len, first)) > 0
    assert first == second
