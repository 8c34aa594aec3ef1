"""Pool statistics that ranks keep together are those of one process, bit for bit."""

import itertools
import os
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynal_fast import (
    EveryEpoch,
    PoolObservationError,
    PoolShardSampler,
    PoolStats,
    observe_pool,
    top_k,
)
from dynal_fast.collective import RankError
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.pool.scores import SCORES, TRAINING_SCORES
from dynal_fast.pool.sharded import sharded_pass
from dynal_fast.pool.sharded.buffers import buffers_of_the_first
from dynal_fast.pool.sharded.top import top_k_of_ranks
from tests.gloo_ranks import GlooRanks

N, C, EPOCHS = 23, 4, 3
TRACK = (*SCORES, *TRAINING_SCORES)
# Two schedules for what shares tensors, so that there are two sets of them.
SCHEDULES = {**dict.fromkeys(TRACK, EveryEpoch()), "bald": EveryEpoch(2)}


@pytest.fixture(scope="module")
def gloo():
    with GlooRanks(4) as ranks:
        yield ranks


def made(group=None, **options):
    options = {"schedules": SCHEDULES, **options}
    return PoolStats(N, C, TRACK, group=group, **options)


def drawn(cycle, epoch):
    generator = torch.Generator().manual_seed(10 * cycle + epoch)
    logits = torch.randn(2, N, C, generator=generator)
    logits[0, 5] = logits[0, 9] = logits[0, 20]  # ties, on several ranks
    return logits.round(decimals=1).unbind()


