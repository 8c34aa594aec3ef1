"""What the papers leave for the future: fused scores, and an ensemble of representations."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn

from dynal_fast.models import embed
from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.pool import PoolStats
from dynal_fast.strategies.fused import UNCERTAINTIES, ranks
from dynal_fast.strategies.registry import get_strategy
from dynal_fast.strategies.representations import one_subnetwork, representations
from dynal_fast.strategies.strategy import SelectionContext


def context(name, candidates, **more):
    return SelectionContext(
        candidates=candidates,
        labeled=torch.tensor([0]),
        labeled_targets=torch.tensor([0]),
        budget=4,
        generator=torch.Generator().manual_seed(0),
        cycle=0,
        strategy=get_strategy(name),
        **{"model": nn.Identity(), "batches": lambda ids: []} | more,
    )


@pytest.mark.parametrize("way", ["times", "rank"])
@pytest.mark.parametrize("uncertainty", UNCERTAINTIES)
def test_both_scores_decide(way, uncertainty):
    strategy = get_strategy(f"prediction_stability_{way}_{uncertainty}")
    assert strategy.tracks == ("prediction_stability", uncertainty)
    logits = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(1)) * 2
    stats = PoolStats(40, 5, track=strategy.tracks)
    for epoch in range(3):
        with stats.observe(epoch + 1, 3):
            stats.update(torch.arange(40), logits[epoch])
    given = context(strategy.name, torch.arange(1, 40), tracked=stats)
    picks = strategy.select(given)
    probabilities = logits.double().softmax(2).numpy()
    stability = probabilities.var(0).sum(1)[1:]
    last = np.sort(probabilities[-1][1:], axis=1)
    unsure = {
        "entropy": -(last * np.log(last)).sum(1),
        "least_confidence": 1 - last[:, -1],
        "margin": 1 - (last[:, -1] - last[:, -2]),
    }[uncertainty]
    by_rank = rankdata(stability) + rankdata(unsure)
    expected = stability * unsure if way == "times" else by_rank
    np.testing.assert_allclose(given.scores[strategy.name], expected, rtol=1e-4, atol=1e-7)
    assert sorted(expected[picks - 1]) == pytest.approx(sorted(expected)[-4:], rel=1e-4)


def test_equal_scores_share_their_mean_rank():
    values = torch.randint(5, (50,), generator=torch.Generator().manual_seed(0)).float()
    np.testing.assert_array_equal(ranks(values), rankdata(values.numpy()))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Dropout2d(0.5), nn.Flatten(),
        nn.Linear(6 * 16, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3),
    )  # fmt: skip


def test_a_subnetwork_is_one_for_all_samples_and_another_next_time():
    model, images = network().eval(), torch.randn(1, 1, 4, 4).expand(5, 1, 4, 4)
    generator = torch.Generator().manual_seed(0)
    before = model(images)
    outputs = []
    for _ in range(2):
        with one_subnetwork(model, generator):
            outputs += [model(images), model(images[:2])]
    for first, again in (outputs[:2], outputs[2:]):
        assert torch.equal(first, first[:1].expand(5, 3))  # equal samples, whatever their batch
        torch.testing.assert_close(again, first[:2])
    assert not torch.allclose(outputs[0], outputs[2])
    assert torch.equal(model(images), before)  # nothing is left behind


def test_a_dropped_unit_is_zero_and_the_others_grow():
    model = nn.Sequential(nn.Dropout(0.25), nn.Linear(400, 2))
    rows = representations(model, [(None, torch.ones(3, 400))], 3, 1, seed=0)
    assert rows.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert 0.15 < (rows[0] == 0).float().mean() < 0.35
    channels = nn.Sequential(nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(80, 2))
    rows = representations(channels, [(None, torch.ones(2, 20, 2, 2))], 2, 1, seed=0)
    of_channel = rows.reshape(2, 20, 4)
    assert torch.equal(of_channel, of_channel[:, :, :1].expand(2, 20, 4))


def test_squared_distances_are_means_over_the_ensemble_and_batches_do_not_matter():
    model, images = network(), torch.randn(9, 1, 4, 4)
    batches = [(None, images[:4]), (None, images[4:])]
    rows = representations(model, batches, 9, 7, seed=3)
    assert rows.shape == (9, 7 * 12)
    assert model.training
    singles, generator = [], torch.Generator().manual_seed(3)
    for _ in range(7):
        with one_subnetwork(model, generator):
            singles.append(embed(model.eval(), images))
    expected = sum(torch.cdist(s.double(), s.double()) ** 2 for s in singles) / 7
    found = torch.cdist(rows.double(), rows.double()) ** 2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_traversal_is_over_the_whole_ensemble():
    model, images = network(), torch.randn(30, 1, 4, 4)
    given = context(
        "farthest_first_mc_dropout", torch.arange(1, 30), model=model,
        batches=lambda ids: [(part, images[part]) for part in ids.split(8)],
    )  # fmt: skip
    picks = given.strategy.select(given)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    rows = representations(model, [(None, images)], 30, 10, seed)
    expected = farthest_first(rows[1:], 4, labeled=rows[:1]).indices
    assert picks.tolist() == [1 + i for i in expected.tolist()]
    none = dataclasses.replace(given, strategy=given.strategy.with_options({"passes": 0}))
    with pytest.raises(ValueError, match="passes must be at least 1, got 0"):
        none.strategy.select(none)


def test_other_dropout_is_refused():
    model = nn.Sequential(nn.AlphaDropout(0.5), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="needs torch's dropout layers, 0 is AlphaDropout"):
        representations(model, [(None, torch.ones(1, 4))], 1, 1, seed=0)
