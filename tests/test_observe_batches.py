"""Sample ids in the batches of a pool: where they are, and what they may be."""

import types
from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import (
    DataLoader,
)

from dynal_fast import PoolImages
from tests.cases.observe import (
    ORDER,
    Graphs,
    Images,
    Linear,
    N,
    Named,
    Raises,
    Recorder,
    X,
    Y,
    run,
    want,
)


class Series:
    """As one of pandas with a filtered index: an array by position, else looked up by label."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        raise KeyError(label)


def shuffled(make):
    """Batches of 4 in some order, made of their ids and inputs."""
    return [make(ids, X[ids]) for ids in ORDER.split(4)]


POOLS = {
    "pair": (shuffled(lambda ids, x: (ids, x)), None),
    "list": (shuffled(lambda ids, x: [ids, x]), None),
    "explicit": (shuffled(lambda ids, x: (ids, x)), 0),
    "inputs first": (shuffled(lambda ids, x: (x, ids)), 1),
    "from the end": (shuffled(lambda ids, x: (x, ids)), -1),
    "with targets": (shuffled(lambda ids, x: (x, Y[ids], ids)), 2),
    "ids first": (shuffled(lambda ids, x: (ids, x, Y[ids])), 0),
    "ids between": (shuffled(lambda ids, x: (x, ids, Y[ids])), np.int64(1)),
    "named": (shuffled(lambda ids, x: Named(x, Y[ids], ids)), "idx"),
    "named by position": (shuffled(lambda ids, x: Named(x, Y[ids], ids)), 2),
    "more parts": (shuffled(lambda ids, x: (x, None, ["a"] * len(ids), ids)), -1),
    "ids in a list": (shuffled(lambda ids, x: (ids.tolist(), x)), None),
    "ids in a tuple": (shuffled(lambda ids, x: (x, tuple(ids.tolist()))), 1),
    "ids as numbers": (shuffled(lambda ids, x: (list(ids), x)), None),
    "ids as an array": (shuffled(lambda ids, x: (ids.numpy(), x)), None),
    "ids of uint8": (shuffled(lambda ids, x: (ids.numpy().astype(np.uint8), x)), None),
    "ids of uint64": (shuffled(lambda ids, x: (ids.numpy().astype(np.uint64), x)), None),
    "ids of int16": (shuffled(lambda ids, x: (ids.short(), x)), None),
    "ids of int32": (shuffled(lambda ids, x: (ids.int(), x)), None),
    "ids in a Series": (shuffled(lambda ids, x: (Series(ids.numpy()), x)), None),
    "a column of ids": (shuffled(lambda ids, x: (ids[:, None], x)), None),
}


@pytest.mark.parametrize("name", POOLS)
def test_ids_are_found_where_they_are(name):
    pool, ids = POOLS[name]
    stats = run(Linear(), pool, ids=ids)
    assert stats.ids() == ORDER.tolist()
    assert torch.equal(stats.outputs(), want())
    assert all(batch[0].dtype in (torch.int64, torch.int32) for batch in stats.passes[0])


@pytest.mark.parametrize(
    ("batch", "options", "error", "message"),
    [
        (X, {}, TypeError, r"must be \(sample_ids, inputs\), got Tensor; .*ids= says so"),
        (
            (torch.arange(N), X, Y),
            {},
            TypeError,
            r"tuple of \(Tensor, Tensor, Tensor\); .*ids=",
        ),
        ((X,), {}, TypeError, r"got tuple of \(Tensor\)"),
        ((X,), {"ids": 0}, ValueError, "ids=0 must be a position in the batch, beside the inputs"),
        (
            (X, Y),
            {},
            ValueError,
            r"\(batch,\) int.* got \(11, 6\) torch.float32; .*\"pos",
        ),
        ((X, Y), {"ids": 2}, ValueError, "ids=2 must be a position in the batch"),
        ((X, Y), {"ids": -3}, ValueError, "ids=-3 must be a position in the batch"),
        ((X, Y), {"ids": "idx"}, ValueError, "ids='idx' is no part of .* positions only"),
        (Named(X, Y, Y), {"ids": "id"}, ValueError, "ids='id' is no .* named inputs, targets, idx"),
        ({"x": X, "y": Y}, {}, TypeError, "dict with the keys 'x', 'y': ids= must name the one"),
        ({"x": X, "y": Y}, {"ids": 1}, TypeError, "ids= must name the one .* got ids=1"),
        ({"x": X, "y": Y}, {"ids": "idx"}, ValueError, "ids='idx' is no key .* have 'x', 'y'"),
        ((torch.rand(N), X), {}, ValueError, r"got \(11,\) torch.float32"),
        ((torch.rand(N) > 1, X), {}, ValueError, r"got \(11,\) torch.bool"),
        ((np.ones(N), X), {}, ValueError, "got .* torch.float64"),
        (([1.5] * N, X), {}, ValueError, "got .* torch.float32"),
        ((["a.png"] * N, X), {}, TypeError, "the samples' rows in the tracker, got list of str"),
        ((None, X), {}, TypeError, "got NoneType"),
        ((torch.tensor(3), X), {}, ValueError, r"got \(\) torch.int64"),
        ((3, X[0]), {}, ValueError, r"got \(\) torch.int64"),
        ((torch.zeros(N, 2).long(), X), {}, ValueError, r"got \(11, 2\) torch.int64"),
        ((torch.arange(N - 1), X), {}, ValueError, "10 ids for 11 samples"),
        ((torch.arange(N), X[:1]), {}, ValueError, "11 ids for 1 samples"),
        ((torch.arange(3), torch.zeros(5, 3, 8, 8)), {}, ValueError, "3 ids for 5 samples"),
        ((torch.arange(3), ["a", "b"]), {}, ValueError, "3 ids for 2 samples"),
        (({"a": X, "b": X}, torch.arange(3)), {"ids": 1}, ValueError, "3 ids for 11 samples"),
        (("text", X), {}, TypeError, "got str"),
        ("text", {}, TypeError, "got str"),
    ],
)
def test_ids_are_checked_before_the_forward_pass(batch, options, error, message):
    stats = Recorder()
    with pytest.raises(error, match=message):
        run(Raises(), [batch], stats, **options)
    assert stats.passes == []


@pytest.mark.parametrize("ids", [True, 1.0, [0], ("idx",), b"idx"])
def test_ids_of_another_type_are_refused(ids):
    with pytest.raises(TypeError, match="ids must be"):
        run(Raises(), [(torch.arange(N), X)], ids=ids)


@pytest.mark.parametrize(
    ("inputs", "forward"),
    [
        (torch.zeros(5, 3, 6), "time first"),
        (torch.zeros(5, 3, dtype=torch.long), "tokens, time first"),
        ((torch.zeros(70, 4), torch.zeros(2, 99)), "a graph"),
        ({"pos": torch.zeros(70, 3), "batch": torch.zeros(70, dtype=torch.long)}, "points"),
        ([torch.zeros(5, 4, 4), torch.zeros(5, 6, 6), torch.zeros(5, 2, 2)], "images of any size"),
        (pack_sequence([X, X, X]), "packed"),
        (types.SimpleNamespace(x=X), "anything"),
    ],
)
def test_inputs_that_do_not_tell_their_number_are_not_refused(inputs, forward):
    class Three(nn.Module):
        def forward(self, inputs):
            return torch.zeros(3, 2)

    if isinstance(inputs, dict):
        inputs = UserDict(inputs)
    assert run(Three(), [(torch.arange(3), inputs)]).ids() == [0, 1, 2]


@pytest.mark.parametrize("ids", ["position", 0, "idx"])
def test_pool_images_have_ids_of_their_own(ids):
    pool = PoolImages(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), mean=0, std=1)
    with pytest.raises(ValueError, match="ids must be left out for PoolImages"):
        run(Raises(), pool, ids=ids)


def test_objects_may_hold_ids_beside_the_inputs():
    class Model(Linear):
        def forward(self, graphs):
            return self.linear(graphs.x)

    ids = torch.arange(N)
    assert run(Model(), [Graphs(X, ids)], ids="idx").ids() == ids.tolist()
    pool = [types.SimpleNamespace(x=X, idx=ids)]
    assert run(Model(), pool, ids="idx").ids() == ids.tolist()


def test_a_shuffled_loader_with_ids_is_right_with_any_form():
    data = Images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    stats = run(model, DataLoader([(x, i) for i, x in data], 5, shuffle=True), ids=1)
    with torch.no_grad():
        torch.testing.assert_close(stats.outputs(), model(data.images))