def dealt(rank, size, how, epoch):
    """The batches of a rank: its own samples, or those that a shuffling loader deals out."""
    if how == "own":
        ids = torch.arange(N * rank // size, N * (rank + 1) // size)
    elif how == "one has all":
        ids = torch.arange(N if rank == size - 1 else 0)
    else:
        shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
        ids = shuffled[rank::size]
    return [*ids.split(3), ids[:0]]


def trained(stats, rank=0, size=1, how="own", cycles=2, epochs=EPOCHS):
    for cycle in range(cycles):
        if cycle:
            stats.begin_cycle()
        for epoch in range(1, epochs + 1):
            logits, teacher = drawn(cycle, epoch)
            with stats.observe(epoch, epochs):
                for ids in dealt(rank, size, how, epoch):
                    stats.update(ids, logits[ids], teacher[ids], targets=ids % C)
    return stats


def everything(stats):
    """What every rank must say alike, as tensors and lists."""
    generator = torch.Generator().manual_seed(7)
    said = {name: stats.score(name) for name in stats.track}
    said["code"] = stats.score("cod", form="tod_code")
    for name in ("margin", "label_dispersion", "cod", "absolute_increase", "aum", "correctness"):
        said[f"first {name}"] = stats.select(name, 9, ties="first")
        said[f"random {name}"] = stats.select(name, 9, generator=generator)
        some = torch.arange(1, N, 2)
        said[f"some {name}"] = stats.select(name, 4, candidates=some, generator=generator)
    said.update(stats.training_dynamics()._asdict())
    cleanlab = stats.to_cleanlab()
    said.update((name, torch.from_numpy(a)) for name, a in cleanlab._asdict().items())
    said["remaining"] = stats.remaining()
    said["generator"] = generator.get_state()
    return said


def check_same(got, want):
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == want[name].dtype, name
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.fixture(scope="module")
def one():
    return everything(trained(made()))


def test_one_process_without_a_group_is_as_before(one):
    assert one["first margin"].tolist() == made_margin(one).tolist()


def made_margin(said):
    return top_k(said["margin"], 9, ties="first")


@pytest.mark.parametrize(
    ("size", "how"),
    [(1, "own"), (2, "shuffled"), (3, "one has all"), (4, "own"), (4, "shuffled"), (25, "own")],
)
def test_any_number_of_ranks_and_any_loader_equals_one_process(size, how, one, monkeypatch):
    monkeypatch.setattr(sharded_pass, "BYTES_AT_A_TIME", 200 * size)  # several exchanges
    for got in run_ranks(size, lambda g: everything(trained(made(g), g.rank, g.size, how))):
        check_same(got, one)


def of_gloo(group, how):
    stats = made(group)
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    return everything(trained(stats, rank, size, how))


@pytest.mark.parametrize(("size", "how"), [(1, "own"), (2, "one has all"), (4, "shuffled")])
def test_processes_of_gloo_equal_one(size, how, gloo, one):
    for got in gloo.call(of_gloo, how, ranks=size):
        check_same(got, one)


def test_no_rank_holds_the_others_rows():
    def rows(group):
        stats = trained(made(group), group.rank, group.size, "shuffled")
        return len(stats.owned()), stats.nbytes()["total"], stats.owned().tolist()

    parts = run_ranks(4, rows)
    assert [count for count, _, _ in parts] == [5, 6, 6, 6]
    assert [i for _, _, own in parts for i in own] == list(range(N))
    whole = trained(made()).nbytes()["total"]
    assert max(nbytes for _, nbytes, _ in parts) < 0.35 * whole


@pytest.mark.parametrize("classes", [3, 4, 5])
def test_a_single_row_finds_its_owner(classes):
    """Rows of bytes that hold no whole number of int64."""

    def observed(group):
        stats = PoolStats(9, classes, ("margin",), group=group)
        logits = torch.arange(9.0 * classes).view(9, classes).square()
        with stats.observe(1, 1):
            ids = torch.tensor([0]) if group.rank else torch.arange(1, 9)
            stats.update(ids, logits[ids])
        return stats.score("margin")

    one = PoolStats(9, classes, ("margin",))
    with one.observe(1, 1):
        one.update(torch.arange(9), torch.arange(9.0 * classes).view(9, classes).square())
    for score in run_ranks(2, observed):
        assert torch.equal(score, one.score("margin"))


def test_float16_and_features_find_their_owners():
    """Rows of features become logits before they travel."""
    features = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    head = nn.Linear(8, C)

    def observed(group, by_id=False, dtype=torch.float32):
        stats = PoolStats(N, C, ("margin", "emaod"), group=group, output_dtype=torch.float16)
        rank, size = (0, 1) if group is None else (group.rank, group.size)
        with torch.no_grad(), stats.observe(1, 1):
            for ids in dealt(rank, size, "shuffled", 1):
                weights = head.weight.to(dtype), head.bias.to(dtype)
                given = features.to(dtype) if by_id else features[ids].to(dtype)
                stats.update_from_features(ids, given, *weights, given, *weights, by_id=by_id)
        return stats.score("margin")

    for by_id, dtype in itertools.product((False, True), (torch.float32, torch.float64)):
        want = observed(None, by_id, dtype)
        for got in run_ranks(3, lambda g, b=by_id, d=dtype: observed(g, b, d)):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def failing(group, ids, logits, partial=False, targets=None):
    stats = PoolStats(6, 2, ("margin", "confidence"), group=group)
    stats.drop([5])
    rank = stats.shard.ranks.rank
    with pytest.raises(PoolObservationError) as told, stats.observe(1, 1, partial=partial):
        stats.update(ids[rank], logits[rank], targets=None if targets is None else targets[rank])
    error = told.value
    kinds = ("non_finite", "duplicate", "unseen", "unknown")
    lists = [getattr(error, kind).tolist() for kind in kinds]
    ranks = [error.ranks[kind].tolist() for kind in kinds]
    return str(error), lists, ranks, error.num_unknown, stats.score("margin").tolist()


BAD_IDS = [[0, 4, 1, 9], [1, 2, 5, -3]]
NAN = torch.nan
BAD_LOGITS = torch.tensor(
    [[[0.0, 1.0], [0, NAN], [0, 2], [0, 0]], [[0, 1], [0, 1], [0, 1], [0, 1]]]
)


def check_failing(answers):
    assert answers[0][:4] == answers[1][:4]
    text, lists, ranks, unknown, _ = answers[0]
    assert lists == [[4], [1], [3], [9, 5, -3]] or lists == [[4], [1], [3], [9, -3, 5]]
    assert ranks[0] == [0]  # whose loader gave the bad row, though rank 1 owns the sample
    assert ranks[2] == [1]
    assert unknown == 3
    assert "1 samples with a non-finite logit: 4 (rank 0)" in text
    assert "not seen (pass partial=True if that is meant): 3 (rank 1)" in text


def test_what_is_wrong_anywhere_is_one_error_on_all_ranks(gloo):
    check_failing(run_ranks(2, lambda g: failing(g, BAD_IDS, BAD_LOGITS)))
    check_failing(gloo.call(failing, BAD_IDS, BAD_LOGITS, ranks=2))
    ids, zeros = [[0, 1, 2], [3, 4]], [torch.zeros(3, 2), torch.zeros(2, 2)]
    targets = [[0, 1, 0], [0, 2]]
    for text, lists, *_ in run_ranks(2, lambda g: failing(g, ids, zeros, targets=targets)):
        assert lists[0] == [4]
        assert "or a target of 2 or more: 4 (rank 1)" in text


def test_a_selection_that_cannot_be_says_so_on_all_ranks():
    def tried(group):
        stats = PoolStats(9, 2, ("margin", "prediction_stability", "random"), group=group)
        said = []
        with stats.observe(3, 3, partial=True):
            stats.update([group.rank], torch.zeros(1, 2))
        stats.drop([0])
        for arguments in (("margin", 1), ("margin", 9, [1]), ("margin", 1, [0, 1]),
                          ("margin", 1, [99]), ("entropy", 1), ("random", 9)):  # fmt: skip
            with pytest.raises(ValueError) as error:
                stats.select(*arguments)
            said.append(str(error.value))
        assert stats.select("margin", 2, [1, 2], ties="first").tolist() == [1, 2]
        return said

    answers = run_ranks(3, tried)
    assert answers[0] == answers[1] == answers[2]
    never, many, dropped, out, untracked, few = answers[0]
    assert never.startswith(
        "6 candidates have no 'margin', since it was never observed for them: 3"
    )
    assert "k must be between 0 and the 1 candidates, got 9" in many
    assert "1 candidates were dropped: 0" in dropped
    assert "candidates must be in [0, 9)" in out
    assert "'entropy' is not tracked" in untracked
    assert "the 8 candidates, got 9" in few


def test_selections_of_different_sizes_are_one_error_on_all_ranks():
    def selected(group):
        with pytest.raises(ValueError, match="k and ties must be the same on every rank"):
            trained(made(group), group.rank, group.size).select("margin", 2 + group.rank)

    run_ranks(2, selected)


def test_different_arguments_are_one_error_on_all_ranks():
    def asked(group):
        stats = trained(made(group), group.rank, group.size)
        with pytest.raises(ValueError, match="candidates, given or not, must be the same on every"):
            stats.select("margin", 2, candidates=[1, 2, 3] if group.rank else None)
        for given in ([0, 1, 2], [7, 8]), ([3, 4], [4, 3]):
            with pytest.raises(ValueError, match="sample_ids must be the same on every rank"):
                stats.subset(given[group.rank])
        return stats.subset([4, 3]).num_samples

    assert run_ranks(2, asked) == [2, 2]


def test_buffers_of_any_size_are_those_of_the_first_rank():
    """int64 numbers behind bytes that are no multiple of 8."""

    def seen(group):
        model = nn.Sequential(nn.BatchNorm1d(3))
        model.register_buffer("mean", torch.full((3,), float(group.rank)))
        model.register_buffer("mask", torch.tensor([True] * 3))
        model[0].num_batches_tracked += 5 + group.rank
        with buffers_of_the_first(group, model):
            within = model.mean.tolist(), int(model[0].num_batches_tracked)
        return within, model.mean.tolist()

    for rank, (within, after) in enumerate(run_ranks(2, seen)):
        assert within == ([0.0] * 3, 5)
        assert after == [float(rank)] * 3


def test_a_duplicate_is_told_with_the_rank_that_gave_it():
    def seen(group):
        stats = PoolStats(4, C, ("margin",), group=group)
        stats.begin_pass(1, 1)
        for ids in ([0], [0], [2, 3]) if group.rank else ([1],):
            stats.update(ids, torch.zeros(len(ids), C))
        with pytest.raises(PoolObservationError) as caught:
            stats.end_pass()
        error = caught.value
        return error.duplicate.tolist(), error.ranks["duplicate"].tolist()

    assert run_ranks(2, seen) == [([0], [1])] * 2


def test_random_scores_are_those_of_the_first_rank():
    def picked(group):
        stats = PoolStats(40, 2, ("random",), group=group)
        seed = 0 if group is None else group.rank
        return stats.select("random", 5, generator=torch.Generator().manual_seed(seed))

    assert all(torch.equal(got, picked(None)) for got in run_ranks(3, picked))


def test_tops_of_ranks_are_the_top_of_all():
    generator = torch.Generator().manual_seed(3)
    for trial in range(40):
        scores = torch.randint(0, 1 + trial % 6, (trial,), generator=generator).float()
        mask = torch.rand(trial, generator=generator) < 0.8
        cuts = torch.randint(0, trial + 1, (2,), generator=generator).sort().values.tolist()
        bounds = [0, *cuts, trial]
        for k, ties in itertools.product({0, int(mask.sum()) // 2, int(mask.sum())},
                                         ("first", "random")):  # fmt: skip
            want = top_k(scores, k, mask, torch.Generator().manual_seed(trial), ties)

            def top(group, k=k, ties=ties, bounds=bounds, scores=scores, mask=mask, trial=trial):
                own = slice(*bounds[group.rank : group.rank + 2])
                draws = torch.Generator().manual_seed(trial + 100 * group.rank)
                return top_k_of_ranks(scores[own], k, mask[own], draws, ties, group)

            assert all(torch.equal(got, want) for got in run_ranks(3, top))


# Samples


def test_drop_subset_and_merge_are_those_of_one_process():
    def changed(group, rank, size):
        first = trained(made(group), rank, size, cycles=1)
        first.drop(torch.tensor([2, 20]))
        second = made(group).merge(first)
        ids = torch.tensor([22, 0, 7, 3, 19, 20, 4, 11])
        smaller = second.subset(ids)
        with smaller.observe(3, 3, partial=True):
            own = smaller.owned()
            smaller.update(own, ids[own, None] * torch.arange(float(C)), torch.zeros(len(own), C))
        mask = torch.zeros(8, dtype=torch.bool)
        mask[4] = True
        smaller.drop(mask)
        said = {name: smaller.score(name) for name in smaller.track}
        return {**said, "remaining": smaller.remaining(), "in second": second.remaining()}

    want = changed(None, 0, 1)
    for size in (2, 3, 11):
        for got in run_ranks(size, lambda g: changed(g, g.rank, g.size)):
            check_same(got, want)


def test_each_rank_may_name_its_own_samples():
    def dropped(group):
        stats = PoolStats(9, 2, ("margin",), group=group)
        stats.drop([[0, 8], [4], []][group.rank])
        return stats.remaining().tolist()

    assert run_ranks(3, dropped) == [[1, 2, 3, 5, 6, 7]] * 3


def test_merge_refuses_on_all_ranks():
    def merged(group):
        one, other = (PoolStats(6, 2, ("absolute_increase",), group=group) for _ in range(2))
        for stats in (one, other):
            with stats.observe(1, 1, partial=True):
                stats.update([5] if group.rank else [], torch.zeros(group.rank, 2))
        with pytest.raises(ValueError, match=r"absolute_increase of 1 samples .*: 5;"):
            one.merge(other)
        with pytest.raises(ValueError, match="merge needs the same ranks"):
            one.merge(PoolStats(6, 2, ("absolute_increase",)))
        return True

    assert run_ranks(2, merged) == [True, True]


# Checkpoints


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4), (4, 3), (30, 2), (2, 2)])
def test_checkpoints_are_loaded_by_another_number_of_ranks(before, after, one):
    def half(group):
        stats = trained(made(None if before == 1 else group), group.rank, group.size, cycles=1)
        return {name: tensor.clone() for name, tensor in stats.state_dict().items()}

    saved = run_ranks(before, half)
    given = saved[0] if before == 1 else saved[::-1]

    def resumed(group):
        stats = made(None if after == 1 else group)
        own = saved[group.rank] if before == after else given
        stats.load_state_dict(own)
        stats.begin_cycle()
        logits_of = [drawn(1, epoch) for epoch in range(1, EPOCHS + 1)]
        for epoch, (logits, teacher) in enumerate(logits_of, start=1):
            with stats.observe(epoch, EPOCHS):
                ids = stats.owned()
                stats.update(ids, logits[ids], teacher[ids], targets=ids % C)
        return everything(stats)

    for got in run_ranks(after, resumed):
        check_same(got, one)


