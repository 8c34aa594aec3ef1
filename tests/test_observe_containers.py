"""Containers of tensors: inputs keep their types, and the batch stays as it was."""

import collections
import types
from collections import OrderedDict, UserDict

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from dynal_fast.pool.containers import map_tensors
from tests.cases.observe import (
    Encoding,
    Graphs,
    Keywords,
    Linear,
    N,
    Named,
    Output,
    OwnMapping,
    X,
    run,
)


def test_the_batch_itself_is_left_as_it_was():
    batch = {"input_ids": X, "attention_mask": torch.ones(N), "idx": torch.arange(N)}
    for pool in ([batch], [Encoding(batch)], [OwnMapping(batch)]):
        run(Keywords(), pool, ids="idx")
        run(Keywords(), pool, ids="idx")
        assert pool[0]["input_ids"] is X
        assert set(pool[0]) == {"input_ids", "attention_mask", "idx"}


@pytest.mark.parametrize(
    "inputs",
    [
        Named(X, None, "text"),
        (X, None, ["text"], 3),
        [X, "text"],
        {"x": X, "y": [X, (X,)]},
        OrderedDict(x=X),
        collections.defaultdict(list, x=X),
        UserDict(x=X, y=None),
        Encoding({"x": X, "y": "text"}, encodings="kept"),
        Graphs(X, X),
        Output(X),
        types.SimpleNamespace(x=X),
        pack_sequence([X, X[:2]], enforce_sorted=False),
    ],
)
def test_inputs_keep_their_types(inputs):
    seen = []

    def forward(model, given):
        seen.append(given)
        return model(X)

    run(Linear(), [(torch.arange(N), inputs)], forward=forward)
    assert type(seen[0]) is type(inputs)
    assert getattr(seen[0], "encodings", None) == getattr(inputs, "encodings", None)
    doubled = map_tensors(lambda tensor: 2 * tensor, inputs)
    assert type(doubled) is type(inputs)
    if isinstance(inputs, PackedSequence):
        assert doubled.batch_sizes is inputs.batch_sizes
        assert torch.equal(doubled.data, 2 * inputs.data)


class Pair(tuple):
    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Two(list):
    def __init__(self, first, second):
        super().__init__([first, second])


@pytest.mark.parametrize(("kind", "plain"), [(Pair, tuple), (Two, list)])
def test_containers_that_cannot_be_made_of_their_parts_become_plain_ones(kind, plain):
    got = map_tensors(torch.neg, kind(torch.tensor(1), None))
    assert type(got) is plain
    assert got == plain([torch.tensor(-1), None])


def test_map_tensors_maps_every_tensor_and_nothing_else():
    one = torch.tensor(1)
    value = Named([one, {"a": (one, "text")}], Graphs(one, one), None)
    got = map_tensors(torch.neg, value)
    assert got == Named([-one, {"a": (-one, "text")}], Graphs(-one, -one), None)
    assert value.inputs[0] is one
    assert value.targets.x is one
