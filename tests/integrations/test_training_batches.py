"""The batches of a training, folded in by hand: checkpoints within an epoch, repeats, targets."""

import copy
import threading

import pytest
import torch

from dynal_fast import PoolObservationError, PoolStats
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.integrations.observer import PoolObserver
from dynal_fast.integrations.process_group import Processes
from dynal_fast.integrations.training_batches import TrainingObserver

N, C = 6, 3


def observer(**options):
    stats = PoolStats(N, C, track=("aum",))
    return TrainingObserver(stats, 1, options.pop("targets", None), **options)


def batch_of(ids, seed=0):
    logits = torch.randn(len(ids), C, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(ids), logits, {"labels": torch.tensor(ids) % C}


def observations(one):
    return one.stats.training_dynamics().observations.tolist()


def test_a_sample_counts_once_in_an_epoch_with_a_checkpoint_within():
    saved, plain = observer(), observer()
    for one in (saved, plain):
        one.begin(0, [])
        one.begin_epoch(1, 2)
        one.saw(*batch_of([0, 3], 1))
        state = copy.deepcopy(one.state_dict()) if one is saved else None
        one.saw(*batch_of([0, 1], 2))
        if one is saved:
            one.state_dict()
        one.saw(*batch_of([3, 1], 3))  # none is new
        one.end_epoch()
        assert observations(one) == [1, 1, 0, 1, 0, 0]
        one.begin_epoch(2, 2)
        one.saw(*batch_of([0, 1, 2], 4))
        one.end_epoch()
        assert observations(one) == [2, 2, 1, 1, 0, 0]
        if one is saved:
            first = state
    assert torch.equal(
        saved.stats.score("aum").nan_to_num(9), plain.stats.score("aum").nan_to_num(9)
    )

    resumed = observer()
    resumed.load_state_dict(first)
    resumed.begin(0, [])
    resumed.begin_epoch(1, 2)
    resumed.saw(*batch_of([0, 1], 2))
    resumed.saw(*batch_of([3, 1], 3))
    resumed.end_epoch()
    resumed.begin_epoch(2, 2)
    resumed.saw(*batch_of([0, 1, 2], 4))
    resumed.end_epoch()
    assert observations(resumed) == [2, 2, 1, 1, 0, 0]
    assert torch.equal(
        resumed.stats.score("aum").nan_to_num(9), plain.stats.score("aum").nan_to_num(9)
    )


def test_what_was_seen_is_of_one_epoch_and_one_training():
    one = observer()
    one.begin_epoch(1, None)
    one.saw(*batch_of([0]))
    state = copy.deepcopy(one.state_dict())
    for load, epoch, begins, count in (
        (state, 2, False, 2),  # another epoch
        ({key: part for key, part in state.items() if key != "seen"}, 1, False, 2),  # an old state
        (state, 1, False, 1),
        (state, 1, True, 2),  # then another training from the start
    ):
        one.load_state_dict(load)  # also while a pass is open
        if begins:
            one.end()
            one.begin(0, [])
        one.begin_epoch(epoch, None)
        one.saw(*batch_of([0]))
        one.end_epoch()
        assert observations(one)[0] == count, (epoch, begins)


def test_a_sample_that_moves_to_another_process_counts_once(monkeypatch):
    own = threading.local()
    monkeypatch.setattr(Processes, "current", classmethod(lambda cls: cls(own.ranks)))

    def work(ranks):
        own.ranks = ranks
        one = observer()
        one.begin_epoch(1, 1)
        one.saw(*batch_of([0, 1] if ranks.rank == 0 else [2, 3], 1))
        state = copy.deepcopy(one.state_dict())
        one.saw(*batch_of([2, 4] if ranks.rank == 0 else [0, 5], 2))
        one.end_epoch()
        return one, state

    (first, state), (second, other) = run_ranks(2, work)
    assert observations(first) == observations(second) == [1] * N
    assert torch.equal(first.stats.score("aum"), second.stats.score("aum"))
    assert torch.equal(state["seen"]["mask"], other["seen"]["mask"])
    assert state["seen"]["mask"].tolist() == [True] * 4 + [False] * 3


def test_what_is_wrong_is_named_after_a_checkpoint_too():
    one = observer()
    one.begin_epoch(1, 1)
    one.saw(*batch_of([0, 1]))
    one.state_dict()
    ids, logits, batch = batch_of([0, 2])
    with pytest.raises(ValueError, match="logits"):
        one.saw(ids, logits[:1], batch)
    with pytest.raises(ValueError, match="targets"):
        one.saw(ids, logits, {"labels": torch.zeros(3, dtype=torch.int64)})
    one.saw(ids.int(), logits, batch)
    one.saw(torch.tensor([N, -1]), logits, batch)
    one.saw(torch.tensor([N, 2]), logits, batch)
    with pytest.raises(PoolObservationError) as error:
        one.end_epoch()
    assert error.value.num_unknown == 3
    assert observations(one) == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("by_id", [False, True])
def test_a_column_of_targets_has_the_classes(by_id):
    classes = torch.tensor([2, 0, 1, 2, 1, 0])
    one = observer(targets=classes[:, None] if by_id else None)
    one.begin_epoch(1, 1)
    ids, logits, _ = batch_of([5, 4, 3, 2, 1, 0])
    one.saw(ids, logits, {"labels": classes.flip(0)[:, None]})
    one.end_epoch()
    assert torch.equal(one.stats.training_dynamics().targets, classes)


@pytest.mark.parametrize("batch", ["parts", "named"])
def test_ids_are_not_taken_for_targets(batch):
    one = observer()
    one.begin_epoch(1, 1)
    ids, logits, _ = batch_of([0, 1])
    with pytest.raises(ValueError, match="has the ids was taken for the targets: give targets="):
        one.saw(ids, logits, (logits, ids) if batch == "parts" else {"x": logits, "label": ids})


def test_a_resumed_training_repeats_the_teachers_way_too():
    observer, resumed = (
        PoolObserver(PoolStats(4, 2, track=("margin",)), 1, None, 0, True, "auto") for _ in range(2)
    )
    observer.accelerator.settled = "off"
    observer.accelerator.of_teacher().settled = "fold"
    resumed.load_state_dict(observer.state_dict())
    assert resumed.accelerator.settled == "off"
    assert resumed.accelerator.of_teacher().settled == "fold"
