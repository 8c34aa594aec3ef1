"""Embeddings that the observing pass writes: the same as a pass of their own, and where they go."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast import (
    PoolObservationError,
    PoolStats,
    embedding_store,
    farthest_first,
    load_embeddings,
    observe_pool,
)
from dynal_fast.experiment import (
    ActiveLearningExperiment,
    Protocol,
    SampleSet,
    Training,
    load_data,
)
from dynal_fast.experiment import observation as observation_module
from dynal_fast.experiment import selection as selection_module
from dynal_fast.experiment.models import embed_samples
from dynal_fast.models import build_model
from dynal_fast.pool.store import redirected

N, CLASSES = 37, 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, CLASSES)
    )


def inputs():
    return torch.randn(N, 6, generator=torch.Generator().manual_seed(1))


def pool(n=N, batch=8):
    return [(ids, inputs()[ids]) for ids in torch.arange(n).flip(0).split(batch)]


def observed(model, store, batches=None, **options):
    stats = PoolStats(N, CLASSES, track=("margin",))
    options = {"epoch": 1, "num_epochs": 1, "progress": False, **options}
    observe_pool(model, pool() if batches is None else batches, stats, embeddings=store, **options)
    return stats


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", ["memory", ".safetensors", ".npy"])
def test_one_pass_gives_the_embeddings_of_a_pass_of_their_own(dtype, place, tmp_path):
    if place == ".npy" and dtype == torch.bfloat16:
        with pytest.raises(ValueError, match=r"no bfloat16: name it \.safetensors"):
            embedding_store(network(), N, dtype=dtype, path=tmp_path / "x.npy")
        return
    model = network()
    path = None if place == "memory" else tmp_path / f"x{place}"
    store = embedding_store(model, N, dtype=dtype, path=path)
    assert (tuple(store.shape), store.dtype) == ((N, 9), dtype)
    assert store.isnan().all()
    plain = observed(model, None).score("margin")
    assert torch.equal(observed(model, store).score("margin"), plain)
    own = embed_samples(model, reversed(pool()), N, torch.device("cpu"))
    rows = torch.cat([ids for ids, _ in reversed(pool())])
    expected = torch.empty_like(own).index_copy_(0, rows, own).to(dtype)
    assert torch.equal(store, expected)
    picks = farthest_first(store, 5, labeled=store[:2].clone(), progress=False)
    other = farthest_first(expected, 5, labeled=expected[:2], progress=False)
    assert picks.indices.tolist() == other.indices.tolist()
    if path is not None:
        read = (
            torch.as_tensor(np.asarray(load_embeddings(path).array).copy())
            if (dtype != torch.bfloat16)
            else load_embeddings(path).array
        )
        assert read.dtype == dtype
        assert torch.equal(read, expected)


def test_samples_that_the_pass_does_not_see_stay_nan():
    model = network()
    store = embedding_store(model, N)
    observed(model, store, pool(20), partial=True)
    assert not store[:20].isnan().any()
    assert store[20:].isnan().all()


def test_arrays_and_other_tensors_will_do():
    model = network()
    array, tensor = np.zeros((N, 9), np.float16), torch.zeros(N, 9)
    observed(model, array)
    observed(model, tensor)
    assert torch.equal(torch.from_numpy(array), tensor.half())
    assert tensor.abs().sum() > 0


def test_training_is_the_same_with_and_without_a_store():
    def trained(store):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            model.train()
            nn.functional.cross_entropy(model(inputs()), torch.arange(N) % CLASSES).backward()
            optimizer.step()
            if store:
                observed(model, embedding_store(model, N), epoch=1)
                assert not any(layer._forward_pre_hooks for layer in model.modules())
        return model.state_dict(), torch.get_rng_state()

    (with_store, state), (without, other) = trained(True), trained(False)
    assert all(torch.equal(with_store[name], without[name]) for name in without)
    assert torch.equal(state, other)


def test_a_named_head_and_spatial_embeddings():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, CLASSES, 1), nn.Flatten())
    images = torch.randn(N, 1, 3, 3)
    store = embedding_store(model, N, head="1")
    observed(model, store, [(torch.arange(N), images)], head="1")
    assert torch.equal(store, model[0](images).detach().mean((2, 3)))
    with pytest.raises(ValueError, match="pass a batch as inputs="):
        embedding_store(model, N, head="2")
    assert embedding_store(model, N, head="2", inputs=images).shape == (N, CLASSES)


def test_the_head_is_the_layer_that_runs_last_not_the_last_registered():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(5, CLASSES)
            self.body = nn.Linear(6, 5)

        def forward(self, x):
            return self.head(self.body(x))

    model = Backwards()
    with pytest.raises(ValueError, match=r"embeddings must be \(n, 5\), as wide as the model's"):
        observed(model, embedding_store(model, N))
    store = embedding_store(model, N, inputs=inputs())
    observed(model, store)
    assert torch.equal(store[:8], model.body(inputs()[:8]).detach())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([[0.0]], TypeError, "must be a tensor or an array that embedding_store made, got list"),
        (torch.zeros(N, 9, dtype=torch.float64), ValueError, "float32, float16 or bfloat16, got"),
        (np.zeros((N, 9)), ValueError, "writable float32 or float16 array, got float64"),
        (torch.zeros(N - 1, 9), ValueError, r"must be \(37, d\), a row for each sample, got \(36"),
        (torch.zeros(N), ValueError, r"must be \(37, d\)"),
        (torch.zeros(N, 9, requires_grad=True), ValueError, "must not require gradients"),
        (torch.zeros(N, 8), ValueError, r"as wide as the model's.*got a store \(37, 8\)"),
    ],
)
def test_what_cannot_be_a_store_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        observed(network(), given)


def test_a_read_only_array_and_mc_dropout_are_refused():
    array = np.zeros((N, 9), np.float32)
    array.flags.writeable = False
    with pytest.raises(ValueError, match="that is read-only"):
        observed(network(), array)
    with pytest.raises(ValueError, match="leave mc_passes out, or them"):
        observed(network(), torch.zeros(N, 9), mc_passes=2)


def test_what_embedding_store_refuses(tmp_path):
    model = network()
    with pytest.raises(ValueError, match="num_samples must not be negative, got -1"):
        embedding_store(model, -1)
    with pytest.raises(ValueError, match="dtype must be float32, float16 or bfloat16, got"):
        embedding_store(model, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"must end in \.npy or \.safetensors, got '.*x\.bin'"):
        embedding_store(model, 1, path=tmp_path / "x.bin")
    with pytest.raises(ValueError, match=r"has no nn\.Linear"):
        embedding_store(nn.ReLU(), 1)
    (tmp_path / "there.npy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        embedding_store(model, 1, path=tmp_path / "there.npy")
    assert (tmp_path / "there.npy").read_bytes() == b"mine"
    assert embedding_store(model, 0, path=tmp_path / "none.npy").shape == (0, 9)
    assert np.load(tmp_path / "none.npy").shape == (0, 9)


def test_bad_ids_are_reported_by_the_tracker_and_write_nothing():
    model, store = network(), torch.zeros(N, 9)
    with pytest.raises(PoolObservationError) as caught:
        observed(model, store, [(torch.tensor([0, N, -1]), inputs()[:3])], partial=True)
    assert caught.value.unknown.tolist() == [N, -1]
    assert store[0].abs().sum() > 0
    assert store[1:].abs().sum() == 0


@pytest.mark.parametrize("ids", [[0, 9, 2], [9, -4, 2], [9, 12, -1], []])
def test_where_nothing_may_wait_bad_ids_write_nothing_either(ids):
    rows = torch.arange(2.0 * len(ids)).view(len(ids), 2) + 1
    ids = torch.tensor(ids, dtype=torch.int64)
    store = torch.full((4, 2), -1.0)
    expected = store.clone()
    known = (ids >= 0) & (ids < 4)
    expected[ids[known]] = rows[known]
    where, what = redirected(store, ids, known, rows)
    assert torch.equal(store.index_copy(0, where, what), expected)


LOOP = {"protocol": Protocol(initial=30, budget=12, cycles=1), "training": Training(epochs=1)}


def test_the_loop_takes_the_embeddings_of_the_last_pass(monkeypatch):
    strategy = "entropy+farthest_first"
    data = load_data("digits")
    embedded = []

    def counted(model, batches, count, *rest):
        embedded.append(count)
        return embed_samples(model, batches, count, *rest)

    monkeypatch.setattr(selection_module, "embed_samples", counted)
    result = ActiveLearningExperiment(data, "mlp", strategy, **LOOP).run()
    assert embedded == [30]  # the labeled samples only
    monkeypatch.setattr(observation_module.PoolObserver, "embedded", lambda self, ids: None)
    own = ActiveLearningExperiment(data, "mlp", strategy, **LOOP).run()
    assert [c.selected for c in result.cycles] == [c.selected for c in own.cycles]
    assert embedded[1:] == [120, 30]


def test_strategies_without_embeddings_store_nothing(monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("no strategy here needs embeddings")

    monkeypatch.setattr(observation_module, "embedding_store", refused)
    result = ActiveLearningExperiment(load_data("digits"), "mlp", "entropy", **LOOP).run()
    assert len(result.cycles) == 2


def test_an_observer_forgets_the_embeddings_of_an_earlier_cycle():
    model = build_model("mlp", (1, 2, 3), CLASSES)
    samples = SampleSet(inputs().view(N, 1, 2, 3))
    observer = observation_module.PoolObserver(
        samples, CLASSES, ("margin",), {}, torch.device("cpu"), embeds=True
    )
    ids = torch.arange(5, N)
    observer.drop(torch.arange(5))
    observer.observe(model, ids, 1, 2)
    assert observer.embedded(ids) is None  # margin observes the last epoch
    observer.observe(model, ids, 2, 2)
    assert observer.embedded(ids).shape == (N - 5, 64)
    assert observer.embedded(torch.tensor([4, 5])) is None
    observer.begin_cycle(model, ids, first=False)
    assert observer.embedded(ids) is None


def test_a_safetensors_store_says_what_it_holds(tmp_path):
    store = embedding_store(network(), 5, dtype=torch.bfloat16, path=tmp_path / "x.safetensors")
    store[2] = math.pi
    content = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])["embeddings"]["shape"] == [5, 9]
    assert len(content) == 8 + length + 5 * 9 * 2
