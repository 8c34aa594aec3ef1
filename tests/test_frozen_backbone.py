"""Features of a whole pool, read by sample id where they are: memory, files, other dtypes."""

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast import PoolObservationError, PoolStats, embedding_store, load_embeddings
from dynal_fast.ops import pool_stats as operation

N, WIDTH, CLASSES = 300, 35, 5
TRACK = ("margin", "prediction_stability", "label_dispersion", "entropy")


def features(dtype=torch.float32, n=N):
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(2)).to(dtype)


def head(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, CLASSES).to(dtype).requires_grad_(False)


def ids(n=N):
    return torch.randperm(n, generator=torch.Generator().manual_seed(3))


def scores(update, track=TRACK, backend=None):
    stats = PoolStats(N, CLASSES, track=track, backend=backend)
    with stats.observe(1, 1):
        for batch in ids().split(77):
            update(stats, batch)
    return [stats.score(name) for name in track]


def equal(ours, theirs):
    return all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("int32", [False, True])
def test_rows_read_in_place_give_the_scores_of_gathered_ones(dtype, int32):
    store, layer = features(dtype), head(dtype)

    def gathered(stats, batch):
        stats.update_from_features(batch, store[batch], layer.weight, layer.bias)

    def in_place(stats, batch):
        batch = batch.int() if int32 else batch
        stats.update_from_features(batch, store, layer.weight, layer.bias, by_id=True)

    assert equal(scores(in_place), scores(gathered))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_a_float32_head_reads_halves_as_they_are(dtype, by_id, backend):
    store, layer = features(dtype), head()

    def widened(stats, batch):
        stats.update_from_features(batch, store[batch].float(), layer.weight, layer.bias)

    def halves(stats, batch):
        given = store if by_id else store[batch]
        stats.update_from_features(batch, given, layer.weight, layer.bias, by_id=by_id)

    assert equal(scores(halves, backend=backend), scores(widened, backend=backend))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_memory_map_is_read_without_a_copy(suffix, tmp_path, monkeypatch):
    layer = head()
    store = embedding_store(
        nn.Sequential(layer), N, dtype=torch.float16, path=tmp_path / f"x{suffix}"
    )
    store.copy_(features())
    read_only = load_embeddings(tmp_path / f"x{suffix}").array
    assert isinstance(read_only, np.memmap)
    monkeypatch.setattr(operation, "_gathered", None)  # nothing is gathered

    def of(given):
        return scores(
            lambda stats, batch: stats.update_from_features(
                batch, given, layer.weight, layer.bias, by_id=True
            )
        )

    assert equal(of(read_only), of(features().half()))


def test_the_teachers_features_are_read_by_id_too():
    store, other, layer = features(), features(torch.float16), head()
    weight = layer.weight + 0.1

    def update(by_id):
        def run(stats, batch):
            given = (store, other) if by_id else (store[batch], other[batch].float())
            stats.update_from_features(
                batch, given[0], layer.weight, layer.bias, given[1], weight, None, by_id=by_id
            )

        return scores(run, track=("emaod",))

    assert equal(update(True), update(False))


def test_bad_ids_and_missing_rows_change_nothing_but_their_report():
    store, layer = features(), head()
    store[4] = float("nan")  # a row that no pass wrote
    stats = PoolStats(N, CLASSES, track=("margin",))
    batch = torch.tensor([3, N, 4, -1, 3, 5])
    with pytest.raises(PoolObservationError) as caught, stats.observe(1, 1, partial=True):
        stats.update_from_features(batch, store, layer.weight, layer.bias, by_id=True)
    error = caught.value
    assert error.unknown.tolist() == [N, -1]
    assert error.duplicate.tolist() == [3]
    assert error.non_finite.tolist() == [4]
    assert stats.score("margin").isnan().logical_not().nonzero().flatten().tolist() == [3, 5]


@pytest.mark.parametrize("chunk", [1, WIDTH * 10, 1 << 20])
def test_other_kernels_are_given_gathered_rows(chunk, monkeypatch):
    monkeypatch.setattr(operation, "GATHERED_ELEMENTS", chunk)
    store, layer = features(), head()

    def update(stats, batch):
        stats.update_from_features(batch[:20], store, layer.weight, layer.bias, by_id=True)

    def plain(stats, batch):
        stats.update_from_features(batch[:20], store[batch[:20]], layer.weight, layer.bias)

    def partial(run, backend):
        stats = PoolStats(N, CLASSES, track=TRACK, backend=backend)
        with stats.observe(1, 1, partial=True):
            run(stats, ids())
        return [stats.score(name).nan_to_num(-1) for name in TRACK]

    assert equal(partial(update, "reference"), partial(plain, "reference"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (features(n=N - 1), r"features must be \(num_samples, d\) with num_samples = 300"),
        (torch.zeros(WIDTH, N).T, "features must be contiguous with by_id=True"),
        (np.zeros((WIDTH, N), np.float32).T, "features must be contiguous and in the machine's"),
        (np.zeros((N, WIDTH), ">f4"), "features must be contiguous and in the machine's"),
        (torch.zeros(N, WIDTH, dtype=torch.int32), "features must be float32 or float16"),
        (torch.zeros(N, WIDTH, dtype=torch.float64), "weight must have the dtype of features"),
    ],
)
def test_a_store_that_cannot_be_read_in_place_is_refused(given, message):
    layer, stats = head(), PoolStats(N, CLASSES, track=("margin",))
    with pytest.raises(ValueError, match=message), stats.observe(1, 1, partial=True):
        stats.update_from_features([0], given, layer.weight, layer.bias, by_id=True)
