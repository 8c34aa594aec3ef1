"""Pool views: what an entry is, that nothing is copied, and what an oracle is paid."""

import math

import pytest
import torch

from dynal_fast.data.inflate import PoolView, add_horizontal_flips, inflate, join, original_pool


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def originals():
    return torch.randint(0, 256, (6, 3, 4, 5), generator=generator(9)).to(torch.uint8)


def test_the_original_pool_is_the_originals(originals):
    pool = original_pool(6)
    assert pool.original_ids.tolist() == list(range(6))
    assert torch.equal(pool.images(originals, torch.arange(6)), originals)
    assert original_pool(torch.tensor([4, 2])).original_ids.tolist() == [4, 2]


def test_flips_double_the_pool_and_mirror_the_second_half(originals):
    pool = add_horizontal_flips(original_pool(6))
    assert len(pool) == 12
    entries = torch.tensor([0, 6, 11, 5])
    expected = [originals[0], originals[0].flip(-1), originals[5].flip(-1), originals[5]]
    assert torch.equal(pool.images(originals, entries), torch.stack(expected))
    twice = add_horizontal_flips(pool)
    assert torch.equal(twice.images(originals, torch.arange(18, 24)), originals)


def test_joined_pools_follow_each_other():
    joined = join(original_pool(torch.tensor([3])), add_horizontal_flips(original_pool(1)))
    assert joined.original_ids.tolist() == [3, 0, 0]
    assert joined.flipped.tolist() == [False, False, True]


def test_the_papers_pool_of_150_000(originals):
    pool = inflate(add_horizontal_flips(original_pool(25_000)), 3, generator())
    assert len(pool) == 150_000
    counts = torch.bincount(pool.original_ids + 25_000 * pool.flipped, minlength=50_000)
    # A bootstrap sample: each of 50,000 is drawn Poisson(3) times.
    assert (counts == 0).float().mean() == pytest.approx(math.exp(-3), abs=0.004)
    assert counts.float().var() == pytest.approx(3, rel=0.05)
    assert pool.flipped.float().mean() == pytest.approx(0.5, abs=0.01)


def test_a_pool_costs_nine_bytes_an_entry():
    pool = inflate(original_pool(1000), 3, generator())
    size = sum(t.element_size() * t.numel() for t in (pool.original_ids, pool.flipped))
    assert size == 9 * 3000


@pytest.mark.parametrize(("factor", "size"), [(1, 6), (3, 18), (0.5, 3), (2.5, 15)])
def test_the_factor_decides_the_size_and_the_seed_the_entries(factor, size):
    pool = inflate(original_pool(6), factor, generator(1))
    assert len(pool) == size
    assert torch.equal(
        pool.original_ids, inflate(original_pool(6), factor, generator(1)).original_ids
    )
    other = inflate(original_pool(1000), factor, generator(2))
    assert not torch.equal(
        other.original_ids, inflate(original_pool(1000), factor, generator(3)).original_ids
    )


def test_entries_trace_to_their_originals_through_every_step(originals):
    pool = inflate(add_horizontal_flips(original_pool(torch.tensor([5, 1, 3]))), 4, generator())
    remaining = pool[torch.arange(0, 24, 2)][:7]
    assert len(remaining) == 7
    labels = torch.tensor([10, 11, 12, 13, 14, 15])
    assert torch.equal(remaining.labels(labels), remaining.original_ids + 10)
    batch = remaining.images(originals, torch.arange(7))
    for i in range(7):
        image = originals[remaining.original_ids[i]]
        assert torch.equal(batch[i], image.flip(-1) if remaining.flipped[i] else image)
    assert set(remaining.original_ids.tolist()) <= {5, 1, 3}


def test_the_oracle_is_paid_once_for_an_original():
    pool = PoolView(torch.tensor([2, 2, 0, 1, 0]), torch.tensor([False, True, False, False, False]))
    assert pool.oracle_cost(torch.tensor([0, 1])) == 1
    assert pool.oracle_cost(torch.tensor([0, 2, 3])) == 3
    assert pool.oracle_cost(torch.tensor([2, 3, 4]), labeled=torch.tensor([1])) == 2
    assert pool.oracle_cost(torch.tensor([2, 3]), labeled=torch.tensor([4])) == 1
    assert pool.oracle_cost(torch.tensor([], dtype=torch.int64)) == 0


@pytest.mark.parametrize("factor", [0, -1, float("nan")])
def test_a_factor_that_is_not_positive_is_refused(factor):
    with pytest.raises(ValueError, match="factor must be positive"):
        inflate(original_pool(3), factor, generator())


def test_an_empty_pool_cannot_be_inflated():
    with pytest.raises(ValueError, match="pool must not be empty"):
        inflate(original_pool(0), 3, generator())


def test_ids_and_flags_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"original_ids must be int64 \(n,\), got torch.int32"):
        PoolView(torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"flipped must be bool \(2,\), got torch.bool \(3,\)"):
        PoolView(torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.bool))
