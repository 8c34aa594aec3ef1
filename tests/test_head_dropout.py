"""Heads on cached features under MC dropout: masks that are made as the features are read."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dynal_fast import PoolObservationError, PoolStats
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.ops import pool_stats as operation
from dynal_fast.ops.pool_stats import Dropout, cpu, reference
from dynal_fast.ops.pool_stats.contract import STAMP_STEP
from dynal_fast.ops.pool_stats.dropout import factors

N, CLASSES = 90, 5
RATES = (0.5, 0.1, 1e-12, 1 - 1e-12)


def features(width, dtype=torch.float32):
    return torch.randn(N, width, generator=torch.Generator().manual_seed(2)).to(dtype)


def head(width, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Linear(width, CLASSES).to(dtype).requires_grad_(False)


def observed(given, layer, rate, passes=3, seed=7, batch=31, by_id=True, **options):
    """Scores after some passes; the ids are in another order in each."""
    stats = PoolStats(N, CLASSES, track=("bald", "margin"), **options)
    for index in range(passes):
        ids = torch.randperm(N, generator=torch.Generator().manual_seed(index))
        with stats.observe(1, 1):
            for part in ids.split(batch):
                rows = given if by_id else given[part]
                stats.update_from_features(
                    part, rows, layer.weight, layer.bias, by_id=by_id, dropout=rate, seed=seed
                )
    return stats


def kept(number, width, rate=0.5, seed=7, samples=range(N)):
    return reference.kept_features(np.array(samples), width, rate, seed, number)


@pytest.mark.parametrize("width", [1, 2, 35, 64])
@pytest.mark.parametrize("rate", RATES)
def test_every_backend_drops_what_the_definition_drops(width, rate):
    layer, given = head(width), features(width)
    want = PoolStats(N, CLASSES, track=("bald", "margin"))
    for number in (1, 2, 3):
        dropped = given * torch.from_numpy(kept(number, width, rate)) / (1 - rate)
        with want.observe(1, 1):
            want.update(range(N), layer(dropped))
    for options in ({}, {"backend": "reference"}):
        for by_id in (True, False):
            ours = observed(given, layer, rate, by_id=by_id, **options)
            for name in ("bald", "margin"):
                torch.testing.assert_close(ours.score(name), want.score(name), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 6, 35])
def test_masks_of_tensors_are_those_of_the_definition(width):
    for seed, first in ((0, 0), (2**64 - 1, 10**12)):
        for number in (1, 5, 2**29 - 2):
            stamp = torch.tensor([STAMP_STEP * number], dtype=torch.int32)
            ids = torch.tensor([0, 3, 2**31 - 1], dtype=torch.int32)
            ours = factors(ids, width, Dropout(0.25, seed, first), stamp)
            assert ours.dtype == torch.float32
            samples = ids.numpy().astype(np.int64) + first
            want = kept(number, width, 0.25, seed, samples)
            assert np.array_equal(ours.numpy() != 0, want)
            assert set(ours.unique().tolist()) <= {0.0, float(np.float32(1 / 0.75))}


def test_batches_threads_and_dtypes_of_ids_do_not_change_a_mask(monkeypatch):
    monkeypatch.setattr(cpu, "ELEMENTS_PER_THREAD", 1)  # else small batches take one thread
    layer, given = head(35), features(35)
    want = observed(given, layer, 0.3).score("bald")
    assert torch.equal(observed(given, layer, 0.3, batch=1).score("bald"), want)
    assert torch.equal(observed(given, layer, 0.3, batch=N, by_id=False).score("bald"), want)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 + threads % 2)
        assert torch.equal(observed(given, layer, 0.3).score("bald"), want)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(observed(given, layer, 0.3, seed=8).score("bald"), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("by_id", [True, False])
def test_ranks_drop_what_one_process_drops(by_id, dtype):
    layer, given = head(35), features(35, dtype)
    given[::7] *= 60_000 / given.abs().max()  # times 1 / 0.7, beyond float16
    want = observed(given, layer, 0.3, passes=1, by_id=by_id)

    def shuffled(group):
        stats = PoolStats(N, CLASSES, track=("bald", "margin"), group=group)
        ids = torch.randperm(N, generator=torch.Generator().manual_seed(0))[group.rank :: 3]
        with stats.observe(1, 1):
            stats.update_from_features(
                ids, given if by_id else given[ids], layer.weight, layer.bias,
                by_id=by_id, dropout=0.3, seed=7,
            )  # fmt: skip
        return stats.score("margin")

    for got in run_ranks(3, shuffled):
        torch.testing.assert_close(got, want.score("margin"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_dropped_in_float32(dtype):
    layer, given = head(35), features(35, dtype)
    want = observed(given.float(), layer, 0.3).score("bald")
    assert torch.equal(observed(given, layer, 0.3).score("bald"), want)


def test_how_often_features_are_dropped():
    # 4 standard deviations of binomial counts: of all, of each feature, of pairs of passes.
    width, rate, count = 33, 0.3, 4000
    masks = np.stack([kept(number, width, rate, samples=range(count)) for number in (1, 2, 3)])
    for axis, trials in ((None, masks.size), ((0, 1), 3 * count), ((1, 2), count * width)):
        spread = 4 * math.sqrt(rate * (1 - rate) / trials)
        assert np.abs(masks.mean(axis) - (1 - rate)).max() < spread
    both = (1 - rate) ** 2
    for one, two in (
        (masks[0], masks[1]),  # passes
        (masks[:, :-1], masks[:, 1:]),  # samples
        (masks[:, :, :-1], masks[:, :, 1:]),  # features
        (masks[0], kept(1, width, rate, seed=8, samples=range(count))),  # seeds
    ):
        assert abs((one & two).mean() - both) < 4 * math.sqrt(both * (1 - both) / one.size)


def test_the_distribution_is_that_of_plain_passes():
    # Mean and variance over passes of a sample's probabilities, beside torch's own dropout.
    layer, given, passes = head(16), features(16)[:1], 2000
    outputs = []
    for number in range(1, passes + 1):
        mask = torch.from_numpy(kept(number, 16, samples=[0]))
        outputs.append(functional.softmax(layer(2 * given * mask), dim=1))
    ours = torch.cat(outputs)
    torch.manual_seed(0)
    plain = functional.softmax(layer(functional.dropout(given.expand(passes, -1), 0.5)), dim=1)
    spread = (ours.var(0) / passes + plain.var(0) / passes).sqrt()
    assert ((ours.mean(0) - plain.mean(0)).abs() < 4 * spread).all()
    assert ((ours.std(0) / plain.std(0) - 1).abs() < 0.1).all()


def test_a_row_that_was_never_written_is_reported_whatever_is_dropped():
    given, layer = features(2), head(2)
    given[4] = math.nan
    stats = PoolStats(N, CLASSES, track=("bald",))
    for _ in range(8):  # in a quarter of the passes both features are dropped
        with pytest.raises(PoolObservationError) as caught, stats.observe(1, 1):
            stats.update_from_features(range(N), given, layer.weight, by_id=True, dropout=0.5)
        assert caught.value.non_finite.tolist() == [4]


def test_the_teachers_features_are_not_dropped():
    given, layer = features(35), head(35)
    stats = PoolStats(N, CLASSES, track=("emaod",))
    with stats.observe(1, 1):
        stats.update_from_features(
            range(N), given, layer.weight, None, given, layer.weight, by_id=True, dropout=0.5
        )
    mask = torch.from_numpy(kept(1, 35, seed=0))
    p, q = ((x @ layer.weight.T).softmax(1) for x in (2 * given * mask, given))
    torch.testing.assert_close(stats.score("emaod"), (p - q).norm(dim=1), atol=1e-5, rtol=1e-4)


def test_no_dropout_is_the_pass_without():
    given, layer = features(35), head(35)
    want = PoolStats(N, CLASSES, track=("margin",))
    with want.observe(1, 1):
        want.update_from_features(torch.arange(N), given, layer.weight, layer.bias)
    for rate in (0.0, 1e-12):
        got = observed(given, layer, rate, passes=1).score("margin")
        assert torch.equal(got, want.score("margin"))
    assert not torch.equal(observed(given, layer, 0.5, passes=1).score("margin"), got)


def test_nothing_is_gathered_on_a_cpu(monkeypatch):
    monkeypatch.setattr(operation, "_gathered", None)
    observed(features(35), head(35), 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": math.nan},
        {"dropout": True},
        {"dropout": "0.5"},
        {"dropout": 0.5, "seed": -1},
        {"dropout": 0.5, "seed": 2**64},
        {"dropout": 0.5, "seed": 1.5},
    ],
)
def test_what_is_no_rate_or_no_seed_is_refused(options):
    stats = PoolStats(N, CLASSES, track=("margin",))
    message = "seed must be" if "seed" in options else "dropout must be a rate"
    with pytest.raises(ValueError, match=message), stats.observe(1, 1):
        stats.update_from_features(range(N), features(3), head(3).weight, **options)
