"""Statistics of sigmoid outputs: each implementation on the CPU, and scores by definition."""

import numpy as np
import pytest
import torch

from dynal_fast import EveryEpoch, PoolStats
from dynal_fast.ops.pool_stats import ACTIVATIONS, NON_FINITE, STATE, pool_stats_update
from dynal_fast.pool.scores import SCORES
from tests.cases.pool_stats import DTYPES, OF_SIGMOIDS, Tracker, assert_same, batches
from tests.test_pool_stats import IMPLEMENTATIONS, backend, run  # noqa: F401

N, C = 31, 6
NAMES = tuple(name for name, score in SCORES.items() if score.of_sigmoids is not None)
EVERY = dict.fromkeys(NAMES, EveryEpoch())


def trackers(n, num_classes, names=OF_SIGMOIDS, **options):
    options |= {"activation": "sigmoid"}
    return (
        Tracker(n, num_classes, names, **options),
        Tracker(n, num_classes, names, exact=True, **options),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [1, 2, 7, 16, 33, 65, 1000])
def test_update_agrees_with_float64(backend, num_classes, dtype):  # noqa: F811
    got, want = trackers(37, num_classes)
    run(got, want, batches(37, num_classes, dtype), backend)
    assert_same(got, want)


@pytest.mark.parametrize("num_classes", [5, 65])
def test_outputs_in_half(backend, num_classes):  # noqa: F811
    got, want = trackers(37, num_classes, output_dtype=torch.float16)
    run(got, want, batches(37, num_classes, torch.float32), backend)
    assert_same(got, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_classes", "width"), [(1, 3), (10, 64), (65, 7), (333, 130)])
def test_update_from_features(backend, num_classes, width, dtype):  # noqa: F811
    generator = torch.Generator().manual_seed(width)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    got, want = trackers(50, num_classes)
    weight, bias = draw(num_classes, width) / width**0.5, draw(num_classes)
    teacher_weight = draw(num_classes, 3)
    for tracker in (got, want):
        tracker.begin_pass(1)
    for ids in torch.randperm(50, generator=generator).split(33):
        heads = (draw(len(ids), width), weight, bias, draw(len(ids), 3), teacher_weight, None)
        got.update_from_features(ids, *heads, backend=backend)
        want.update_from_features(ids, *heads)
    assert_same(got, want, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("num_classes", [3, 65])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_rows_are_found_and_large_logits_are_none(backend, dtype, num_classes):  # noqa: F811
    names = tuple(name for name in OF_SIGMOIDS if not name.startswith("logit"))
    got, want = trackers(12, num_classes, names)
    logits, teacher = torch.randn(2, 9, num_classes).to(dtype).unbind()
    logits[1, -1], logits[2, 0], logits[3] = torch.nan, torch.inf, -torch.inf
    teacher[4, 0] = torch.nan
    largest = torch.finfo(dtype).max
    logits[5], logits[6] = largest, -largest
    logits[7, 0], logits[7, 1:] = largest, 1e4
    for tracker in (got, want):
        tracker.begin_pass(1)
        tracker.update(torch.arange(9), logits, teacher, *([backend] if tracker is got else []))
    assert_same(got, want)
    assert (got.stamp & NON_FINITE > 0).nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert got.state["mean"][5].tolist() == [1] * num_classes
    assert got.state["last_top"][5:8].tolist() == [1, 1, 1]


@pytest.mark.parametrize("num_classes", [4, 65])
def test_small_entropies_keep_their_digits(backend, num_classes):  # noqa: F811
    """Sure labels add up: float32's 1 + e would round what they add away."""
    sizes = torch.linspace(0, 30, 301)
    logits = (sizes[:, None] * torch.tensor([1.0, -1.0]).repeat(num_classes)[:num_classes]).clone()
    got, want = trackers(len(sizes), num_classes, ("last_entropy", "count", "mean", "entropy_sum"))
    for tracker in (got, want):
        tracker.begin_pass(1)
        tracker.update(
            torch.arange(len(sizes)), logits, *([None, backend] if tracker is got else [])
        )
    assert_same(got, want, rtol=1e-6, atol=1e-18)


def test_one_label_is_a_class_of_two():
    """The sigmoid of z is the softmax of (0, z): the same scores, half the squares."""
    z = torch.randn(3, 20, 1)
    track = ("entropy", "margin", "least_confidence", "bald", "prediction_stability")
    schedules = dict.fromkeys(track, EveryEpoch())
    one = PoolStats(20, 1, track, schedules=schedules, activation="sigmoid")
    two = PoolStats(20, 2, track, schedules=schedules)
    for epoch, logits in enumerate(z, start=1):
        for stats, rows in ((one, logits), (two, torch.cat([0 * logits, logits], dim=1))):
            with stats.observe(epoch, 3):
                stats.update(torch.arange(20), rows)
    for name in track:
        factor = 2 if name == "prediction_stability" else 1
        torch.testing.assert_close(factor * one.score(name), two.score(name), msg=name)
        assert torch.equal(one.select(name, 5).sort().values, two.select(name, 5).sort().values)


def entropies(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def defined(history, teacher, earlier):
    """The scores of sigmoid outputs from their whole history (passes, N, C)."""
    p, q, before = (1 / (1 + np.exp(-x)) for x in (history, teacher, earlier))
    sure = np.maximum(p[-1], 1 - p[-1]).min(axis=-1)  # of the least sure label
    return {
        "prediction_stability": p.var(axis=0).sum(axis=-1),
        "prediction_stability_logits": history.var(axis=0).sum(axis=-1),
        "absolute_increase": np.linalg.norm(np.diff(p, axis=0), axis=-1).sum(axis=0),
        "mean_std": p.std(axis=0).mean(axis=-1),
        "bald": (entropies(p.mean(axis=0)) - entropies(p).mean(axis=0)).sum(axis=-1),
        "predictive_entropy": entropies(p.mean(axis=0)).sum(axis=-1),
        "cod": np.linalg.norm(p[-1] - before, axis=-1),
        "emaod": np.linalg.norm(p[-1] - q, axis=-1),
        "entropy": entropies(p[-1]).sum(axis=-1),
        "least_confidence": 1 - sure,
        "margin": -(2 * sure - 1),
    }


@pytest.fixture(scope="module")
def observed():
    generator = torch.Generator().manual_seed(0)
    history = 2 * torch.randn(5, N, C, generator=generator)
    teacher, earlier = torch.randn(2, N, C, generator=generator).unbind()
    stats = PoolStats(N, C, NAMES, schedules=EVERY, activation="sigmoid")
    with stats.observe(1, 1):
        stats.update(torch.arange(N), earlier, teacher)
    stats.begin_cycle()
    for epoch, logits in enumerate(history, start=1):
        with stats.observe(epoch, 5):
            for ids in torch.randperm(N, generator=generator).split(7):
                stats.update(ids, logits[ids], teacher[ids])
    return stats, defined(*(x.double().numpy() for x in (history, teacher, earlier)))


@pytest.mark.parametrize("name", NAMES)
def test_score_is_its_definition(observed, name):
    stats, want = observed
    np.testing.assert_allclose(stats.score(name), want[name], rtol=2e-5, atol=2e-6)
    best = np.argsort(-want[name])[:3]
    assert stats.select(name, 3).tolist() == best.tolist()


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(NAMES)))
def test_scores_without_a_meaning_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} is not defined for activation='sigmoid'.*avail"):
        PoolStats(3, 4, (name,), activation="sigmoid")


