"""What the trainers' callbacks give to `observe_pool` in the place of a tracker."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dynal_fast import PoolStats, observe_pool
from dynal_fast.integrations.process_group import Processes, SharedPool


def shared(activation="softmax"):
    stats = PoolStats(4, 3, track=("margin",), activation=activation)
    return SharedPool(stats, False, Processes.current())


def test_a_multi_label_model_is_refused_by_a_tracker_of_softmax_outputs():
    model = nn.Linear(2, 3)
    model.config = SimpleNamespace(problem_type="multi_label_classification")
    pool = [(torch.arange(4), torch.zeros(4, 2))]
    with pytest.raises(ValueError, match=r"multi_label_classification.*activation='sigmoid'"):
        observe_pool(model, pool, shared(), epoch=1, num_epochs=1)
    assert observe_pool(model, pool, shared("sigmoid"), epoch=1, num_epochs=1)


def test_multi_hot_labels_are_refused_by_a_tracker_of_softmax_outputs():
    labels = torch.tensor([[1, 1, 0]] * 4)
    pool = [{"ids": torch.arange(4), "x": torch.zeros(4, 2), "labels": labels}]
    with pytest.raises(ValueError, match="labels of a batch are multi-hot"):
        observe_pool(
            nn.Linear(2, 3), pool, shared(), epoch=1, num_epochs=1, ids="ids",
            forward=lambda model, batch: model(batch["x"]),
        )  # fmt: skip
