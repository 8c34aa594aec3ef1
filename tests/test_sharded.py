"""Farthest-first over many ranks: index for index what one process returns, whatever the cut."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from dynal_fast import OuterProducts, farthest_first, farthest_first_compress, top_k
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.ops.farthest_first import backends, routing
from dynal_fast.ops.farthest_first.sharded import kept, part, traversal
from dynal_fast.strategies.coreset import robust_k_center
from dynal_fast.strategies.hybrid import shortlisted_farthest_first, stratified_farthest_first
from tests.cases.farthest_first import bootstrap, clustered, gaussian, lattice, small_cases
from tests.gloo_ranks import GlooRanks

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(scope="module")
def gloo():
    """Four processes that live on through the tests of this module."""
    with GlooRanks(4) as ranks:
        yield ranks


def cut(n, ranks, rng):
    """Where the shards of ``ranks`` begin and end; some may be empty."""
    return [0, *np.sort(rng.integers(0, n + 1, size=ranks - 1)).tolist(), n]


def check_same(got, want):
    assert torch.equal(got.indices, want.indices)
    assert torch.equal(got.distances, want.distances)
    assert got.radius == want.radius


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that small pools need many rounds, fronts and clusters."""
    monkeypatch.setattr(traversal, "GATHERED", 5)
    monkeypatch.setattr(kept, "BYTES", 0)
    monkeypatch.setattr(traversal, "MOST_HEADS", 2)
    monkeypatch.setattr(part, "SMALL_FRONT", 9)
    monkeypatch.setattr(part.Picks, "BLOCK", 3)
    monkeypatch.setattr(part, "MANY", 4)
    monkeypatch.setattr(backends, "head_rows", lambda columns: 3)
    sizes = {"CLUSTERED_FROM": 5, "PROBES": 1, "MORE_PROBES": 1, "TILE": 16, "CHUNK": 50}
    for name, value in sizes.items():
        monkeypatch.setattr(routing, name, value)


