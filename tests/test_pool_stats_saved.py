"""Checkpoints of pool statistics that no passes can have left behind are refused, whole."""

import pytest
import torch

from dynal_fast import EveryEpoch, PoolStats
from dynal_fast.ops.pool_stats import DROPPED, STATE
from dynal_fast.pool.scores import SCORES

N, C = 6, 3
EVERY = dict.fromkeys(SCORES, EveryEpoch())
SCHEDULES = {**EVERY, "bald": EveryEpoch(2)}  # a second set


def observed(passes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    stats = PoolStats(N, C, tuple(SCORES), schedules=SCHEDULES)
    for cycle in range(2):
        for epoch in range(1, passes + 1):
            with stats.observe(epoch, passes):
                logits, teacher = torch.randn(2, N, C, generator=generator).unbind()
                stats.update(torch.arange(N), logits, teacher)
        if cycle == 0:
            stats.begin_cycle()
    stats.drop([5])
    return stats


def saved(stats):
    return {name: tensor.clone() for name, tensor in stats.state_dict().items()}


def test_what_was_saved_is_taken_back():
    stats, other = observed(), observed(2, seed=1)
    other.load_state_dict(saved(stats))
    for name, tensor in stats.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)
    stats.load_state_dict(stats.state_dict())  # its own memory
    merged = PoolStats(N, C, tuple(SCORES), schedules=SCHEDULES).merge(observed(3, seed=2))
    other.load_state_dict(saved(merged))
    torch.testing.assert_close(other.score("bald"), merged.score("bald"), equal_nan=True)


def put(key, value, at=1):
    def change(state):
        state[key][at] = value

    return change


def replace(key, value):
    def change(state):
        state[key] = value

    return change