def test_wrong_activations_are_refused():
    assert ACTIVATIONS == ("softmax", "sigmoid")
    with pytest.raises(ValueError, match=r"activation must be one of .*'sigmoid'.*, got 'relu'"):
        PoolStats(3, 4, ("margin",), activation="relu")
    with pytest.raises(ValueError, match=r"at least 2, got 1.* pass activation='sigmoid'"):
        PoolStats(3, 1, ("margin",))
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        PoolStats(3, 0, ("margin",), activation="sigmoid")
    tracker = Tracker(3, 4, ("label_counts",), activation="sigmoid")
    with pytest.raises(ValueError, match="label_counts needs activation='softmax', got 'sigmoid'"):
        tracker.update(torch.arange(2), torch.zeros(2, 4))
    tracker = Tracker(3, 4, ("last_top",), activation="tanh")
    with pytest.raises(ValueError, match="got 'tanh'"):
        tracker.update(torch.arange(2), torch.zeros(2, 4))


def some(activation, seed=0):
    stats = PoolStats(4, 3, ("bald", "margin"), activation=activation)
    with stats.observe(1, 1):
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        stats.update(torch.arange(4), logits)
    return stats


def test_a_saved_state_keeps_its_activation():
    saved = some("sigmoid").state_dict()
    assert bytes(saved["activation"].tolist()) == b"sigmoid"
    other = PoolStats(4, 3, ("bald", "margin"), activation="sigmoid")
    other.load_state_dict(saved)
    assert torch.equal(other.score("bald"), some("sigmoid").score("bald"))
    assert other.metadata["activation"] == "sigmoid"
    assert "activation='sigmoid'" in repr(other)
    assert other.subset([1, 2]).activation == "sigmoid"
    fresh = PoolStats(4, 3, ("bald", "margin"))
    with pytest.raises(ValueError, match="activation must be 'softmax', got a state of 'sigmoid'"):
        fresh.load_state_dict(saved)
    assert fresh.score("margin").isnan().all()
    with pytest.raises(ValueError, match="activation must be 'sigmoid', got a state of 'softmax'"):
        other.load_state_dict(some("softmax").state_dict())
    with pytest.raises(TypeError, match=r"activation must be a torch\.Tensor, got str"):
        other.load_state_dict({**saved, "activation": "sigmoid"})
    with pytest.raises(ValueError, match="merge needs the same activation: sigmoid here, softmax"):
        other.merge(some("softmax"))
    merged = some("sigmoid").merge(some("sigmoid", seed=1))
    both = PoolStats(4, 3, ("bald", "margin"), activation="sigmoid")
    for epoch in (1, 2):
        with both.observe(epoch, 2):
            logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(epoch - 1))
            both.update(torch.arange(4), logits)
    torch.testing.assert_close(merged.score("bald"), both.score("bald"))


def test_compile_keeps_the_update():
    eager, compiled = (Tracker(12, 5, OF_SIGMOIDS, activation="sigmoid") for _ in range(2))

    def step(tracker, ids, logits):
        pool_stats_update(ids, logits * 2, logits, *tracker.tensors)
        return logits.sum()

    fast = torch.compile(step, backend="aot_eager", fullgraph=True)
    ids, logits = torch.randperm(12)[:7], torch.randn(7, 5)
    for tracker, function in ((eager, step), (compiled, fast)):
        tracker.begin_pass(1)
        function(tracker, ids, logits)
    assert compiled.state["count"].sum() == 7
    assert compiled.state["mean"].sum(dim=1).max() > 1  # no softmax
    assert_same(compiled, eager, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_operator_passes_opcheck():
    tracker = Tracker(12, 5, OF_SIGMOIDS, activation="sigmoid")
    tracker.begin_pass(1)
    tensors = [*tracker.tensors[:3], *map(tracker.state.get, STATE), "sigmoid"]
    arguments = (torch.arange(7), torch.randn(7, 5), torch.randn(7, 5), *tensors)
    torch.library.opcheck(torch.ops.dynal_fast.pool_stats_update.default, arguments)