def test_checkpoints_that_do_not_fit_are_refused_on_all_ranks():
    saved = run_ranks(3, lambda g: trained(made(g), g.rank, g.size, cycles=1).state_dict())
    other = run_ranks(3, lambda g: trained(made(g), g.rank, g.size, cycles=2).state_dict())
    broken = [dict(part) for part in saved]
    broken[2]["m2"] = broken[2]["m2"].clone() - 99
    short = [dict(part) for part in saved]
    short[1]["mean"] = short[1]["mean"][:2]
    for given, message in (
        (saved[:2], "needs the samples .*pass the states of all ranks, as a list"),
        ([*saved[:2], saved[1]], "two of the saved states hold|needs the samples"),
        ([*saved, saved[1]], "two of the saved states hold the samples"),
        ([*saved[:2], other[2]], "not saved at the same time: passes"),
        (broken, r"m2 of sample .* is -"),
        (short, "mean must have a row for each of the samples 7 to 14"),
        ([], "state_dict must be a state or the parts of one, got none"),
        (saved[0], "needs the samples"),
    ):

        def loaded(group, given=given, message=message):
            stats = made(group)
            with pytest.raises(ValueError, match=message):
                stats.load_state_dict(given)
            return stats.state_dict()["passes"].item()

        assert run_ranks(2, loaded) == [0, 0]
    for given in (3, [3]):
        with pytest.raises(TypeError, match="must map names to tensors, got int"):
            made().load_state_dict(given)
    with pytest.raises(ValueError, match="hold 0 to 6"):
        made().load_state_dict(saved[0])


