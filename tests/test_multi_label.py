"""A multi-label problem is observed with sigmoids or refused, where something tells what it is."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dynal_fast import PoolStats, observe_pool
from dynal_fast.pool.discrepancy import model_discrepancy, temporal_output_discrepancy

REFUSED = r"'multi_label_classification', and the tracker takes the softmax .*activation='sigmoid'"


class Classifier(nn.Module):
    """Decides on its problem when it sees labels, as Hugging Face's models do."""

    def __init__(self, problem_type=None):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.config = SimpleNamespace(problem_type=problem_type)

    def forward(self, x, labels=None):
        if labels is not None:
            self.config.problem_type = "multi_label_classification"
        return SimpleNamespace(logits=self.linear(x))


def tracker(activation):
    return PoolStats(4, 3, ("margin",), activation=activation)


def pool(**others):
    return [{"id": torch.arange(4), "x": torch.randn(4, 2), **others}]


@pytest.mark.parametrize("wrapped", [False, True])
def test_models_that_say_so_need_sigmoids(wrapped):
    model = Classifier("multi_label_classification")
    model = nn.DataParallel(model) if wrapped else model
    stats = tracker("softmax")
    with pytest.raises(ValueError, match=REFUSED):
        observe_pool(model, pool(), stats, epoch=1, num_epochs=1, ids="id")
    assert stats.score("margin").isnan().all()
    stats = tracker("sigmoid")
    assert observe_pool(model, pool(), stats, epoch=1, num_epochs=1, ids="id")
    assert stats.score("margin").isfinite().all()
    with pytest.raises(ValueError, match=r"'single_label_classification'.*activation='softmax'"):
        observe_pool(
            Classifier("single_label_classification"),
            pool(),
            stats,
            epoch=1,
            num_epochs=1,
            ids="id",
        )


def test_a_model_that_its_labels_tell_is_refused():
    one_hot = pool(labels=torch.eye(4, 3))
    one_hot[0]["labels"][3, 0] = 1
    with pytest.raises(ValueError, match=REFUSED):
        observe_pool(Classifier(), one_hot, tracker("softmax"), epoch=1, num_epochs=1, ids="id")


@pytest.mark.parametrize("name", ["labels", "targets"])
def test_multi_hot_labels_need_sigmoids(name):
    batches = pool(**{name: torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]])})

    def forward(model, inputs):
        return model(inputs["x"])

    options = {"epoch": 1, "num_epochs": 1, "ids": "id", "forward": forward}
    with pytest.raises(ValueError, match=f"{name} of a batch are multi-hot.*activation='sigmoid'"):
        observe_pool(nn.Linear(2, 3), batches, tracker("softmax"), **options)
    assert observe_pool(nn.Linear(2, 3), batches, tracker("sigmoid"), **options)
    batches[0][name] = torch.eye(4, 3)
    batches[0][name][3, 0] = 1
    assert observe_pool(nn.Linear(2, 3), batches, tracker("softmax"), **options)


def test_discrepancy_of_sigmoids():
    now, before = torch.randn(2, 5, 3).unbind()
    want = (now.sigmoid() - before.sigmoid()).norm(dim=1)
    torch.testing.assert_close(temporal_output_discrepancy(now, before, "sigmoid"), want)
    assert not torch.allclose(temporal_output_discrepancy(now, before), want)
    with pytest.raises(ValueError, match="activation must be one of"):
        temporal_output_discrepancy(now, before, "softmin")
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    x = torch.randn(4, 2)
    _, scores = model_discrepancy(one, other, [(torch.arange(4), x)], activation="sigmoid")
    want = (one(x).sigmoid() - other(x).sigmoid()).norm(dim=1)
    torch.testing.assert_close(scores, want.detach())
