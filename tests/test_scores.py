"""Scores from their definitions over the whole history, and the choice of the best."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynal_fast import EveryEpoch, LastEpochs, PoolObservationError, PoolStats, top_b, top_k
from dynal_fast.pool.formulas import cod, label_dispersion
from dynal_fast.pool.schedule import Epochs
from dynal_fast.pool.scores import SCORES, Score
from dynal_fast.strategies.registry import SelectionContext, get_strategy

N, C = 31, 6
NAMES = (*SCORES, "random")
EVERY = dict.fromkeys(SCORES, EveryEpoch())


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def entropy(p):
    return -(p * np.log(p)).sum(axis=-1)


def observe(stats, history, teacher=None, partial=False):
    """Fold logits (passes, N, C) into the statistics, in shuffled batches of 7."""
    for number, logits in enumerate(history, start=1):
        with stats.observe(number, len(history), partial=partial):
            for ids in torch.randperm(len(logits)).split(7):
                t = None if teacher is None else teacher[ids]
                stats.update(ids, logits[ids], t)


@pytest.fixture(scope="module")
def observed():
    generator = torch.Generator().manual_seed(0)
    first, history = torch.randn(2, 5, N, C, generator=generator).mul(2).unbind()
    teacher = torch.randn(N, C, generator=generator)
    stats = PoolStats(N, C, NAMES, schedules=EVERY)
    observe(stats, first, teacher)
    stats.begin_cycle()
    observe(stats, history, teacher)
    return stats, first.double().numpy(), history.double().numpy(), teacher.double().numpy()


def defined(name, history, teacher, earlier=None):
    p, logits = softmax(history), history
    last = np.sort(p[-1], axis=-1)
    labels = p.argmax(axis=-1)
    modal = np.array([np.bincount(column).max() for column in labels.T])
    # Sorted, so that the same shares of other classes add up to the same bits and tie.
    shares = [np.sort(np.bincount(column)) / len(p) for column in labels.T]
    return {
        "prediction_stability": p.var(axis=0).sum(axis=-1),
        "prediction_stability_logits": logits.var(axis=0).sum(axis=-1),
        "absolute_increase": np.linalg.norm(np.diff(p, axis=0), axis=-1).sum(axis=0),
        "label_dispersion": 1 - modal / len(p),
        "variation_ratio": 1 - modal / len(p),
        "vote_entropy": np.array([-sum(v * np.log(v) for v in share if v) for share in shares]),
        "bald": entropy(p.mean(axis=0)) - entropy(p).mean(axis=0),
        "predictive_entropy": entropy(p.mean(axis=0)),
        "mean_std": p.std(axis=0).mean(axis=-1),
        "entropy": entropy(p[-1]),
        "least_confidence": 1 - last[:, -1],
        "margin": last[:, -2] - last[:, -1],
        "cod": np.linalg.norm(
            p[-1] - softmax((earlier if earlier is not None else history)[-1]), axis=-1
        ),
        "emaod": np.linalg.norm(p[-1] - softmax(teacher), axis=-1),
    }[name]


@pytest.mark.parametrize("name", SCORES)
def test_scores_follow_their_definitions(observed, name):
    stats, first, history, teacher = observed
    want = defined(name, history, teacher, first)
    np.testing.assert_allclose(stats.score(name).numpy(), want, rtol=2e-5, atol=1e-6)
    best = stats.select(name, 4, ties="first")
    assert set(np.argsort(-want, kind="stable")[:4]) == set(best.tolist())


def test_softmax_response_is_the_probability_of_the_predicted_class(observed):
    """SR of the long-tail paper: the softmax activation of the predicted class, lowest first."""
    stats, _, history, _ = observed
    p = softmax(history[-1])
    response = p[np.arange(N), p.argmax(axis=-1)]
    np.testing.assert_allclose(
        1 - stats.score("softmax_response").numpy(), response, rtol=2e-5, atol=1e-6
    )
    picks = stats.select("softmax_response", N, ties="first")
    np.testing.assert_array_equal(picks.numpy(), np.argsort(response, kind="stable"))
    context = SelectionContext(
        torch.arange(3, N), torch.empty(0), torch.empty(0), 5, torch.Generator(), 0,
        torch.nn.Identity(), get_strategy("softmax_response"), iter, tracked=stats,
    )  # fmt: skip
    lowest = 3 + np.argsort(response[3:], kind="stable")[:5]
    assert context.strategy.select(context).tolist() == lowest.tolist()


def test_cod_compares_across_cycles():
    generator = torch.Generator().manual_seed(0)
    histories = torch.randn(3, 4, N, C, generator=generator)
    stats = PoolStats(N, C, ("cod", "label_dispersion"))
    for cycle, history in enumerate(histories):
        observe(stats, history)
        got = stats.score("cod").numpy()
        if cycle == 0:
            assert np.isnan(got).all()
            with pytest.raises(ValueError, match=r"31 candidates have no 'cod'.*: 0, 1, 2"):
                stats.select("cod", 1)
        else:
            p = softmax(histories[cycle - 1 : cycle + 1, -1].double().numpy())
            np.testing.assert_allclose(got, np.linalg.norm(p[1] - p[0], axis=-1), rtol=1e-5)
            code = stats.score("cod", form="tod_code").numpy()
            np.testing.assert_allclose(code, 0.5 * ((p[1] - p[0]) ** 2).sum(axis=-1), rtol=1e-5)
        stats.begin_cycle()
    with pytest.raises(ValueError, match="form must be 'paper' or 'tod_code'"):
        cod(torch.zeros(1), form="code")


def test_unbiased_variance_ranks_alike(observed):
    stats = observed[0]
    biased = stats.score("prediction_stability")
    torch.testing.assert_close(stats.score("prediction_stability", unbiased=True), biased * 5 / 4)


def test_schedules_differ_per_statistic():
    history = 2 * torch.randn(9, N, C, generator=torch.Generator().manual_seed(0))
    schedules = {
        "prediction_stability": LastEpochs(3, interval=2),
        "bald": Epochs({1, 2}),
        "label_dispersion": EveryEpoch(),
    }
    stats = PoolStats(N, C, (*schedules, "margin"), schedules=schedules)
    observe(stats, history)
    history = history.double().numpy()
    for name, chosen in (
        ("prediction_stability", [4, 6, 8]),
        ("bald", [0, 1]),
        ("label_dispersion", range(9)),
        ("margin", [8]),
    ):
        want = defined(name, history[list(chosen)], history[0])
        np.testing.assert_allclose(stats.score(name).numpy(), want, rtol=2e-5, atol=1e-6)
    stats = PoolStats(N, C, ("bald",), schedules={"bald": Epochs({2})})
    assert [epoch for epoch in range(1, 4) if stats.observes(epoch, 3)] == [2]
    with pytest.raises(ValueError, match="no tracked statistic observes epoch 1 of 3"):
        stats.begin_pass(1, 3)


def test_label_counts_are_promoted_before_they_overflow():
    stats = PoolStats(2, 2, ("label_dispersion",))
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for number in range(1, 302):
        with stats.observe(number, 301):
            stats.update(torch.arange(2), logits if number != 7 else logits.flip(0))
    counts = stats.state_dict()["label_counts"]
    assert counts.dtype == torch.uint16
    assert counts.to(torch.int32).tolist() == [[300, 1], [1, 300]]
    torch.testing.assert_close(stats.score("label_dispersion"), torch.full((2,), 1 / 301))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_label_dispersion_of_every_dtype_of_counts(dtype):
    generator = torch.Generator().manual_seed(0)
    most = min(torch.iinfo(dtype).max, 1_000_000)  # their sums leave the integers of float32
    counts = torch.randint(most, (1100, 501), generator=generator, dtype=torch.int32)
    counts[3], counts[700] = 0, 0
    counts[700, 500] = most
    values = counts.double().numpy()
    with np.errstate(invalid="ignore"):
        want = 1 - values.max(axis=1) / values.sum(axis=1)
    got = label_dispersion(counts.to(dtype)).numpy()
    np.testing.assert_allclose(got, want, rtol=3 * 2**-24)  # two integers and a quotient rounded
    assert np.isnan(got[3])
    assert got[700] == 0


def test_errors_of_a_pass_name_the_ids():
    stats = PoolStats(9, 2, ("margin",))
    logits = torch.zeros(6, 2)
    logits[1, 0] = float("nan")
    stats.drop(torch.tensor([8]))
    with (
        pytest.raises(PoolObservationError, match="1 samples seen more than once: 3") as error,
        stats.observe(1, 1),
    ):
        stats.update(torch.tensor([3, 4, 3, 9, 8, 5]), logits)
    assert error.value.non_finite.tolist() == [4]
    assert error.value.duplicate.tolist() == [3]
    assert error.value.unseen.tolist() == [0, 1, 2, 6, 7]
    assert error.value.unknown.tolist() == [9, 8]
    assert error.value.num_unknown == 2
    with stats.observe(1, 1, partial=True):
        stats.update(torch.tensor([3]), torch.zeros(1, 2))
    with pytest.raises(RuntimeError, match="no pass is open"):
        stats.update(torch.tensor([3]), torch.zeros(1, 2))


@settings(max_examples=40, deadline=None)
@given(
    split=st.integers(0, 6),
    missing=st.lists(st.booleans(), min_size=6, max_size=6),
    scale=st.floats(0.01, 30),
    seed=st.integers(0, 1000),
)
def test_merge_equals_one_tracker(split, missing, scale, seed):
    """Over any split of the passes, with half of the samples missing in some of them."""
    history = scale * torch.randn(6, 8, C, generator=torch.Generator().manual_seed(seed))
    names = ("prediction_stability", "prediction_stability_logits", "label_dispersion", "bald",
             "mean_std", "entropy")  # fmt: skip
    schedules = {name: EVERY[name] for name in names}
    one, a, b = (PoolStats(8, C, names, schedules=schedules) for _ in range(3))
    for number, logits in enumerate(history, start=1):
        ids = torch.arange(4 if missing[number - 1] else 8)
        for stats in (one, a if number <= split else b):
            with stats.observe(number, 6, partial=True):
                stats.update(ids, logits[ids])
    a.merge(b)
    for name in names:
        size = float(history.square().mean()) if name.endswith("logits") else 1.0
        torch.testing.assert_close(
            a.score(name), one.score(name), rtol=1e-4, atol=2e-6 * size, equal_nan=True
        )


def in_both_orders(names, schedules):
    """Two trackers that differ in the order of ``track`` only; their states are not numbered so."""
    return (
        PoolStats(2, 2, names, schedules=schedules),
        PoolStats(2, 2, names[::-1], schedules=schedules),
    )


@pytest.mark.parametrize("how", ["merge", "load"])
def test_the_order_of_track_does_not_matter(how):
    schedules = {"label_dispersion": EveryEpoch(), "variation_ratio": Epochs({2})}
    one, other = in_both_orders(tuple(schedules), schedules)
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for number in (1, 2):
        with one.observe(number, 2):
            one.update(torch.arange(2), logits if number == 1 else logits[:1].expand(2, 2).clone())
    assert one.score("label_dispersion").tolist() == [0, 0.5]
    if how == "merge":
        other.merge(one)
    else:
        other.load_state_dict(one.state_dict())
    assert other.score("label_dispersion").tolist() == [0, 0.5]
    assert other.score("variation_ratio").tolist() == [0, 0]


def test_states_of_different_tensors_merge_in_any_order():
    names = ("bald", "prediction_stability")
    schedules = {"bald": EveryEpoch(), "prediction_stability": LastEpochs(2)}
    one, other = in_both_orders(names, schedules)
    history = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0))
    observe(one, history)
    other.merge(one)
    for name in names:
        torch.testing.assert_close(other.score(name), one.score(name))


def test_a_refused_checkpoint_changes_nothing():
    stats = PoolStats(2, 2, ("bald", "label_dispersion"))
    observe(stats, torch.ones(1, 2, 2))
    before = {name: tensor.clone() for name, tensor in stats.state_dict().items()}
    other = {name: tensor + 1 for name, tensor in before.items()}
    other["stamp"] = other["stamp"].to(torch.int64)
    with pytest.raises(ValueError, match="stamp must be"):
        stats.load_state_dict(other)
    with pytest.raises(ValueError, match="merge needs the same schedules"):
        stats.merge(PoolStats(2, 2, ("bald",)))
    for name, tensor in stats.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_exchanged_schedules_are_refused():
    names = ("bald", "prediction_stability")
    schedules = (EveryEpoch(), Epochs({9, 1, 2}))
    stats = PoolStats(2, 2, names, schedules=dict(zip(names, schedules, strict=True)))
    same = PoolStats(
        2, 2, names, schedules={"bald": schedules[0], "prediction_stability": Epochs([1, 2, 9])}
    )
    same.load_state_dict(stats.state_dict())
    exchanged = PoolStats(2, 2, names, schedules=dict(zip(names, schedules[::-1], strict=True)))
    with pytest.raises(ValueError, match=r"schedules must be 'bald: Epochs\(\[1, 2, 9\]\)"):
        exchanged.load_state_dict(stats.state_dict())


@pytest.mark.parametrize("from_features", [False, True])
def test_a_bad_teacher_row_changes_nothing_in_any_state(from_features):
    names = ("bald", "emaod", "prediction_stability")
    stats = PoolStats(3, 2, names)
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    teacher = logits.clone()
    teacher[1, 0] = float("nan")
    stats.begin_pass(1, 1)
    if from_features:
        eye = torch.eye(2)
        stats.update_from_features(torch.arange(3), logits, eye, None, teacher, eye)
    else:
        stats.update(torch.arange(3), logits, teacher)
    with pytest.raises(PoolObservationError) as error:
        stats.end_pass()
    assert error.value.non_finite.tolist() == [1]
    tensors = stats.state_dict()
    assert tensors["count"].tolist() == tensors["count.1"].tolist() == [1, 0, 1]
    assert stats.score("emaod").isnan().tolist() == [False, True, False]
    assert "teacher_discrepancy.1" not in tensors


@pytest.mark.parametrize("from_features", [False, True])
def test_logits_too_large_to_be_squared_change_nothing_in_any_state(from_features):
    names = ("prediction_stability_logits", "bald", "prediction_stability", "margin")
    stats = PoolStats(3, 2, names)
    logits = torch.tensor([[1.0, 0.0], [2e19, -2e19], [2.0, 1.0]])
    for epoch in (1, 2):
        stats.begin_pass(epoch, 2)
        if from_features:
            stats.update_from_features(torch.arange(3), logits, torch.eye(2))
        else:
            stats.update(torch.arange(3), logits)
        with pytest.raises(
            PoolObservationError, match=r"too large for prediction_st.*: 1"
        ) as error:
            stats.end_pass()
        assert error.value.non_finite.tolist() == [1]
    tensors = stats.state_dict()
    assert tensors["logit_count"].tolist() == [2, 0, 2]
    assert tensors["count"].tolist() == tensors["count.1"].tolist() == [2, 0, 2]
    assert "logit_count.1" not in tensors
    with pytest.raises(ValueError, match="last row, as end_pass said, has a logit that is not fin"):
        stats.select("prediction_stability_logits", 1)
    assert stats.select("margin", 2, candidates=[0, 2], ties="first").tolist() == [0, 2]
    without = PoolStats(3, 2, names[1:])
    with without.observe(1, 1):
        without.update(torch.arange(3), logits)
    assert not without.score("margin").isnan().any()  # the softmax takes any finite logit


def test_a_variance_of_one_observation_is_not_called_unobserved():
    stats = PoolStats(3, 2, ("prediction_stability",))
    observe(stats, torch.ones(1, 3, 2))
    with pytest.raises(ValueError, match="though it was observed for them: too few observations"):
        stats.select("prediction_stability", 1, unbiased=True)


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence", "emaod"])
def test_a_wrong_number_of_classes_is_refused(name):
    stats = PoolStats(5, 3, (name,))
    wide, features, weight = torch.zeros(5, 7), torch.zeros(5, 4), torch.zeros(9, 4)
    stats.begin_pass(1, 1)
    with pytest.raises(ValueError, match=r"logits must be .* = \(5, 3\), got \(5, 7\)"):
        stats.update(torch.arange(5), wide, wide)
    with pytest.raises(ValueError, match=r"weight must be .* classes = 3, got \(9, 4\)"):
        stats.update_from_features(torch.arange(5), features, weight, None, features, weight)
    assert not stats._state.guards[0][0].any()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_features_without_a_dimension_are_refused(backend):
    stats = PoolStats(2, 3, ("margin", "emaod"), backend=backend)
    ids, none, one = torch.arange(2), torch.zeros(2, 0), torch.zeros(2, 1)
    stats.begin_pass(1, 1)
    expected = r"features must be .* d at least 1, got \(2, 0\)"
    with pytest.raises(ValueError, match=expected):
        stats.update_from_features(ids, none, torch.zeros(3, 0), None, one, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="teacher_" + expected):
        stats.update_from_features(ids, one, torch.zeros(3, 1), None, none, torch.zeros(3, 0))


def test_subset_takes_what_drop_takes():
    stats = PoolStats(3, 2, ("margin",))
    observe(stats, torch.tensor([[[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]]))
    margins = stats.score("margin")
    mask = torch.tensor([True, False, True])
    torch.testing.assert_close(stats.subset(mask).score("margin"), margins[mask], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"a mask of candidates must be \(3,\), got \(2,\)"):
        stats.subset(torch.tensor([False, True]))
    with pytest.raises(ValueError, match=r"candidates must be .* got \(1,\) torch\.float32"):
        stats.subset(torch.tensor([1.7]))


@settings(max_examples=40, deadline=None)
@given(passes=st.integers(1, 30), scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_welford_equals_two_passes(passes, scale, seed):
    history = scale * torch.randn(passes, 3, C, generator=torch.Generator().manual_seed(seed))
    stats = PoolStats(
        3, C, ("prediction_stability",), schedules={"prediction_stability": EVERY["bald"]}
    )
    observe(stats, history)
    want = softmax(history.double().numpy()).var(axis=0).sum(axis=-1)
    np.testing.assert_allclose(
        stats.score("prediction_stability").numpy(), want, rtol=1e-4, atol=1e-9
    )


def test_state_dict_restores_and_subset_renumbers(observed, tmp_path):
    stats = observed[0]
    safetensors = pytest.importorskip("safetensors.torch")
    file = tmp_path / "stats.safetensors"
    safetensors.save_file(stats.state_dict(), file, metadata=stats.metadata)
    other = PoolStats(N, C, NAMES, schedules=EVERY)
    other.load_state_dict(safetensors.load_file(file))
    few = other.subset(torch.tensor([5, 2]))
    for name in SCORES:
        torch.testing.assert_close(other.score(name), stats.score(name), rtol=0, atol=0)
        torch.testing.assert_close(few.score(name), stats.score(name)[[5, 2]], rtol=0, atol=0)
    with pytest.raises(ValueError, match="state_dict lacks"):
        PoolStats(N, C, ("bald",)).load_state_dict(stats.state_dict())


def test_dropped_samples_are_gone(observed):
    stats = observed[0].subset(torch.arange(N))
    stats.drop(torch.tensor([0, 3]))
    assert stats.remaining().tolist() == [1, 2, *range(4, N)]
    for name in NAMES:
        assert stats.score(name)[[0, 3]].isnan().all()
        assert not {0, 3} & set(stats.select(name, N - 2).tolist())
    with pytest.raises(ValueError, match="1 candidates were dropped: 3"):
        stats.select("margin", 1, candidates=torch.tensor([3, 4]))


def test_only_what_is_tracked_is_allocated():
    assert PoolStats(1000, 10, ("margin",)).nbytes() == {
        "last": 4000, "stamps": 4000 + 128, "total": 8128,
    }  # fmt: skip
    stability = PoolStats(1000, 10, ("prediction_stability",)).nbytes()
    assert stability["probabilities"] == 1000 * (4 + 40 + 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 1, ("margin",)), "num_classes must be at least 2, got 1: the softmax of one logit"),
        ((-1, 2, ("margin",)), "num_samples must not be negative"),
        ((3, 2, "margin"), "track must be a sequence of names"),
        ((3, 2, ("entropie",)), "track must name some of .* got 'entropie'"),
        ((3, 2, ("margin", "margin")), "each once"),
    ],
)
def test_wrong_trackers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PoolStats(*arguments)


def test_sizes_are_integers():
    with pytest.raises(TypeError, match=r"num_samples must be an integer, got 2\.5"):
        PoolStats(2.5, 2, ("margin",))
    with pytest.raises(TypeError, match=r"num_classes must be an integer, got 2\.5"):
        PoolStats(2, 2.5, ("margin",))
    with pytest.raises(TypeError, match=r"k must be an integer, got 2\.0"):
        top_k(torch.zeros(3), 2.0)
    assert PoolStats(np.int64(3), np.int32(2), ("margin",)).score("margin").shape == (3,)
    assert len(top_k(torch.zeros(3), np.int64(2))) == 2


def test_ties_are_broken_fairly():
    """All scores tie: each sample is taken with probability k / n, whatever its position."""
    scores, generator = torch.zeros(20), torch.Generator().manual_seed(0)
    taken = torch.zeros(20)
    for _ in range(2000):
        taken[top_k(scores, 5, generator=generator)] += 1
    deviation = (taken - 500) / (2000 * 0.25 * 0.75) ** 0.5
    assert deviation.abs().max() < 4
    assert top_k(scores, 5, ties="first").tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    data=st.data(),
    ties=st.sampled_from(["random", "first"]),
)
def test_top_k_is_exact(values, data, ties):
    scores = torch.tensor(values, dtype=torch.float32)
    chosen = data.draw(st.lists(st.sampled_from(range(len(values))), min_size=1, unique=True))
    k = data.draw(st.integers(0, len(chosen)))
    best = top_k(scores, k, candidates=torch.tensor(chosen), ties=ties)
    assert scores[best].tolist() == sorted((values[i] for i in chosen), reverse=True)[:k]
    assert len(set(best.tolist())) == k
    assert set(best.tolist()) <= set(chosen)
    if ties == "first":
        assert best.tolist() == sorted(chosen, key=lambda i: (-values[i], i))[:k]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, "k must be between 0 and the 3 candidates, got 4"),
        ({"k": 1, "candidates": torch.tensor([3])}, r"candidates must be in \[0, 3\)"),
        ({"k": 1, "candidates": torch.tensor([1, 1])}, "candidates must be distinct, got 1"),
        ({"k": 1, "ties": "last"}, "ties must be 'random' or 'first'"),
    ],
)
def test_wrong_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        top_k(torch.zeros(3), **options)
    with pytest.raises(ValueError, match="1 candidates score NaN: 1"):
        top_k(torch.tensor([0, float("nan")]), 1)


def test_earlier_names_still_work_and_warn():
    scores = torch.tensor([0.1, 0.9, 0.5])
    with pytest.warns(DeprecationWarning, match="top_b is called top_k now"):
        assert top_b(scores, b=2).tolist() == [1, 2]
    stats = PoolStats(3, 2, ("random",))
    with pytest.warns(DeprecationWarning, match=r"argument b of select\(\) is called k now"):
        assert len(stats.select("random", b=2)) == 2
    with pytest.raises(TypeError, match="got both k and its old name b"):
        stats.select("random", k=2, b=2)


def test_one_entry_in_the_table_adds_a_score(monkeypatch):
    entry = Score(lambda last_top: -last_top, ("last_top",), EveryEpoch(), "a test's")
    monkeypatch.setitem(SCORES, "lowest_top", entry)
    stats = PoolStats(2, 2, ("lowest_top",))
    with stats.observe(1, 2):  # EveryEpoch, not the last alone
        stats.update([0, 1], torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
    assert stats.select("lowest_top", 1).tolist() == [0]


def dealt_out(track, epochs, known=True, **options):
    """Two trackers of a training whose samples are dealt out anew in each epoch, and one of all."""
    history = torch.randn(epochs, 8, C, generator=torch.Generator().manual_seed(1))
    whole, *parts = (PoolStats(8, C, track, **options) for _ in range(3))
    for epoch, logits in enumerate(history, start=1):
        shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
        ids = [torch.arange(8), *shuffled.chunk(2)]
        for stats, own in zip((whole, *parts), ids, strict=True):
            if stats.observes(epoch, epochs if known else None):
                with stats.observe(epoch, epochs if known else None, partial=True):
                    targets = own % C if options.get("training_dynamics") else None
                    stats.update(own, logits[own], targets=targets)
    return whole, *parts


def test_merging_what_was_dealt_out_anew_is_right_or_refused():
    whole, one, other = dealt_out(("bald", "label_dispersion", "mean_std", "margin"), 5)
    one.merge(other)
    for name in whole.track:
        torch.testing.assert_close(one.score(name), whole.score(name), msg=name)
    refused = {
        ("absolute_increase",): "cannot add up absolute_increase of 6 samples",
        ("entropy",): "cannot order the statistics of the last output",
        ("cod",): "cannot order the statistics of the last output",
    }
    for track, message in refused.items():
        _, one, other = dealt_out(track, 5, known=False)
        before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            one.merge(other)
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor.nan_to_num(7), before[name].nan_to_num(7))
        read = PoolStats(8, C, track)
        read.load_state_dict(other.state_dict())
        with pytest.raises(ValueError, match=message):
            one.merge(read)
    _, one, other = dealt_out((), 5, training_dynamics=True)
    with pytest.raises(ValueError, match=r"order the training dynamics .* say follows=True"):
        one.merge(other)
    assert one.merge(other, follows=True).training_dynamics().observations.tolist() == [5] * 8


def test_cod_of_a_merge_compares_with_the_output_before():
    """The second tracker saw its samples once, in the second cycle, and the first one before."""
    first, second = torch.randn(2, 4, C, generator=torch.Generator().manual_seed(0))
    one, other = PoolStats(4, C, ("cod",)), PoolStats(4, C, ("cod",))
    with one.observe(1, 1):
        one.update(torch.arange(4), first)
    for stats in (one, other):
        stats.begin_cycle()
    with other.observe(1, 1, partial=True):
        other.update(torch.arange(2), second[:2])
    with one.observe(1, 1, partial=True):
        one.update(torch.arange(2, 4), second[2:])
    want = (second.softmax(1) - first.softmax(1)).norm(dim=1)
    torch.testing.assert_close(one.merge(other).score("cod"), want)
