"""KCenterGreedy for anomalib: its interface and seeds, the core-set of the features themselves."""

import numpy as np
import pytest
import torch

from dynal_fast.bench.competitors.libraries import anomalib_sampler
from tests.cases.farthest_first import bootstrap, clustered, expected, lattice

pytest.importorskip("anomalib")
Theirs = anomalib_sampler()  # without the rest of anomalib, which the tests do not need

from dynal_fast.integrations.anomalib import KCenterGreedy  # noqa: E402


def chosen(kind, embedding, ratio, seed=3):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (anomalib's projection draws from it)
    return kind(embedding, ratio).select_coreset_idxs()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("trailing", [(), (1,)], ids=["projected", "not projected"])
def test_the_first_sample_and_the_generators_are_anomalibs(trailing, seed):
    embedding = torch.from_numpy(clustered(90, 12)).reshape(90, 12, *trailing)
    theirs = chosen(Theirs, embedding, 0.1, seed)
    after = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    ours = chosen(KCenterGreedy, embedding, 0.1, seed)
    assert ours[0] == theirs[0]
    assert len(ours) == len(theirs) == 9
    assert torch.equal(torch.rand(3), after[0])
    np.testing.assert_array_equal(np.random.rand(3), after[1])  # noqa: NPY002


def test_the_core_set_is_anomalibs_where_it_does_not_project():
    for rows in (clustered(300, 24), clustered(200, 5, seed=4)):
        embedding = torch.from_numpy(rows)[:, :, None]
        ours, theirs = (chosen(kind, embedding, 0.2) for kind in (KCenterGreedy, Theirs))
        assert ours == theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("make", [clustered, lattice, bootstrap])
def test_picks_are_those_of_the_definition(make, dtype):
    embedding = torch.from_numpy(make(120, 7)).to(dtype)
    got = chosen(KCenterGreedy, embedding, 0.5)
    want, _, _ = expected(embedding.numpy(), 60, start=got[0])
    assert got == want.tolist()
    assert all(type(index) is int for index in got)


def test_a_core_set_covers_the_features_better_than_anomalibs():
    embedding = torch.from_numpy(clustered(800, 64))
    radii = []
    for kind in (KCenterGreedy, Theirs):
        core = embedding[chosen(kind, embedding, 0.05)]
        radii.append(float(torch.cdist(embedding, core).amin(1).max()))
    assert radii[0] < radii[1]


def test_the_interface_is_anomalibs():
    embedding = torch.from_numpy(clustered(50, 6))
    sampler = KCenterGreedy(embedding=embedding, sampling_ratio=0.2)
    assert isinstance(sampler, Theirs)
    assert (sampler.coreset_size, sampler.n_observations) == (10, 50)
    torch.manual_seed(1)
    core = sampler.sample_coreset()
    torch.manual_seed(1)
    assert torch.equal(core, embedding[sampler.select_coreset_idxs()])
    everything = KCenterGreedy(embedding, 1.0).select_coreset_idxs()
    assert sorted(everything) == list(range(50))
    with pytest.raises(ValueError, match="coreset_size must be a positive integer"):
        KCenterGreedy(embedding, 0.001)
    for ratio in (1.5, float("nan"), None):
        with pytest.raises(ValueError, match=f"sampling_ratio must .* at most 1, got {ratio}"):
            KCenterGreedy(embedding, ratio)
    embedding[7, 2] = float("nan")
    with pytest.raises(ValueError, match="row 7 holds a NaN"):
        KCenterGreedy(embedding, 0.2).select_coreset_idxs()


def test_duplicates_are_never_taken_twice():
    """Once only duplicates are left anomalib repeats a sample, as all its distances are 0."""
    embedding = torch.ones(6, 3)
    assert sorted(chosen(KCenterGreedy, embedding, 1.0)) == list(range(6))
