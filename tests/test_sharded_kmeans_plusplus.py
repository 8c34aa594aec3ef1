"""D² sampling over many ranks: index for index what one process draws, whatever the cut."""

import numpy as np
import pytest
import torch

from dynal_fast import OuterProducts, kmeans_plusplus
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.ops.farthest_first import routing
from dynal_fast.ops.farthest_first.sharded import kept, part
from dynal_fast.ops.kmeans_plusplus import reference, sharded
from tests.cases.farthest_first import bootstrap, clustered, gaussian, lattice
from tests.cases.outer_products import outer_products
from tests.gloo_ranks import GlooRanks


def cut(n, ranks, rng):
    """Where the shards of ``ranks`` begin and end; some may be empty."""
    return [0, *np.sort(rng.integers(0, n + 1, size=ranks - 1)).tolist(), n]


def draw(pool, k, labeled=None, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return kmeans_plusplus(pool, k, labeled, generator=generator, **options)


def assert_equals_one_process(pool, k, bounds, labeled=None, **options):
    want = draw(pool, k, labeled, **options)

    def own(group):
        shard = pool[bounds[group.rank] : bounds[group.rank + 1]]
        return draw(shard, k, labeled, group=group, **options)

    for got in run_ranks(len(bounds) - 1, own):
        assert torch.equal(got.indices, want.indices)
        assert torch.equal(got.distances, want.distances)
    return want


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that small pools need many rounds and clusters."""
    for name, value in {"GATHERED": 5, "HEAD": 7}.items():
        monkeypatch.setattr(sharded, name, value)
    monkeypatch.setattr(kept, "BYTES", 0)
    monkeypatch.setattr(part.Picks, "BLOCK", 7)
    sizes = {"CLUSTERED_FROM": 5, "PROBES": 1, "MORE_PROBES": 1, "TILE": 16, "CHUNK": 50}
    for name, value in sizes.items():
        monkeypatch.setattr(routing, name, value)


@pytest.mark.parametrize("blocks", ["small", "usual"])
def test_any_cut_equals_one_process(blocks, request):
    if blocks == "small":
        request.getfixturevalue("small_blocks")
    rng = np.random.default_rng(len(blocks))
    for trial in range(8 if blocks == "small" else 12):
        n, d = int(rng.integers(1, 60)), int(rng.choice([1, 2, 17]))
        pool = (gaussian, clustered, bootstrap, lattice)[trial % 4](n, d, trial)
        metric = "cosine" if trial % 3 == 0 and not (pool == 0).all(1).any() else "euclidean"
        pool = torch.from_numpy(pool).to([torch.float32, torch.float16, torch.float64][trial % 3])
        outside = pool[torch.from_numpy(rng.integers(n, size=int(rng.integers(1, 20))))] + 1
        inside = torch.from_numpy(np.unique(rng.integers(n, size=max(1, n // 4))))
        labeled = [None, outside, inside, (outside, inside)][int(rng.integers(4))]
        free = n - (len(inside) if labeled is inside or type(labeled) is tuple else 0)
        start = None
        if trial % 5 == 0 and (labeled is None or labeled is outside):
            start = int(rng.integers(n))
        assert_equals_one_process(
            pool,
            int(rng.choice([free, free // 2])),
            cut(n, int(rng.integers(1, 6)), rng),
            labeled,
            metric=metric,
            start=start,
            seed=trial,
        )


@pytest.mark.usefixtures("small_blocks")
def test_outer_products():
    rng = np.random.default_rng(0)
    for kind in ("nearly equal", "unlike scales"):
        pool, labeled = outer_products(kind, 30), outer_products(kind, 7, seed=2)
        assert_equals_one_process(pool, 12, cut(30, 3, rng), labeled)
    assert_equals_one_process(outer_products("zeros", 30), 30, cut(30, 2, rng))


def test_clocks_that_tie_go_by_index(monkeypatch):
    monkeypatch.setattr(reference, "clocks", lambda seed, n, first=0: np.ones(n))
    monkeypatch.setattr(sharded, "GATHERED", 8)
    monkeypatch.setattr(sharded, "HEAD", 8)
    for pool in (np.eye(20, dtype=np.float32), lattice(20, 3), np.ones((20, 2), np.float32)):
        assert_equals_one_process(pool, 20, [0, 7, 7, 20])
        assert_equals_one_process(pool, 20, [0, 12, 20], pool[:1] + 1)


def test_a_pool_of_several_rounds_and_a_sorted_cut():
    pool = clustered(3000, 8)
    pool = pool[pool[:, 0].argsort()]
    assert_equals_one_process(pool, 400, [0, 100, 300, 3000])


def test_bad_input_is_one_error_on_all_ranks():
    pool = gaussian(20, 3)
    broken = pool.copy()
    broken[13, 1] = np.nan
    for given, k, options, message in (
        (broken, 2, {}, "rank 1: pool row 3 holds a NaN"),
        (pool, 21, {}, "k must be between 0 and 20"),
        (pool, 2, {"start": 20}, "start must be between 0 and 19"),
        (pool, 2, {"backend": "reference"}, "backend must be one that works in parts"),
    ):

        def own(group, given=given, k=k, options=options, message=message):
            with pytest.raises(ValueError, match=message):
                draw(given[10 * group.rank :][:10], k, group=group, **options)

        run_ranks(2, own)

    def unlike(group):
        with pytest.raises(ValueError, match="k must be the same on every rank"):
            draw(pool, group.rank, group=group)
        with pytest.raises(TypeError, match="start must be an integer"):
            draw(pool, 2, group=group, start="random")

    run_ranks(2, unlike)


def draw_on_gloo(group, pool, bounds, k, labeled):
    rank = torch.distributed.get_rank(group)
    generator = torch.Generator().manual_seed(5 + rank)  # that of rank 0 draws
    got = kmeans_plusplus(
        pool[bounds[rank] : bounds[rank + 1]], k, labeled, generator=generator, group=group
    )
    return got.indices.numpy(), got.distances.numpy()


def test_processes():
    pool, outside = clustered(300, 6), clustered(9, 6, seed=3)
    with GlooRanks(2) as ranks:
        for labeled in (None, outside, [3, 299]):
            want = draw(pool, 60, labeled, seed=5)
            for got in ranks.call(draw_on_gloo, pool, [0, 120, 300], 60, labeled, ranks=2):
                np.testing.assert_array_equal(got[0], want.indices)
                np.testing.assert_array_equal(got[1], want.distances)


def test_one_rank_with_products_of_two_dtypes():
    rng = np.random.default_rng(1)
    pool = OuterProducts(
        rng.standard_normal((50, 3)), rng.standard_normal((50, 4)).astype(np.float16)
    )
    assert_equals_one_process(pool, 50, [0, 50])