BAD_VALUES = {
    "passes": (replace("passes", torch.tensor(-5)), "passes must be between 0 and .*, got -5"),
    "many passes": (replace("passes", torch.tensor(2**40)), "passes must be between"),
    "few passes": (replace("passes", torch.tensor(3)), "stamp of sample 0 is 32, against passes"),
    "label passes": (put("label_passes", -1, 0), "label_passes must not be negative"),
    "huge label passes": (put("label_passes", 2**40, 0), "label_passes must not be negative or ov"),
    "labels that would wrap": (
        put("label_counts", 255),
        "label_counts of sample 1 .* label_passes",
    ),
    "a label too few": (put("label_counts", 0), "of sample 1 .* against"),
    "negative count": (put("count", -1), "count of sample 1 is -1, against its range"),
    "other count": (put("count", 3), "of sample 1 .* against"),
    "second set": (put("count.1", -7), r"count\.1 of sample 1 is -7"),
    "logit count": (put("logit_count", 9), "of sample 1 .* against"),
    "increase count": (put("increase_count", 0), "of sample 1 .* against"),
    "stamp": (put("stamp", -4), "stamp of sample 1 is -4"),
    "stamp beyond": (put("stamp", 4 * 99), "stamp of sample 1 is 396, against passes = 8"),
    "half dropped": (put("stamp.1", DROPPED), r"stamp\.1 of sample 1 .* dropped in the first"),
    "mean": (put("mean", torch.nan), "mean of sample 1 is nan"),
    "mean above": (put("mean", 1.5), "mean of sample 1 is 1.5"),
    "m2": (put("m2", -1e-3), "m2 of sample 1 is -0.001"),
    "m2 infinite": (put("m2", torch.inf), "m2 of sample 1 is inf"),
    "class_m2": (put("class_m2", -0.5), "class_m2 of sample 1 is -0.5"),
    "entropy": (put("entropy_sum.1", torch.nan), "entropy_sum.1 of sample 1 is nan"),
    "logit mean": (put("logit_mean", 1e30), "logit_mean of sample 1 is"),
    "logit m2": (put("logit_m2", torch.nan), "logit_m2 of sample 1 is nan"),
    "increase": (put("increase_sum", -1.0), "increase_sum of sample 1 is -1"),
    "previous": (put("previous_output", 2.0), "previous_output of sample 1 is 2"),
    "half an output": (put("output", torch.nan, (1, 2)), "output of sample 1 is nan"),
    "latest": (put("latest_output", -1.0), "latest_output of sample 1 is -1"),
    "cod": (put("cycle_discrepancy", 3.0), "cycle_discrepancy of sample 1 is 3"),
    "teacher": (put("teacher_discrepancy", -1.0), "teacher_discrepancy of sample 1 is -1"),
    "last entropy": (put("last_entropy", torch.inf), "last_entropy of sample 1 is inf"),
    "top": (put("last_top", 7.0), "last_top of sample 1 is 7"),
    "margin": (put("last_margin", -2.0), "last_margin of sample 1 is -2"),
}
BAD_TENSORS = {
    "list": (replace("mean", [[0.0] * C] * N), "mean must be a torch.Tensor, got list"),
    "number": (replace("passes", 8), "passes must be a torch.Tensor, got int"),
    "float passes": (replace("passes", torch.tensor(8.0)), r"passes must be \(\) torch.int64"),
    "shape": (replace("m2", torch.zeros(N - 1)), r"m2 must be \(6,\) torch.float32, got \(5,\)"),
    "dtype": (replace("m2", torch.zeros(N).double()), "m2 must be .*got .* torch.float64"),
    "sparse": (replace("m2", torch.zeros(N).to_sparse()), "m2 must be a dense tensor"),
    "meta": (replace("m2", torch.zeros(N, device="meta")), "m2 must hold values"),
    "labels": (replace("label_counts", torch.zeros(N, C)), "label_counts must be"),
    "schedules": (replace("schedules", torch.zeros(3, dtype=torch.uint8)), "schedules must be"),
    "wide schedules": (replace("schedules", torch.tensor([999])), r"schedules must be .*uint8"),
    "unknown end": (
        replace("unknown_end", torch.tensor(2)),
        r"unknown_end must be \(\) torch.bool",
    ),
    "lacking": (lambda state: state.pop("m2"), r"lacks \['m2'\]"),
    "unexpected": (replace("m3", torch.zeros(N)), r"unexpected \['m3'\]"),
    "unexpected output": (replace("latest_output.1", torch.zeros(N, C)), "latest_output.1"),
    "no name": (replace(3, torch.zeros(N)), r"unexpected \[3\]"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", [*BAD_VALUES, *BAD_TENSORS])
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(case):
    change, message = {**BAD_VALUES, **BAD_TENSORS}[case]
    state, stats = saved(observed()), observed(3, seed=1)
    before = saved(stats)
    change(state)
    with pytest.raises((ValueError, TypeError), match=message):
        stats.load_state_dict(state)
    for name, tensor in stats.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_every_tensor_has_a_bad_value_here():
    others = {"training", "training_count"}  # in test_training_dynamics.py
    assert {*STATE} - others <= {key.split(".")[0] for key in saved(observed())}
    with pytest.raises(
        ValueError, match="state_dict must be a state or the parts of one, got none"
    ):
        observed().load_state_dict([])


def test_label_counts_of_another_dtype_and_layout():
    """What is loaded does not keep the strides of the file."""
    stats = observed()
    state = saved(stats)
    counts = state["label_counts"].to(torch.int32)
    state["label_counts"] = counts.T.contiguous().T
    other = observed(2, seed=1)
    other.load_state_dict(state)
    for each in (stats, other):
        with each.observe(1, 1, partial=True):
            logits = torch.eye(C)
            each.update([0, 1, 2], logits, logits)
    got = other.state_dict()["label_counts"]
    assert got.is_contiguous()
    assert torch.equal(got.to(torch.int32), stats.state_dict()["label_counts"].to(torch.int32))


def test_loading_copies():
    state = saved(observed())
    stats = observed(2, seed=1)
    stats.load_state_dict(state)
    want = stats.score("bald")
    for tensor in state.values():
        tensor.zero_()
    torch.testing.assert_close(stats.score("bald"), want, rtol=0, atol=0, equal_nan=True)


def test_a_checkpoint_from_before_the_end_could_be_unknown():
    stats = PoolStats(N, C, ("margin", "cod"))
    with stats.observe(1, 1):
        stats.update(range(N), torch.randn(N, C))
    assert not {"unknown_end", "latest_output"} & set(stats.state_dict())
    other = PoolStats(N, C, ("margin", "cod"))
    with other.observe(1):
        other.update(range(N), torch.randn(N, C))
    other.load_state_dict(saved(stats))
    torch.testing.assert_close(other.score("margin"), stats.score("margin"))
    assert "instead of" not in repr(other)


@pytest.mark.parametrize("schedules", [{}, {"cod": EveryEpoch(2)}])
def test_a_state_without_its_latest_output_is_refused(schedules):
    """The next cycle would compare with the output of the cycle before."""
    stats = PoolStats(N, C, ("margin", "cod"), schedules=schedules)
    with stats.observe(1):
        stats.update(range(N), torch.randn(N, C))
    state = saved(stats)
    del state["latest_output"]
    other = PoolStats(N, C, ("margin", "cod"), schedules=schedules)
    with pytest.raises(ValueError, match="state_dict lacks 'latest_output'"):
        other.load_state_dict(state)
    assert other.score("margin").isnan().all()
