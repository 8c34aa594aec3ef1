"""Training dynamics of labeled samples: every CPU implementation, and the papers' definitions."""

import numpy as np
import pytest
import torch

from dynal_fast import Epochs, PoolObservationError, PoolStats
from dynal_fast.ops.pool_stats import (
    LOGIT_LIMIT,
    NON_FINITE,
    STATE,
    pool_stats_update,
    pool_stats_update_from_features,
)
from dynal_fast.pool.scores import SCORES, TRAINING_SCORES
from tests.cases.pool_stats import TYPICAL, Tracker, assert_same, batches
from tests.test_pool_stats import backend  # noqa: F401

N, C, EPOCHS = 40, 5, 12
TRAINING = ("training_count", "training")


def transcribed(history, targets):
    """The papers' definitions for one sample: logits (epochs, C) and its class; plain NumPy."""
    p = np.exp(history - history.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    onehot = np.zeros(history.shape[1])
    onehot[targets] = 1
    correct = [int(row.argmax() == targets) for row in history]
    events = [i for i in range(1, len(correct)) if correct[i - 1] > correct[i]]  # Toneva et al.
    margins = [row[targets] - max(np.delete(row, targets)) for row in history]  # Pleiss et al.
    return {
        "confidence": p[:, targets].mean(),  # Swayamdipta et al.
        "variability": np.sqrt(((p[:, targets] - p[:, targets].mean()) ** 2).mean()),
        "correctness": sum(correct) / len(correct),
        "forgetting": len(events) if any(correct) else np.inf,
        "first_learned": correct.index(1) + 1 if any(correct) else np.inf,
        "aum": sum(margins) / len(margins),
        "el2n": np.mean([np.linalg.norm(row - onehot) for row in p]),  # Paul et al.
    }


def drawn(seed=0, epochs=EPOCHS, n=N, classes=C):
    """Logits (epochs, N, C) that grow towards most samples' targets, and the targets."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (n,), generator=generator)
    logits = 1.5 * torch.randn(epochs, n, classes, generator=generator)
    pull = torch.linspace(-3.0, 2.5, n)[:, None] * torch.eye(classes)[targets]
    return logits + torch.linspace(0.6, 1, epochs)[:, None, None] * pull, targets


def observe(stats, history, targets, first=1, last=None):
    for epoch, logits in enumerate(history, start=first):
        with stats.observe(epoch, last or len(history)):
            for ids in torch.randperm(len(targets)).split(7):
                stats.update(ids, logits[ids], targets=targets[ids])
    return stats


@pytest.fixture(scope="module")
def observed():
    history, targets = drawn()
    stats = observe(PoolStats(N, C, training_dynamics=True), history, targets)
    rows = [transcribed(history[:, i].double().numpy(), int(targets[i])) for i in range(N)]
    return stats, {name: np.array([row[name] for row in rows]) for name in rows[0]}, targets


@pytest.mark.parametrize("name", TRAINING_SCORES)
def test_score_is_its_papers_definition(observed, name):
    stats, want, _ = observed
    np.testing.assert_allclose(stats.score(name), want[name], rtol=2e-5, atol=1e-6)
    sign = -1 if TRAINING_SCORES[name].selects == "lowest" else 1
    picks = stats.select(name, 6, ties="first")
    best = np.sort(sign * want[name])[::-1][:6]
    np.testing.assert_allclose(sign * want[name][picks], best, rtol=1e-5)
    assert len(np.unique(want[name])) > 3  # the case can tell


def test_lowest_are_picked_where_low_means_hard():
    lowest = {name for name, score in TRAINING_SCORES.items() if score.selects == "lowest"}
    assert lowest == {"confidence", "correctness", "aum"}
    assert {score.selects for score in SCORES.values()} == {"highest"}


def test_everything_in_one(observed):
    stats, want, targets = observed
    dynamics = stats.training_dynamics()
    assert torch.equal(dynamics.targets, targets)
    assert dynamics.observations.tolist() == [EPOCHS] * N
    for name in ("confidence", "variability", "aum", "el2n"):
        np.testing.assert_allclose(getattr(dynamics, name), want[name], rtol=2e-5, atol=1e-6)
    learned = np.isfinite(want["forgetting"])
    assert not learned.all()
    events = np.where(learned, want["forgetting"], 0)
    assert dynamics.forgetting_events.tolist() == events.tolist()
    assert dynamics.correct.tolist() == np.round(want["correctness"] * EPOCHS).tolist()
    first = np.where(learned, want["first_learned"], 0)
    assert dynamics.first_learned.tolist() == first.tolist()
    ended_right = dynamics.learning_events - dynamics.forgetting_events
    assert set(ended_right.tolist()) == {0, 1}
    counted = stats.score("forgetting", never_learned=0)
    assert counted.tolist() == events.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("num_classes", [2, 7, 33, 1000])
def test_update_agrees_with_float64(backend, num_classes, dtype):  # noqa: F811
    names = (*TYPICAL, "teacher_discrepancy", *TRAINING)
    got, want = Tracker(37, num_classes, names), Tracker(37, num_classes, names, exact=True)
    generator = torch.Generator().manual_seed(num_classes)
    targets = torch.randint(num_classes, (37,), generator=generator)
    for number, ids, logits, teacher in batches(37, num_classes, dtype, passes=4):
        logits[torch.arange(len(ids)), targets[ids.long()]] += 3 * number - 6
        given = targets[ids.long()].clone()
        given[::5] = -100  # no target
        given[3::11] = (given[3::11] + 1).clamp(max=num_classes - 1)  # another
        given[4] = num_classes + number if number == 2 else given[4]  # no class
        for tracker in (got, want):
            if tracker.pass_stamp.item() != 4 * number:
                tracker.begin_pass(number)
            options = {"backend": backend} if tracker is got else {}
            tracker.update(ids, logits, teacher, targets=given, **options)
    assert (got.stamp & NON_FINITE).any() or got.stamp.max() > 0
    assert_same(got, want)


@pytest.mark.parametrize("num_classes", [5, 130])
def test_update_from_features(backend, num_classes):  # noqa: F811
    generator = torch.Generator().manual_seed(3)
    names = ("label_counts", *TRAINING)
    got, want = Tracker(260, num_classes, names), Tracker(260, num_classes, names, exact=True)
    weight = torch.randn(num_classes, 16, generator=generator)
    targets = torch.randint(num_classes, (260,), generator=generator)
    for number in (1, 2):
        for tracker in (got, want):
            tracker.begin_pass(number)
        for ids in torch.randperm(260, generator=generator).split(201):
            heads = (torch.randn(len(ids), 16, generator=generator), weight, *(None,) * 4)
            got.update_from_features(ids, *heads, targets=targets[ids], backend=backend)
            want.update_from_features(ids, *heads, targets=targets[ids])
    assert_same(got, want, rtol=2e-5, atol=5e-6)


def test_sure_and_huge_logits(backend):  # noqa: F811
    """Where p rounds to 1 the error keeps its digits; margins are limited as their squares are."""
    sizes = torch.tensor([2.0, 9.0, 16.0, 25.0, 60.0, 1e4, 3e38])
    logits = torch.zeros(len(sizes), 4)
    logits[:, 2], logits[:, 0] = sizes, -sizes
    got, want = Tracker(7, 4, TRAINING), Tracker(7, 4, TRAINING, exact=True)
    for tracker in (got, want):
        tracker.begin_pass(1)
        options = {"backend": backend} if tracker is got else {}
        tracker.update(torch.arange(7), logits, targets=torch.full((7,), 2), **options)
    assert_same(got, want, rtol=1e-5, atol=1e-7)
    assert got.state["training"][6, 5] == LOGIT_LIMIT
    assert got.state["training"].isfinite().all()


def test_state_without_targets_is_left_alone(backend):  # noqa: F811
    tracker = Tracker(20, 6)
    tracker.begin_pass(1)
    tracker.update(torch.arange(20), *torch.randn(2, 20, 6).unbind(), backend=backend)
    assert tracker.state["count"].sum() == 20
    assert not tracker.state["training_count"].any()
    assert not tracker.state["training"].any()


def test_ties_are_predicted_as_their_first_class():
    stats = PoolStats(2, 3, training_dynamics=True)
    with stats.observe(1, 1):
        stats.update([0, 1], torch.zeros(2, 3), targets=[0, 1])
    assert stats.training_dynamics().correct.tolist() == [1, 0]
    assert stats.score("aum").tolist() == [0, 0]


def test_a_sample_without_observations_has_no_score():
    stats = PoolStats(3, 3, training_dynamics=True)
    with stats.observe(1, 1):
        stats.update([0, 1, 2], torch.randn(3, 3), targets=[0, -100, -1])
    for name in TRAINING_SCORES:
        assert stats.score(name).isnan().tolist() == [False, True, True]
    assert stats.training_dynamics().targets.tolist() == [0, -1, -1]
    with pytest.raises(ValueError, match=r"2 candidates have no 'aum'.*never observed"):
        stats.select("aum", 1)
    assert stats.select("aum", 1, candidates=torch.tensor([0])).tolist() == [0]


def test_another_target_begins_anew():
    history, targets = drawn(epochs=6)
    other = (targets + 1) % C
    stats = observe(PoolStats(N, C, training_dynamics=True), history[:3], targets, last=6)
    observe(stats, history[3:], other, first=4, last=6)
    fresh = observe(PoolStats(N, C, training_dynamics=True), history[3:], other)
    for got, want in zip(stats.training_dynamics(), fresh.training_dynamics(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_targets_that_are_no_class_are_reported():
    stats = PoolStats(4, 3, ("margin",), training_dynamics=True)
    stats.begin_pass(1, 1)
    stats.update(torch.arange(4), torch.randn(4, 3), targets=[0, 3, 2**40, 1])
    with pytest.raises(PoolObservationError, match="or a target of 3 or more: 1, 2") as caught:
        stats.end_pass()
    assert caught.value.non_finite.tolist() == [1, 2]
    assert stats.score("margin").isnan().tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (torch.eye(3)[[0, 1]], ValueError, r"targets must be \(batch,\) class.*'sigmoid'"),
        (torch.zeros(2), ValueError, r"targets must be \(batch,\) integers, got \(2,\)"),
        ([0, 1, 2], ValueError, r"targets must be \(batch,\) = \(2,\), got \(3,\)"),
        ("01", TypeError, "targets must be integers in order, got str"),
    ],
)
def test_wrong_targets_are_refused(targets, error, message):
    stats = PoolStats(4, 3, training_dynamics=True)
    with stats.observe(1, 1, partial=True), pytest.raises(error, match=message):
        stats.update([0, 1], torch.randn(2, 3), targets=targets)


def test_targets_need_a_score_that_uses_them():
    stats = PoolStats(2, 3, ("margin",))
    with stats.observe(1, 1, partial=True), pytest.raises(ValueError, match="training_dynamics=T"):
        stats.update([0], torch.randn(1, 3), targets=[0])
    with pytest.raises(ValueError, match="training_dynamics=True"):
        stats.training_dynamics()
    with pytest.raises(ValueError, match="'sigmoid'"):
        PoolStats(2, 3, ("aum",), activation="sigmoid")
    with pytest.raises(ValueError, match="at least one score"):
        PoolStats(2, 3)
    tracker = Tracker(2, 3, ("last_top",), activation="sigmoid")
    with pytest.raises(ValueError, match=r"targets need activation='softmax'.*got 'sigmoid'"):
        tracker.update(torch.arange(2), torch.zeros(2, 3), targets=torch.zeros(2).long())
    tracker = Tracker(2, 3, TRAINING)
    with pytest.raises(ValueError, match=r"targets must be \(batch,\) = \(2,\) int64, got"):
        tracker.update(torch.arange(2), torch.zeros(2, 3), targets=torch.zeros(2))


def test_state_is_allocated_when_asked():
    assert "training" not in PoolStats(1000, 10, ("margin",)).nbytes()
    assert PoolStats(1000, 10, ("aum",)).nbytes()["training"] == 36_000
    assert PoolStats(1000, 10, training_dynamics=True).nbytes()["training"] == 36_000


def test_a_schedule_of_its_own():
    history, targets = drawn()
    stats = PoolStats(N, C, ("el2n", "aum", "margin"), schedules={"el2n": Epochs((2, 3))})
    observe(stats, history, targets)
    want = [transcribed(history[1:3, i].double().numpy(), int(targets[i])) for i in range(N)]
    np.testing.assert_allclose(stats.score("el2n"), [row["el2n"] for row in want], rtol=2e-5)
    want = [transcribed(history[:, i].double().numpy(), int(targets[i])) for i in range(N)]
    np.testing.assert_allclose(stats.score("aum"), [row["aum"] for row in want], rtol=1e-4)
    with pytest.raises(ValueError, match="several schedules"):
        stats.training_dynamics()


@pytest.mark.parametrize("cut", [1, 2, 5, 11])
def test_merging_is_as_if_the_second_had_followed(cut):
    history, targets = drawn(seed=cut)
    stats = [PoolStats(N, C, ("bald",), training_dynamics=True) for _ in range(3)]
    whole = observe(stats[0], history, targets)
    first = observe(stats[1], history[:cut], targets)
    second = observe(stats[2], history[cut:], targets)
    merged = first.merge(second).training_dynamics()
    for name, got in merged._asdict().items():
        want = getattr(whole.training_dynamics(), name)
        torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-6, msg=name)
    alone = observe(PoolStats(N, C, ("bald",), training_dynamics=True), history[:2], targets)
    empty = PoolStats(N, C, ("bald",), training_dynamics=True)
    for got, want in zip(
        empty.merge(alone).training_dynamics(), alone.training_dynamics(), strict=True
    ):
        assert torch.equal(got, want)
    relabeled = observe(
        PoolStats(N, C, ("bald",), training_dynamics=True), history[:3], (targets + 1) % C
    )
    for got, want in zip(
        alone.merge(relabeled).training_dynamics(), relabeled.training_dynamics(), strict=True
    ):
        assert torch.equal(got, want)


def test_saved_and_restored_in_the_middle():
    history, targets = drawn()
    stats = observe(PoolStats(N, C, training_dynamics=True), history[:5], targets, last=EPOCHS)
    saved = {name: tensor.clone() for name, tensor in stats.state_dict().items()}
    other = PoolStats(N, C, training_dynamics=True)
    other.load_state_dict(saved)
    for each in (stats, other):
        observe(each, history[5:], targets, first=6, last=EPOCHS)
    for got, want in zip(other.training_dynamics(), stats.training_dynamics(), strict=True):
        assert torch.equal(got, want)
    for column, value in ((1, -1.0), (0, 1.5), (5, torch.nan), (7, -3.0)):
        broken = {**saved, "training": saved["training"].clone()}
        broken["training"][3, column] = value
        with pytest.raises(ValueError, match=r"training \(\w+\) of sample 3 is"):
            other.load_state_dict(broken)
    stats.begin_cycle()
    assert stats.score("aum").isnan().all()


def test_labels_and_mean_probabilities_for_cleanlab():
    history, targets = drawn()
    stats = PoolStats(N, C, ("bald",), training_dynamics=True)
    given = targets.clone()
    given[[3, 8]] = -100
    observe(stats, history, given)
    handed = stats.to_cleanlab()
    assert handed.sample_ids.tolist() == [i for i in range(N) if i not in (3, 8)]
    assert handed.labels.tolist() == targets[handed.sample_ids].tolist()
    want = history.double().softmax(-1).mean(0)[handed.sample_ids]
    np.testing.assert_allclose(handed.pred_probs, want, atol=1e-6)
    np.testing.assert_allclose(handed.pred_probs.sum(1), 1, rtol=1e-12)
    own = handed.pred_probs[np.arange(N - 2), handed.labels]
    np.testing.assert_allclose(stats.score("confidence")[handed.sample_ids], own, atol=1e-6)
    with pytest.raises(ValueError, match=r"to_cleanlab needs the mean.*track one of bald"):
        observe(PoolStats(N, C, training_dynamics=True), history, targets).to_cleanlab()


def test_compile_keeps_the_update():
    eager, compiled = (Tracker(12, 5, TRAINING) for _ in range(2))
    nothing, weight = (None,) * 4, torch.randn(5, 5)  # no bias, no teacher

    def step(tracker, ids, logits, targets):
        pool_stats_update(ids[:4], logits[:4] * 2, None, *tracker.tensors, targets=targets[:4])
        head = (logits[4:], weight * 2, *nothing)
        pool_stats_update_from_features(ids[4:], *head, *tracker.tensors, targets=targets[4:])
        return logits.sum()

    fast = torch.compile(step, backend="aot_eager", fullgraph=True)
    ids, logits, targets = torch.randperm(12)[:7], torch.randn(7, 5), torch.arange(7) % 5
    for tracker, function in ((eager, step), (compiled, fast)):
        tracker.begin_pass(1)
        function(tracker, ids, logits, targets)
    assert compiled.state["training_count"].sum() == 7
    assert_same(compiled, eager, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_operator_passes_opcheck():
    tracker = Tracker(12, 5, TRAINING)
    tracker.begin_pass(1)
    tensors = [*tracker.tensors[:3], *map(tracker.state.get, STATE), "softmax", torch.arange(7) % 5]
    arguments = (torch.arange(7), torch.randn(7, 5), None, *tensors)
    torch.library.opcheck(torch.ops.dynal_fast.pool_stats_update.default, arguments)
    arguments = (torch.arange(7), torch.randn(7, 3), torch.randn(5, 3), *(None,) * 4, *tensors)
    torch.library.opcheck(torch.ops.dynal_fast.pool_stats_update_from_features.default, arguments)