# Loops


def looped(group, track=("label_dispersion", "cod")):
    torch.manual_seed(0)
    inputs = torch.randn(N, 6)
    pool = TensorDataset(torch.arange(N), inputs)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, C))
    if group is not None:
        model[1].running_mean += torch.distributed.get_rank(group)  # as of other batches
    stats = PoolStats(N, C, track, group=group)
    loader = DataLoader(pool, batch_size=4, sampler=PoolShardSampler(stats))
    for _ in range(2):
        stats.begin_cycle()
        for epoch in (1, 2):
            with torch.no_grad():
                for weight in model.parameters():
                    weight += 0.1 * torch.randn(weight.shape)
            assert observe_pool(model, loader, stats, epoch=epoch, num_epochs=2, ids=0)
        stats.drop([0, 22])
    return stats.score("label_dispersion"), stats.select("label_dispersion", 5, ties="first")


def test_the_plain_loop_under_data_parallel(gloo):
    want = looped(None)
    assert want[0].isnan().nonzero().flatten().tolist() == [0, 22]
    for scores, picks in gloo.call(looped, ranks=4):
        torch.testing.assert_close(scores, want[0], equal_nan=True)
        assert torch.equal(picks, want[1])


def share_of_few(group):
    """Two samples for three ranks: one has none, and all go through every pass."""
    stats = PoolStats(2, C, ("bald", "margin"), group=group)
    pool = TensorDataset(torch.arange(2), torch.eye(2))
    loader = DataLoader(pool, batch_size=4, sampler=PoolShardSampler(stats))
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, C))
    done = [observe_pool(model, loader, stats, epoch=1, num_epochs=1, mc_passes=m, partial=m > 0)
            for m in (0, 3)]  # fmt: skip
    return done, stats.state_dict()["passes"].item(), bool(stats.score("bald").isnan().any())


