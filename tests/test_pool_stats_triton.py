"""The Triton kernels against the float64 reference: on a GPU, or interpreted (test_interpreter)."""

import pytest
import torch

from dynal_fast.ops.pool_stats import (
    STAMP_STEP,
    STATE,
    contract,
    pool_stats_update,
    pool_stats_update_from_features,
    reference,
)
from tests.cases.pool_stats_tensors import TYPICAL, Tracker, draw
from tests.triton_device import DEVICE, INTERPRETED, needs_triton

pytestmark = needs_triton

LOGITS = ("logit_count", "logit_mean", "logit_m2")
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def spoil(ids, logits, teacher_logits, n):
    """Plant each kind of bad row; none may write, and none may disturb its neighbours."""
    logits[1, -1] = float("nan")
    logits[2, 0] = -float("inf")
    logits[3] = float("inf")
    if teacher_logits is not None:
        teacher_logits[4, 0] = float("nan")
    ids[5], ids[6] = n, -1


def run(num_classes, dtype, names, *, n=29, rows=23, passes=3, bad=True, **tracker_options):
    tracker = Tracker(n, num_classes, names, **tracker_options)
    tracker.drop(7)
    teacher = "teacher_discrepancy" in names
    for number in range(1, passes + 1):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        ids = ids.to(torch.int32 if number % 2 else torch.int64)
        logits = draw(rows, num_classes, dtype, number)
        teacher_logits = draw(rows, num_classes, dtype, -number) if teacher else None
        if bad:
            spoil(ids, logits, teacher_logits, n)
        pool_stats_update(
            ids.to(DEVICE),
            logits.to(DEVICE),
            None if teacher_logits is None else teacher_logits.to(DEVICE),
            *tracker.tensors,
            backend="triton",
        )
        tracker.expect(ids, logits, teacher_logits)
    tracker.check()
    return tracker


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [2, 10, 63, 65, 300])
def test_everything_tracked(num_classes, dtype):
    run(num_classes, dtype, tuple(STATE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [4096, 4097])
def test_rows_longer_than_the_registers(num_classes, dtype):
    run(num_classes, dtype, tuple(STATE), n=9, rows=7, passes=2)


@pytest.mark.parametrize("num_classes", [10, 4097])
@pytest.mark.parametrize(
    "names",
    [
        TYPICAL,
        ("label_counts",),
        ("last_margin",),
        ("output", "cycle_discrepancy"),
        ("teacher_discrepancy",),
        ("count", "mean", "class_m2", "entropy_sum"),
    ],
    ids="-".join,
)
def test_only_what_is_tracked_is_touched(names, num_classes):
    rows = 8 if num_classes == 10 else 2
    run(num_classes, torch.float32, names, n=9, rows=rows, passes=2, bad=rows > 6)


@pytest.mark.parametrize("labels", [torch.uint8, torch.uint16, torch.int32])
def test_outputs_in_half_and_wider_label_counts(labels):
    run(17, torch.float32, tuple(STATE), output_dtype=torch.float16, labels=labels)


def test_ties_go_to_the_lowest_class_also_across_tiles():
    tracker = Tracker(3, 4097, ("label_counts", "last_margin"))
    tracker.begin_pass(1)
    logits = torch.zeros(3, 4097)
    logits[1, [100, 4096]] = 5.0
    logits[2, [2047, 2048]] = 5.0
    ids = torch.arange(3)
    pool_stats_update(ids.to(DEVICE), logits.to(DEVICE), None, *tracker.tensors, backend="triton")
    tracker.expect(ids, logits)
    tracker.check()
    assert tracker.state["label_counts"].cpu().nonzero()[:, 1].tolist() == [0, 100, 2047]


@pytest.mark.parametrize("num_classes", [10, 4097])
def test_large_offsets_do_not_cancel(num_classes):
    tracker = Tracker(3, num_classes, TYPICAL)
    for number in range(1, 4):
        tracker.begin_pass(number)
        ids, logits = torch.arange(3), draw(3, num_classes, torch.float32, number) + 1e4
        logits[:, 0] += 12.0  # probabilities near 1
        pool_stats_update(
            ids.to(DEVICE), logits.to(DEVICE), None, *tracker.tensors, backend="triton"
        )
        tracker.expect(ids, logits)
    tracker.check(rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [10, 4097])
@pytest.mark.parametrize("counted", [False, True])
def test_huge_logits(counted, num_classes, dtype):
    """Their softmax is right, also where their range overflows; their squares are reported."""
    tracker = Tracker(6, num_classes, (*TYPICAL, *(LOGITS if counted else ())))
    for number in (1, 2):
        tracker.begin_pass(number)
        logits = draw(6, num_classes, dtype, number)
        for row, value in enumerate((1e5, 2.0**40, 1.2e12, 2e19, 3e38)):
            logits[row, row], logits[row, 9] = value, -value
        ids = torch.arange(6)
        pool_stats_update(
            ids.to(DEVICE), logits.to(DEVICE), None, *tracker.tensors, backend="triton"
        )
        tracker.expect(ids, logits)
    tracker.check()
    reported = [0, 0, 1, 1, 1, 0] if counted else [0] * 6
    assert (tracker.tensors.stamp.cpu() & 1).tolist() == reported
    counting = torch.tensor(reported) == 0
    assert all(tensor.cpu()[counting].isfinite().all() for tensor in tracker.state.values())


@pytest.mark.parametrize("num_classes", [10, 300])
@pytest.mark.parametrize("names", [("output",), ("output", "latest_output")])
def test_outputs_are_replaced_or_kept_beside(names, num_classes):
    run(num_classes, torch.float32, (*names, "cycle_discrepancy"), output_dtype=torch.float16)


def test_a_duplicate_counts_once_and_is_flagged():
    n, rows = 40, 30
    tracker = Tracker(n, 10, TYPICAL)
    tracker.begin_pass(1)
    ids = torch.arange(rows)
    ids[[9, 21]] = 3
    logits = draw(rows, 10, torch.float32, 0)
    logits[[9, 21]] = logits[3].clone()  # whichever row wins
    for batch in (slice(None), slice(0, 5)):  # within a batch, and again in a later one
        pool_stats_update(
            ids[batch].to(DEVICE),
            logits[batch].to(DEVICE),
            None,
            *tracker.tensors,
            backend="triton",
        )
        tracker.expect(ids[batch], logits[batch])
    tracker.check()
    assert (tracker.tensors.stamp == STAMP_STEP).sum() == rows - 2 - 5


def test_an_empty_batch_changes_nothing():
    tracker = Tracker(3, 4, TYPICAL)
    tracker.begin_pass(1)
    empty = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
    pool_stats_update(
        empty[0].to(DEVICE),
        empty[1].to(DEVICE),
        None,
        *tracker.tensors,
        backend="triton",
    )
    tracker.expect(*empty)
    tracker.check()


@pytest.mark.skipif(not INTERPRETED, reason="the GPU decides which rows are split")
@pytest.mark.parametrize(
    ("num_classes", "names", "dtype"),
    [
        (130, TYPICAL, torch.float16),
        (190, ("output", "cycle_discrepancy"), torch.bfloat16),
    ],
)
def test_from_features_with_rows_that_programs_share(num_classes, names, dtype, monkeypatch):
    from dynal_fast.ops.pool_stats import triton
    from tests.interleaved import Turns

    monkeypatch.setattr("triton.runtime.interpreter.GridExecutor", Turns)
    for name, value in {"SPLIT_ROWS": 16, "SPLIT_TILE": 64, "is_hopper": lambda *_: True}.items():
        monkeypatch.setattr(triton, name, value)
    monkeypatch.setattr(triton, "update_long_rows", None)  # would raise
    test_from_features(num_classes, names, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_classes", "names"), [(10, TYPICAL), (150, tuple(STATE)), (300, TYPICAL)]
)
def test_from_features(num_classes, names, dtype):
    n, rows, width = 41, 37, 35
    teacher = "teacher_discrepancy" in names
    tracker = Tracker(n, num_classes, names)
    for number in (1, 2):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        features = draw(rows, width, dtype, number, 1.0)
        weight, bias = draw(num_classes, width, dtype, 7, 0.3), draw(1, num_classes, dtype, 8)[0]
        theirs = (None, None, None)
        if teacher:
            theirs = (
                draw(rows, width + 3, dtype, 9, 1.0),
                draw(num_classes, width + 3, dtype, 10, 0.3),
                None,
            )
            theirs[0][4, 0] = float("nan")
        features[1, 1], features[2, 0] = float("nan"), -float("inf")
        ids[5], ids[6] = n, -1
        inputs = (features, weight, bias, *theirs)
        pool_stats_update_from_features(
            ids.to(DEVICE),
            *(tensor if tensor is None else tensor.to(DEVICE) for tensor in inputs),
            *tracker.tensors,
            backend="triton",
        )
        rounded = [t if t is None or t.dtype != torch.float64 else t.float() for t in inputs]
        reference.update_from_features(
            ids,
            contract.Head(*rounded[:3]),
            contract.Head(*rounded[3:]) if teacher else None,
            tracker.expected,
        )
    tracker.check(rtol=5e-5, atol=1e-5)
