"""Samples known by their position in a pool whose order is certain."""

import types
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from dynal_fast import PoolStats, observe_pool
from tests.cases.observe import (
    Linear,
    N,
    Named,
    Raises,
    Recorder,
    TakesDict,
    X,
    Y,
    run,
    want,
)


class Stream(IterableDataset):
    def __init__(self, samples=X):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def rows_of(targets):
    return [{"x": x, "y": y} for x, y in zip(X, targets, strict=True)]


IN_ORDER = {
    "plain": lambda: DataLoader(X, 4),
    "with targets": lambda: DataLoader(list(zip(X, Y, strict=True)), 4),
    "dicts": lambda: DataLoader([{"x": x} for x in X], 4),
    "named": lambda: [Named(X[:4], 1, 2), Named(X[4:], 1, 2)],
    "workers": lambda: DataLoader(X, 4, num_workers=2),
    "sampler": lambda: DataLoader(X, 4, sampler=SequentialSampler(X)),
    "range": lambda: DataLoader(X, 4, sampler=range(N)),
    "list": lambda: DataLoader(X, 4, sampler=list(range(N))),
    "batch sampler": lambda: DataLoader(X, batch_sampler=BatchSampler(range(N), 4, False)),
    "whole batches": lambda: DataLoader([X[:4], X[4:8], X[8:]], batch_size=None),
    "stream": lambda: DataLoader(Stream(), 4),
    "stream, one worker": lambda: DataLoader(Stream(), 4, num_workers=1),
    "stream of dicts with targets": lambda: DataLoader(Stream(rows_of(Y)), 4),
    "dicts of batches": lambda: [{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}],
    "batches": lambda: [X[:4], X[4:]],
    "a tuple of batches": lambda: ((X[:4], Y[:4]), (X[4:], Y[4:])),
}


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize("mc_passes", [0, 2])
def test_positions_in_a_loader_that_keeps_the_order(name, mc_passes):
    model = TakesDict() if "dicts" in name else Linear()
    if mc_passes:
        model.linear = nn.Sequential(nn.Dropout(0.5), model.linear)
    stats = run(model, IN_ORDER[name](), ids="position", mc_passes=mc_passes)
    assert len(stats.passes) == max(1, mc_passes)
    for index in range(len(stats.passes)):
        assert stats.ids(index) == list(range(N))
    if not mc_passes:
        assert torch.equal(stats.outputs(), want())


def test_positions_of_texts():
    class Texts(nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(text)), 0.0] for text in texts])

    loader = DataLoader(["a" * i for i in range(N)], 4)
    assert run(Texts(), loader, ids="position").outputs()[:, 0].tolist() == list(range(N))


def test_positions_of_a_loader_that_drops_the_last_batch():
    loader = DataLoader(X, 4, drop_last=True)
    assert run(Linear(), loader, ids="position", partial=True).ids() == list(range(8))
    stats = PoolStats(N, 3, track=("margin",))
    with pytest.raises(ValueError, match="3 samples not seen"):
        observe_pool(Linear(), loader, stats, epoch=1, num_epochs=1, ids="position")


class Sorted(Sampler):
    """By length, say."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(range(self.n))


class Reversed(SequentialSampler):
    def __iter__(self):
        return iter(range(len(self.data_source) - 1, -1, -1))


class Buckets(BatchSampler):
    def __iter__(self):
        return iter([[1, 0], [3, 2]])


SHUFFLED = {
    "shuffle": (lambda: DataLoader(X, 4, shuffle=True), "RandomSampler"),
    "random": (lambda: DataLoader(X, 4, sampler=RandomSampler(X)), "RandomSampler"),
    "subset": (lambda: DataLoader(X, 4, sampler=SubsetRandomSampler([3, 1])), "SubsetRandom"),
    "weighted": (
        lambda: DataLoader(X, 4, sampler=WeightedRandomSampler([1.0] * N, N)),
        "WeightedRandomSampler",
    ),
    "distributed": (
        lambda: DataLoader(X, 4, sampler=DistributedSampler(X, 2, 0, shuffle=False)),
        "DistributedSampler",
    ),
    "own sampler": (lambda: DataLoader(X, 4, sampler=Sorted(N)), "Sorted"),
    "own order": (lambda: DataLoader(X, 4, sampler=Reversed(X)), "Reversed"),
    "list": (lambda: DataLoader(X, 4, sampler=[2, 0, 1]), "list"),
    "batch sampler": (
        lambda: DataLoader(X, batch_sampler=BatchSampler(RandomSampler(X), 4, False)),
        "RandomSampler",
    ),
    "own batch sampler": (
        lambda: DataLoader(X, batch_sampler=Buckets(SequentialSampler(X), 2, False)),
        "Buckets",
    ),
    "list of batches": (lambda: DataLoader(X, batch_sampler=[[1, 0], [2]]), "list"),
    "whole batches": (lambda: DataLoader(X.split(4), batch_size=None, shuffle=True), "Random"),
    "workers of a stream": (lambda: DataLoader(Stream(), 4, num_workers=2), "2 workers"),
    "iterator": (lambda: iter(DataLoader(X, 4)), "got _SingleProcessDataLoaderIter"),
    "generator": (lambda: (x for x in X.split(4)), "got generator"),
}


@pytest.mark.parametrize("name", SHUFFLED)
def test_positions_are_refused_where_the_order_is_not_certain(name):
    pool, message = SHUFFLED[name]
    stats = Recorder(wanted=False)  # in the first epoch, not in the one that is observed
    with pytest.raises(ValueError, match=f'ids="position" needs .*{message}.*; let the data set'):
        observe_pool(Raises(), pool(), stats, epoch=1, num_epochs=2, ids="position")


@pytest.mark.skipif(
    not hasattr(DataLoader(X), "in_order"), reason="torch older than 2.6 always keeps the order"
)
def test_positions_are_refused_where_workers_may_overtake_each_other():
    with pytest.raises(ValueError, match="in_order=False"):
        run(Raises(), DataLoader(X, 4, num_workers=2, in_order=False), ids="position")


def test_a_collate_function_that_leaves_samples_out_does_not_shift_positions():
    def collate(samples):
        return torch.stack([x for x in samples if not torch.equal(x, X[5])])

    loader = DataLoader(X, 4, collate_fn=collate)
    stats = Recorder()
    with pytest.raises(ValueError, match=r'ids="position": batch 1 holds 3 samples.*put 4 into it'):
        run(Linear(), loader, stats, ids="position")
    with pytest.raises(ValueError, match=r"logits \(3, 3\) for 4 ids"):
        run(Linear(), loader, ids="position", forward=lambda model, inputs: model(inputs))


def test_positions_need_to_know_how_many_samples_a_batch_holds():
    with pytest.raises(TypeError, match='ids="position" cannot tell how many samples a Simple'):
        run(Raises(), [types.SimpleNamespace(x=X)], ids="position")
    for batch in ({"position": X}, namedtuple("Batch", "x position")(X, X)):
        with pytest.raises(ValueError, match='ids="position" is ambiguous'):
            run(Raises(), [batch], ids="position")