def draw_case(rng):
    """A pool (n, d), what is labeled, k and a metric."""
    n, d = int(rng.integers(1, 60)), int(rng.choice([1, 2, 5, 17]))
    make = [gaussian, clustered, bootstrap, lattice][rng.integers(4)]
    metric = str(rng.choice(["euclidean", "cosine"]))
    pool = make(n, d, int(rng.integers(99))) + np.float32(metric == "cosine")
    pool = torch.from_numpy(pool).to(DTYPES[rng.integers(4)])
    if rng.random() < 0.3:  # sorted by class
        pool = pool[pool[:, 0].float().argsort()]
    outside = pool[torch.from_numpy(rng.integers(n, size=int(rng.integers(1, 20))))] + 1
    inside = torch.from_numpy(np.unique(rng.integers(n, size=max(1, n // 4))))
    labeled = [None, outside, inside, (outside, inside)][rng.integers(4)]
    free = n - (len(inside) if labeled is inside or type(labeled) is tuple else 0)
    return pool, labeled, int(rng.choice([min(3, free), free, free // 2])), metric


@pytest.mark.parametrize("blocks", ["small", "usual"])
def test_any_cut_equals_one_process(blocks, request):
    if blocks == "small":
        request.getfixturevalue("small_blocks")
    rng = np.random.default_rng(len(blocks))
    for _ in range(12 if blocks == "small" else 25):
        pool, labeled, k, metric = draw_case(rng)
        start = None
        if rng.random() < 0.3 and k and not isinstance(labeled, (tuple, torch.Tensor)):
            start = int(rng.integers(len(pool)))
        want = farthest_first(pool, k, labeled, metric=metric, start=start)
        bounds = cut(len(pool), int(rng.integers(1, 6)), rng)

        def pick(group, bounds=bounds, case=(pool, k, labeled), metric=metric, start=start):
            shard = case[0][bounds[group.rank] : bounds[group.rank + 1]]
            return farthest_first(shard, *case[1:], metric=metric, start=start, group=group)

        for got in run_ranks(len(bounds) - 1, pick):
            check_same(got, want)


def test_blocks_that_are_multiplied_in_integers(monkeypatch):
    """Clusters that are kept packed, of labeled samples and of the picks, on each rank."""
    monkeypatch.setattr(part.Picks, "BLOCK", 64)
    pool = torch.from_numpy(clustered(3000, 40, seed=5))
    outside = torch.from_numpy(clustered(600, 40, seed=6))
    for labeled in (outside, None):
        want = farthest_first(pool, 700, labeled)

        def pick(group, labeled=labeled):
            shard = pool[:1000] if group.rank == 0 else pool[1000:]
            return farthest_first(shard, 700, labeled, group=group)

        for got in run_ranks(2, pick):
            check_same(got, want)


@pytest.mark.parametrize("name", small_cases())
def test_hostile_pools(name):
    pool, labeled = small_cases()[name]
    want = farthest_first(pool, len(pool) // 2, labeled)
    bounds = cut(len(pool), 3, np.random.default_rng(len(name)))

    def pick(group):
        shard = pool[bounds[group.rank] : bounds[group.rank + 1]]
        return farthest_first(shard, len(pool) // 2, labeled, group=group)

    for got in run_ranks(3, pick):
        check_same(got, want)


def test_each_rank_may_pass_its_part_of_the_labeled_set():
    pool, outside = clustered(90, 6), clustered(20, 6, seed=3).astype(np.float64)
    inside = np.array([3, 31, 32, 88])
    want = farthest_first(pool, 30, (outside, inside))
    mask = np.zeros(90, dtype=bool)
    mask[inside] = True
    whole = [(outside, inside)] * 3
    parts = [(outside[5 * r : 5 * r + 10], inside[r : r + 2]) for r in range(3)]
    masks = [(outside, mask[30 * r : 30 * r + 30]) for r in range(3)]
    some = [(outside, inside), None, inside[:1]]
    for given in (whole, parts, masks, some):

        def pick(group, given=given):
            r = group.rank
            return farthest_first(pool[30 * r : 30 * r + 30], 30, given[r], group=group)

        for got in run_ranks(3, pick):
            check_same(got, want)


def test_other_kinds_of_pools(tmp_path):
    rng = np.random.default_rng(0)
    products = OuterProducts(torch.from_numpy(gaussian(40, 3)), torch.from_numpy(gaussian(40, 5)))
    mapped = np.lib.format.open_memmap(tmp_path / "pool.npy", "w+", np.float16, (40, 8))
    mapped[:] = gaussian(40, 8)
    strided = np.asfortranarray(gaussian(80, 8))[::2, ::-1]
    whole = rng.integers(256, size=(40, 4)).astype(np.uint8)
    for pool in (products, mapped, strided, strided.astype(">f4"), whole, whole > 128):
        want = farthest_first(pool, 17)

        def pick(group, pool=pool):
            return farthest_first(pool[20 * group.rank : 20 * group.rank + 20], 17, group=group)

        for got in run_ranks(2, pick):
            check_same(got, want)


def test_a_random_start_is_that_of_one_process():
    pool, labeled = clustered(40, 5), [0, 1, 5, 33]
    for seed in range(8):
        want = farthest_first(
            pool, 9, labeled, start="random", generator=torch.Generator().manual_seed(seed)
        )

        def pick(group, seed=seed):
            generator = torch.Generator().manual_seed(seed + group.rank)  # that of rank 0 draws
            shard = pool[10 * group.rank : 10 * group.rank + 10]
            return farthest_first(
                shard, 9, labeled, start="random", generator=generator, group=group
            )

        for got in run_ranks(4, pick):
            check_same(got, want)


def test_compression_is_that_of_one_process():
    embeddings = clustered(120, 6)
    labels = np.random.default_rng(1).integers(5, size=120)
    labels[:40], labels[7] = 3, 9  # a rank of one class, and a class of one sample
    for k in (6, 30, 120):
        generator = torch.Generator().manual_seed(k)
        want = farthest_first_compress(embeddings, labels, k, generator=generator)

        def keep(group, k=k):
            own = slice(40 * group.rank, 40 * group.rank + 40)
            generator = torch.Generator().manual_seed(k)
            return farthest_first_compress(
                embeddings[own], labels[own], k, generator=generator, group=group
            )

        for got in run_ranks(3, keep):
            assert torch.equal(got, want)

    def keep_too_few(group):
        with pytest.raises(ValueError, match="k must be at least the number of classes"):
            farthest_first_compress(
                embeddings[:40], [0, 1, 2, 3, 4, 5] * 6 + [0] * 4, 5, group=group
            )

    run_ranks(2, keep_too_few)


def test_stratified_picks_are_those_of_one_process():
    pool, labeled = clustered(90, 6), clustered(30, 6, seed=3)
    rng = np.random.default_rng(0)
    predicted, labels = torch.from_numpy(rng.integers(4, size=90)), torch.arange(30) % 3
    predicted[:30] = 2
    want = stratified_farthest_first(pool, predicted, 41, labeled, labels)

    def pick(group):
        own = slice(30 * group.rank, 30 * group.rank + 30)
        known = slice(0, None) if group.rank == 1 else slice(0, 0)  # one rank knows what is labeled
        return stratified_farthest_first(
            pool[own], predicted[own], 41, labeled[known], labels[known], group=group
        )

    for got in run_ranks(3, pick):
        assert torch.equal(got, want)


def own_part(group, bounds, *arrays):
    return [array[bounds[group.rank] : bounds[group.rank + 1]] for array in arrays]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("known", [True, False])
def test_the_greedy_solution_of_coreset_is_that_of_one_process(ranks, known):
    rng = np.random.default_rng(ranks)
    for n, budget, outliers in ((60, 7, 0), (60, 7, 4), (9, 9, 2), (1, 1, 0)):
        pool = bootstrap(n, 5, seed=n).astype(np.float16 if known else np.float32)
        labeled = clustered(12, 5, seed=3).astype(pool.dtype) if known else None
        want = robust_k_center(pool, budget, labeled, outliers=outliers, max_pairs=0)
        bounds = cut(n, ranks, rng)

        def pick(group, bounds=bounds, case=(pool, labeled), budget=budget, outliers=outliers):
            (own,) = own_part(group, bounds, case[0])
            part = None if case[1] is None or group.rank == 1 else case[1][group.rank :]
            return robust_k_center(own, budget, part, outliers=outliers, group=group)

        for got in run_ranks(ranks, pick):
            assert torch.equal(got.indices, want.indices)
            assert dataclasses.replace(got, indices=want.indices) == want


def test_coreset_sends_rows_as_they_are():
    pool = clustered(300, 600)
    received = {}

    def pick(group, kind):
        shard = pool[150 * group.rank : 150 * group.rank + 150].astype(kind)
        robust_k_center(shard, 40, group=group)
        return group.received

    for kind in (np.float16, np.float32, np.float64):
        received[kind] = max(run_ranks(2, lambda group, kind=kind: pick(group, kind)))
    assert received[np.float16] < 0.6 * received[np.float32] < 0.36 * received[np.float64]


@pytest.mark.parametrize("known", [True, False])
def test_shortlisted_picks_are_those_of_one_process(known):
    rng = np.random.default_rng(0)
    for ranks in (1, 2, 5):
        pool, scores = bootstrap(90, 6) + 0.1, torch.from_numpy(rng.integers(9, size=90) / 2)
        labeled = clustered(20, 6, seed=3) if known else None
        bounds = cut(90, ranks, rng)
        for budget, shortlist in ((0, 3), (7, 1), (7, 3.5), (90, 10)):
            options = {"shortlist": shortlist, "metric": "cosine"}
            generator = torch.Generator().manual_seed(4)
            want = shortlisted_farthest_first(
                pool, scores, budget, labeled, generator=generator, **options
            )
            highest = top_k(scores, len(want), generator=torch.Generator().manual_seed(4))
            if shortlist == 1:
                assert set(want.tolist()) == set(highest.tolist())
            if not known and budget:
                assert scores[want[0]] == scores.max()

            def pick(group, bounds=bounds, case=(pool, scores, labeled), b=budget, o=options):
                own, theirs = own_part(group, bounds, *case[:2])
                part = None if case[2] is None else case[2][3 * group.rank :]
                generator = torch.Generator().manual_seed(4 + group.rank)
                return shortlisted_farthest_first(
                    own, theirs, b, part, generator=generator, group=group, **o
                )

            for got in run_ranks(ranks, pick):
                assert torch.equal(got, want)


def test_the_highest_scores_are_those_of_one_process():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(5, size=50) / 4)
    some, mask = torch.tensor([30, 4, 5, 49, 20]), torch.from_numpy(rng.random(50) < 0.5)
    bounds = [0, 10, 10, 33, 50]
    parts = [some[:2], some[1:], some[:0], some]
    for ties in ("first", "random"):
        for candidates, given in (
            (None, [None] * 4),
            (some, [some] * 4),
            (some, parts),
            (mask, [mask[a:b] for a, b in itertools.pairwise(bounds)]),
        ):
            want = top_k(scores, 4, candidates, torch.Generator().manual_seed(1), ties)

            def pick(group, given=given, ties=ties):
                (own,) = own_part(group, bounds, scores)
                generator = torch.Generator().manual_seed(1 + group.rank)
                return top_k(own, 4, given[group.rank], generator, ties, group=group)

            for got in run_ranks(4, pick):
                assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda g: top_k(torch.ones(3), 7, group=g), "^k must be between 0 and the 6 candidates"),
        (
            lambda g: top_k(torch.ones(3), 1, torch.tensor([5 + g.rank]), group=g),
            r"^rank 1: candidates must be in \[0, 6\), got 6",
        ),
        (
            lambda g: top_k(torch.ones(3), 1, [None, torch.tensor([5])][g.rank], group=g),
            "^candidates, given or not, must be the same",
        ),
        (
            lambda g: robust_k_center(gaussian(3, 2), 7, group=g),
            r"^budget must be in 1 \.\. 6, got 7",
        ),
        (
            lambda g: robust_k_center(gaussian(3, 2), 3 + g.rank, outliers=3, group=g),
            "^budget and outliers must be the same on every rank",
        ),
        (
            lambda g: robust_k_center(gaussian(3, 2), 2, outliers=g.rank, group=g),
            "^budget and outliers must be the same on every rank",
        ),
        (
            lambda g: shortlisted_farthest_first(
                gaussian(3, 2), torch.ones(3 + g.rank), 1, group=g
            ),
            "^rank 1: each sample must have a score, .* 3 samples with 4 scores",
        ),
        (
            lambda g: shortlisted_farthest_first(gaussian(3, 2), torch.ones(3), 1, [0], group=g),
            "^labeled must be embeddings",
        ),
    ],
)
def test_bad_arguments_of_what_takes_a_group(function, message):
    def refused(group):
        with pytest.raises(ValueError, match=message):
            function(group)

    run_ranks(2, refused)


def with_one(pool, row, value):
    pool = pool.copy()
    pool[row] = value
    return pool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": with_one(gaussian(9, 4), 5, np.nan)}, "^rank 1: pool row 5 holds a NaN"),
        ({"pool": gaussian(9, 3)}, r"^pool must be the same on every rank, got .*4.*rank 0 .*3"),
        ({"pool": gaussian(9, 4).astype(np.float16)}, "^pool must be the same on every rank"),
        ({"pool": gaussian(9, 4)[0]}, r"^rank 1: pool must have shape \(samples, dimensions\)"),
        ({"k": 4}, "^k must be the same on every rank, got 3 on rank 0 and 4 on rank 1"),
        ({"metric": "cosine"}, "^metric must be the same on every rank"),
        ({"labeled": [27]}, r"^rank 1: labeled holds pool index 27, outside \[0, 27\)"),
        ({"labeled": with_one(gaussian(9, 4), 2, np.inf)}, "labeled row 2 holds a NaN"),
    ],
)
def test_bad_input_on_one_rank_is_one_error_on_all(change, message):
    errors = []

    def pick(group):
        given = {"pool": gaussian(9, 4), "k": 3, "labeled": None, "metric": "euclidean"}
        given |= change if group.rank == 1 else {}
        with pytest.raises(ValueError, match=message) as raised:
            farthest_first(**given, group=group)
        errors.append(str(raised.value))

    run_ranks(3, pick)
    assert len(errors) == 3
    assert len(set(errors)) == 1


def test_bad_arguments_of_all_ranks_name_none():
    for given, message in (
        ({"k": 13}, "^k must be between 0 and 12, the number of pool samples"),
        ({"k": 2, "start": 12}, "^start must be between 0 and 11"),
        ({"k": 2, "start": 3, "labeled": [3]}, "^start must not be a labeled sample, got 3"),
        ({"k": 2, "backend": "reference"}, "^backend must be one that works in parts"),
    ):

        def pick(group, given=given, message=message):
            with pytest.raises(ValueError, match=message):
                farthest_first(gaussian(4, 2), group=group, **given)

        run_ranks(3, pick)


def pick_on_gloo(group, pool, bounds, k, labeled, metric):
    rank = torch.distributed.get_rank(group)
    got = farthest_first(
        pool[bounds[rank] : bounds[rank + 1]], k, labeled, metric=metric, group=group
    )
    return got.indices.numpy(), got.distances.numpy(), got.radius


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_processes(size, gloo):
    rng = np.random.default_rng(size)
    for number, dtype in enumerate(DTYPES):  # each with both metrics, over the sizes
        metric = ("euclidean", "cosine")[(number + size) % 2]
        pool = (clustered if metric == "cosine" else bootstrap)(300, 12, seed=size) + 0.1
        pool = torch.from_numpy(pool).to(dtype)
        labeled = [None, clustered(30, 12, seed=9), np.arange(0, 300, 9)][rng.integers(3)]
        want = farthest_first(pool, 60, labeled, metric=metric)
        bounds = cut(300, size, rng)
        for got in gloo.call(pick_on_gloo, pool, bounds, 60, labeled, metric, ranks=size):
            np.testing.assert_array_equal(got[0], want.indices)
            np.testing.assert_array_equal(got[1], want.distances)
            assert got[2] == want.radius


def select_on_gloo(group, pool, scores):
    own = slice(0, 40) if torch.distributed.get_rank(group) == 0 else slice(40, None)
    generator = torch.Generator().manual_seed(2)
    found = robust_k_center(pool[own], 9, outliers=2, group=group)
    highest = top_k(scores[own], 9, generator=generator, group=group)
    shortlisted = shortlisted_farthest_first(
        pool[own], scores[own], 9, generator=generator, group=group
    )
    return found.indices.tolist(), found.radius, highest.tolist(), shortlisted.tolist()


def test_selections_on_processes(gloo):
    pool, scores = clustered(120, 5), torch.arange(120).remainder(7).double()
    generator = torch.Generator().manual_seed(2)
    found = robust_k_center(pool, 9, outliers=2, max_pairs=0)
    highest = top_k(scores, 9, generator=generator)
    shortlisted = shortlisted_farthest_first(pool, scores, 9, generator=generator)
    want = found.indices.tolist(), found.radius, highest.tolist(), shortlisted.tolist()
    assert gloo.call(select_on_gloo, pool, scores, ranks=2) == [want, want]


def test_bad_rows_on_processes(gloo):
    pool = with_one(gaussian(40, 3), 33, np.nan)
    told = [None] * 4
    gloo.begin(pick_on_gloo, pool, [0, 10, 20, 30, 40], 3, None, "euclidean", ranks=4)
    told = [gloo.result(rank) for rank in range(4)]
    assert len(set(told)) == 1
    assert told[0].startswith("ValueError: rank 3: pool row 3 holds a NaN")