def test_ranks_without_samples_go_through_every_pass(gloo):
    assert gloo.call(share_of_few, ranks=3) == [([True, True], 4, False)] * 3


def test_sampler_gives_each_sample_once():
    def own(group):
        stats = PoolStats(N, C, ("margin",), group=group)
        stats.drop([0, 3, 22])
        sampler = PoolShardSampler(stats)
        assert len(sampler) == len(list(sampler))
        return list(sampler)

    for size in (1, 2, 5, 30):
        shares = run_ranks(size, own)
        assert [i for share in shares for i in share] == [
            i for i in range(N) if i not in (0, 3, 22)
        ]
    with pytest.raises(TypeError, match="stats must be a PoolStats, got list"):
        PoolShardSampler([1, 2])


# Faults


def failing_in_a_pass(group, how):
    stats = made(group)
    rank = torch.distributed.get_rank(group)
    begun = time.monotonic()
    try:
        with stats.observe(1, EPOCHS):
            if rank == 1 and how == "dies":
                os._exit(1)
            if rank == 1:
                raise KeyError("no such image")
    except RankError as error:
        return type(error).__name__, str(error), time.monotonic() - begun
    except KeyError as error:
        return "KeyError", str(error), 0.0


def test_an_error_on_one_rank_ends_the_pass_on_all(gloo):
    answers = gloo.call(failing_in_a_pass, "raises", ranks=3)
    assert answers[1][0] == "KeyError"
    for kind, text, seconds in (answers[0], answers[2]):
        assert kind == "RankError"
        assert "rank 1 failed: KeyError" in text
        assert "no such image" in text
        assert seconds < 20


def test_a_rank_that_dies_in_a_pass_is_named():
    with GlooRanks(3) as ranks:
        ranks.begin(failing_in_a_pass, "dies", ranks=3)
        for rank in (0, 2):
            kind, text, seconds = ranks.result(rank)
            assert kind == "RankError"
            assert "rank 1" in text
            assert seconds < 20
