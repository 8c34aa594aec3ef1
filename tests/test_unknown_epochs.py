"""Trainings that do not know when they end: max_steps, early stopping, a stream."""

import sys
import warnings

import numpy as np
import pytest
import torch

from dynal_fast import Epochs, EveryEpoch, FromEpoch, LastEpochs, PoolStats
from dynal_fast.pool.scores import SCORES

pytestmark = pytest.mark.filterwarnings("ignore:num_epochs is None")

N, C = 7, 4
IDS = torch.arange(N)
LAST_OUTPUT = ("entropy", "least_confidence", "margin", "cod", "emaod")


def draw(passes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(passes, N, C, generator=generator)


def train(stats, history, num_epochs=None, stop=None):
    """A training loop that may stop before its last epoch."""
    for epoch, logits in enumerate(history[:stop], start=1):
        if stats.observes(epoch, num_epochs):
            with stats.observe(epoch, num_epochs):
                stats.update(IDS, logits, logits.flip(1))
    return stats


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_early_stop_loses_nothing(name, stop):
    """The same as a training that knew that it would have so many epochs and observed them all."""
    history = draw(6)
    stats, known = (PoolStats(N, C, (name,), schedules=s) for s in ({}, {name: EveryEpoch()}))
    for tracker, num_epochs in ((stats, None), (known, 1)):  # the initial model, for cod
        train(tracker, draw(1, seed=9), num_epochs)
        tracker.begin_cycle()
    train(stats, history, None, stop)
    train(known, history[:stop], stop)
    torch.testing.assert_close(stats.score(name), known.score(name), rtol=0, atol=0)
    assert not stats.score(name).isnan().any()
    assert len(stats.select(name, 3)) == 3


def test_scores_of_one_output_keep_the_last():
    history = draw(5)
    stats = train(PoolStats(N, C, LAST_OUTPUT), history, None, stop=4)
    one = PoolStats(N, C, LAST_OUTPUT)
    with one.observe(1, 1):
        one.update(IDS, history[3], history[3].flip(1))
    for name in LAST_OUTPUT:
        torch.testing.assert_close(stats.score(name), one.score(name), equal_nan=True)


@pytest.mark.parametrize("output_dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("lengths", [(3, 1, 4), (1, 2, 2)])
def test_cod_compares_with_the_last_output_of_the_cycle_before(lengths, output_dtype):
    stats = PoolStats(N, C, ("cod",), output_dtype=output_dtype)
    earlier = None
    for cycle, length in enumerate(lengths):
        history = draw(length, seed=cycle)
        train(stats, history)
        p = history[-1].softmax(1)
        if earlier is None:
            assert stats.score("cod").isnan().all()
            with pytest.raises(ValueError, match=r"compares outputs of two cycles.*begin_cycle"):
                stats.select("cod", 1)
        else:
            want = (p - earlier).norm(dim=1)
            torch.testing.assert_close(stats.score("cod"), want, rtol=0, atol=2e-3)
        stats.begin_cycle()
        earlier = p


def test_cod_of_a_sample_that_the_last_passes_left_out():
    first, second = draw(2), draw(2, seed=1)
    stats = PoolStats(N, C, ("cod",))
    for history in (first, second):
        for epoch, logits in enumerate(history, start=1):
            ids = IDS if epoch == 1 else IDS[:3]
            with stats.observe(epoch, partial=True):
                stats.update(ids, logits[ids])
        if history is first:
            stats.begin_cycle()
    seen = [torch.cat([h[1, :3], h[0, 3:]]).softmax(1) for h in (first, second)]
    torch.testing.assert_close(stats.score("cod"), (seen[1] - seen[0]).norm(dim=1))


def test_a_pass_that_is_repeated_changes_no_cod():
    """After a pass that failed it is run again, and must not compare with itself."""
    stats = train(PoolStats(N, C, ("cod",)), draw(2))
    stats.begin_cycle()
    logits = draw(1, seed=5)[0]
    for _ in range(2):
        with stats.observe(1):
            stats.update(IDS, logits)
    want = (logits.softmax(1) - draw(2)[1].softmax(1)).norm(dim=1)
    torch.testing.assert_close(stats.score("cod"), want)


def test_cod_from_a_cycle_of_known_length_to_one_of_unknown_length():
    known, unknown = draw(3), draw(3, seed=1)
    stats = train(PoolStats(N, C, ("cod",)), known, 3)
    assert "latest_output" not in stats.state_dict()  # one pass a cycle needs one output
    stats.begin_cycle()
    train(stats, unknown)
    want = (unknown[-1].softmax(1) - known[-1].softmax(1)).norm(dim=1)
    torch.testing.assert_close(stats.score("cod"), want)


def test_cod_of_every_epoch_of_a_known_number_too():
    first, second = draw(3), draw(3, seed=1)
    stats = PoolStats(N, C, ("cod",), schedules={"cod": EveryEpoch()})
    train(stats, first, 3).begin_cycle()
    train(stats, second, 3)
    want = (second[-1].softmax(1) - first[-1].softmax(1)).norm(dim=1)
    torch.testing.assert_close(stats.score("cod"), want)


def test_cod_survives_checkpoints_merges_and_subsets_of_every_kind():
    def half_way():
        stats = train(PoolStats(N, C, ("cod", "margin")), draw(2))
        stats.begin_cycle()
        return train(stats, draw(2, seed=1)[:1])

    whole = half_way()
    train(whole, draw(2, seed=1))
    want = whole.score("cod")
    fresh = PoolStats(N, C, ("cod", "margin"))
    fresh.load_state_dict({name: t.clone() for name, t in half_way().state_dict().items()})
    used = train(PoolStats(N, C, ("cod", "margin")), draw(3, seed=7))
    used.load_state_dict(half_way().state_dict())
    parts = PoolStats(N, C, ("cod", "margin")).merge(half_way())
    taken = half_way().subset(IDS)
    for stats in (fresh, used, parts, taken):
        assert "num_epochs being unknown" in stats.metadata["schedules"]
        train(stats, draw(2, seed=1))
        torch.testing.assert_close(stats.score("cod"), want, rtol=0, atol=0)
    used.load_state_dict(PoolStats(N, C, ("cod", "margin")).state_dict())  # of one that kept none
    assert used.score("cod").isnan().all()
    assert "instead of" not in repr(used)
    used.drop([2])
    assert used.state_dict()["latest_output"].isnan().all()


@pytest.mark.parametrize("output_dtype", [torch.float32, torch.float16])
def test_cod_of_a_merge_belongs_to_the_last_output(output_dtype):
    """The later tracker, begun anew within a cycle, has nothing of its own to compare with."""
    first, second = draw(2), draw(4, seed=1)
    stats, later, whole = (PoolStats(N, C, ("cod",), output_dtype=output_dtype) for _ in range(3))
    for tracker in (stats, whole):
        train(tracker, first).begin_cycle()
    train(whole, second)
    train(stats, second[:2])
    with later.observe(1, partial=True):
        later.update(IDS[2:], second[3][2:])
    stats.merge(later)
    tolerance = 1e-6 if output_dtype == torch.float32 else 2e-3
    want = whole.score("cod")
    torch.testing.assert_close(stats.score("cod")[2:], want[2:], rtol=0, atol=tolerance)
    early = (second[1].softmax(1) - first[1].softmax(1)).norm(dim=1)
    torch.testing.assert_close(stats.score("cod")[:2], early[:2], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [
        (FromEpoch(3), [3, 4, 5, 6, 7, 8]),
        (FromEpoch(2, interval=3), [2, 5, 8]),
        (EveryEpoch(), [*range(1, 9)]),
        (EveryEpoch(3), [3, 6]),
        (Epochs({2, 7}), [2, 7]),
    ],
)
def test_schedules_that_need_no_end(schedule, epochs):
    name = "prediction_stability"
    stats = PoolStats(N, C, (name,), schedules={name: schedule})
    assert [e for e in range(1, 9) if stats.observes(e)] == epochs
    history = draw(8)
    train(stats, history)
    p = history.double().softmax(2)[[e - 1 for e in epochs]]
    want = p.var(dim=0, correction=0).sum(1).float()
    torch.testing.assert_close(stats.score(name), want, rtol=1e-4, atol=1e-6)


def test_which_schedule_was_used_is_said():
    stats = PoolStats(N, C, ("prediction_stability", "label_dispersion"))
    assert stats.metadata["schedules"].endswith("prediction_stability: LastEpochs(n=5, interval=1)")
    train(stats, draw(2))
    said = "EveryEpoch(interval=1) instead of LastEpochs(n=5, interval=1)"
    assert f"prediction_stability: {said}, num_epochs being unknown" in stats.metadata["schedules"]
    assert "label_dispersion: EveryEpoch(interval=1);" in stats.metadata["schedules"]
    assert f"prediction_stability observes {said}" in repr(stats)
    assert bool(stats.state_dict()["unknown_end"])
    stats.begin_cycle()
    assert "instead of" not in repr(stats)
    assert "unknown_end" not in stats.state_dict()


def test_an_explicit_schedule_that_counts_back_is_refused_with_the_cure():
    name = "prediction_stability"
    stats = PoolStats(N, C, (name,), schedules={name: LastEpochs(5)})
    with pytest.raises(ValueError, match=r"counts back from the last.*FromEpoch\(start, interval"):
        stats.begin_pass(1)
    with pytest.raises(ValueError, match=r"LastEpochs.* counts back from the last epoch"):
        LastEpochs(5).observes(1, None)
    stats = PoolStats(N, C, ("margin",), schedules={"margin": LastEpochs(3, interval=2)})
    assert stats.observes(1)  # the last output is the same whatever else was observed

    class Odd:
        def observes(self, epoch, num_epochs):
            return (num_epochs - epoch) % 2 == 1

    stats = PoolStats(N, C, ("bald",), schedules={"bald": Odd()})
    assert stats.observes(1, 4)
    with pytest.raises(ValueError, match=r"Odd.* cannot do with num_epochs=None"):
        stats.observes(1)


@pytest.mark.parametrize("name", ["margin", "softmax_response", "prediction_stability"])
def test_the_error_after_an_early_stop_names_the_cure(name):
    stats = train(PoolStats(N, C, (name, "label_dispersion")), draw(12), 50)
    with pytest.raises(ValueError, match=r"none of these epochs came.* epoch 12 of 50.*=None"):
        stats.select(name, 2)
    assert len(stats.select("label_dispersion", 2)) == 2
    with pytest.raises(ValueError, match="never observed for them: 0, 1"):
        PoolStats(N, C, (name,)).select(name, 2)


@pytest.mark.parametrize("name", ["margin", "prediction_stability"])
@pytest.mark.parametrize("schedule", [FromEpoch(50), Epochs({50})])
@pytest.mark.parametrize("num_epochs", [None, 60])
def test_the_cure_for_a_schedule_that_starts_late_is_to_start_earlier(name, schedule, num_epochs):
    stats = PoolStats(N, C, (name, "label_dispersion"), schedules={name: schedule})
    train(stats, draw(3), num_epochs)
    with pytest.raises(ValueError, match=r"none of these epochs came.*Give it earlier epochs") as e:
        stats.select(name, 2)
    assert "num_epochs=None" not in str(e.value)


def test_who_forgets_the_number_of_epochs_is_told_what_changes():
    """Statistics over epochs get another value; those of the last output do not."""
    stats = PoolStats(N, C, ("prediction_stability", "margin", "label_dispersion"))
    with pytest.warns(UserWarning, match=r"None: prediction_stability observes EveryEpoch") as said:
        train(stats, draw(3))
    assert len(said) == 1
    assert "margin" not in str(said[0].message)
    stats.begin_cycle()
    with pytest.warns(UserWarning, match=r"not LastEpochs\(n=5, interval=1\)\. Pass num_epochs"):
        train(stats, draw(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(PoolStats(N, C, ("margin", "cod", "label_dispersion")), draw(2))
        train(PoolStats(N, C, ("prediction_stability",)), draw(2), 2)
        chosen = {"prediction_stability": EveryEpoch()}
        train(PoolStats(N, C, ("prediction_stability",), schedules=chosen), draw(2))


def test_some_of_the_last_epochs_are_not_all_of_them():
    stats = train(PoolStats(N, C, ("prediction_stability",)), draw(8), 10)
    with pytest.warns(UserWarning, match=r"epoch 8 of 10: 3 of 5 epochs.*FromEpoch"):
        stats.select("prediction_stability", 2)


@pytest.mark.parametrize("num_epochs", [-1, 0, sys.maxsize, 2**63 - 1, np.int64(2**62)])
def test_what_libraries_have_for_unknown_is_refused_with_the_cure(num_epochs):
    stats = PoolStats(N, C, ("margin",))
    for call in (stats.observes, stats.begin_pass):
        with pytest.raises(ValueError, match="pass num_epochs=None where the number of epochs is"):
            call(1, num_epochs)


@pytest.mark.parametrize("num_epochs", [3.0, float("inf"), "3", True])
def test_a_number_of_epochs_is_an_integer(num_epochs):
    with pytest.raises(TypeError, match=r"num_epochs must be an integer.*num_epochs=None"):
        PoolStats(N, C, ("margin",)).observes(1, num_epochs)


def test_epochs_count_from_one():
    stats = PoolStats(N, C, ("margin",))
    with pytest.raises(ValueError, match="epoch counts from 1, got 0"):
        stats.observes(0)
    with pytest.raises(ValueError, match=r"between 1 and num_epochs = 3, got 4.*num_epochs=None"):
        stats.observes(4, 3)
    assert stats.observes(np.int64(3), np.int32(3))


def test_an_epoch_that_turns_out_to_be_the_last_is_one_for_scores_of_the_last_output():
    """Others do not observe it again, and the training may go on."""
    track = (*LAST_OUTPUT, "label_dispersion", "prediction_stability")
    stats, known = PoolStats(N, C, track), PoolStats(N, C, LAST_OUTPUT)
    for tracker in (stats, known):
        train(tracker, draw(1, seed=9))
        tracker.begin_cycle()
    history = draw(8)
    train(stats, history, num_epochs=20, stop=3)
    votes = stats.score("label_dispersion").clone()
    for epoch, tried in ((3, history[2]), (4, history[3])):  # it stopped, went on, stopped again
        assert stats._lacks_last(epoch, 20, had_pass=True)
        with stats._training_stopped(), stats.observe(epoch, epoch):
            stats.update(IDS, tried, tried.flip(1))
        with known.observe(epoch):
            known.update(IDS, tried, tried.flip(1))
        for name in LAST_OUTPUT:
            torch.testing.assert_close(stats.score(name), known.score(name), rtol=0, atol=0)
    assert torch.equal(stats.score("label_dispersion"), votes)
    with pytest.raises(ValueError, match="the last one was epoch 3 of 20"):
        stats.select("prediction_stability", 1)
    other = PoolStats(N, C, track)
    other.load_state_dict(stats.state_dict())
    other.begin_cycle()
    assert not other._lacks_last(20, 20, had_pass=True)
