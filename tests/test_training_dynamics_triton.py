"""The Triton kernels on batches with targets: on a GPU, or interpreted (test_interpreter)."""

import pytest
import torch

from dynal_fast.ops.pool_stats import (
    contract,
    pool_stats_update,
    pool_stats_update_from_features,
    reference,
)
from tests.cases.pool_stats_tensors import TYPICAL, Tracker, draw
from tests.triton_device import DEVICE, needs_triton

pytestmark = needs_triton

TRAINING = ("training_count", "training")


def drawn_targets(ids, num_classes, number):
    """The class of each sample, some without one, some another than before, one beyond."""
    targets = (ids.long().abs() * 7) % num_classes
    targets[::5] = -100
    targets[3::11] = num_classes - 1
    if number == 2:
        targets[4] = num_classes
    return targets


@pytest.mark.parametrize(
    ("num_classes", "dtype", "names"),
    [
        (2, torch.float32, TRAINING),
        (10, torch.bfloat16, (*TYPICAL, "teacher_discrepancy", *TRAINING)),
        (65, torch.float64, TRAINING),
        (300, torch.float16, (*TYPICAL, *TRAINING)),
        (4097, torch.float32, (*TYPICAL, *TRAINING)),
        (4097, torch.float64, TRAINING),
    ],
)
def test_update(num_classes, dtype, names):
    n, rows = (29, 23) if num_classes < 4096 else (9, 8)
    tracker = Tracker(n, num_classes, names)
    for number in (1, 2, 3):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        targets = drawn_targets(ids, num_classes, number)
        logits = draw(rows, num_classes, dtype, number)
        logits[torch.arange(rows), targets.clamp(0, num_classes - 1)] += (16, -4, 2)[number - 1]
        logits[1, -1], logits[6] = torch.nan, 0.0  # the other: all classes tie
        teacher = draw(rows, num_classes, dtype, -number) if len(names) > 9 else None
        ids[5] = n
        pool_stats_update(
            ids.to(DEVICE),
            logits.to(DEVICE),
            teacher if teacher is None else teacher.to(DEVICE),
            *tracker.tensors,
            targets=targets.to(DEVICE),
            backend="triton",
        )
        tracker.expect(ids, logits, teacher, targets)
    tracker.check()
    assert tracker.want["training"][:, 3].max() >= 1


def test_sure_and_huge_logits():
    tracker = Tracker(7, 4, TRAINING)
    tracker.begin_pass(1)
    logits = torch.zeros(7, 4)
    logits[:, 2] = torch.tensor([2.0, 9.0, 16.0, 25.0, 60.0, 1e4, 3e38])
    logits[:, 0] = -logits[:, 2]
    ids, targets = torch.arange(7), torch.full((7,), 2)
    pool_stats_update(
        ids.to(DEVICE),
        logits.to(DEVICE),
        None,
        *tracker.tensors,
        targets=targets.to(DEVICE),
        backend="triton",
    )
    tracker.expect(ids, logits, None, targets)
    tracker.check(rtol=1e-5, atol=1e-7)


def test_without_targets_nothing_is_written():
    tracker = Tracker(5, 10, (*TYPICAL, *TRAINING))
    tracker.begin_pass(1)
    ids, logits = torch.arange(5), draw(5, 10, torch.float32, 1)
    pool_stats_update(ids.to(DEVICE), logits.to(DEVICE), None, *tracker.tensors, backend="triton")
    tracker.expect(ids, logits)
    tracker.check()
    assert not tracker.state["training"].any()


@pytest.mark.parametrize(("num_classes", "dtype"), [(10, torch.float32), (300, torch.bfloat16)])
def test_from_features(num_classes, dtype, monkeypatch):
    from dynal_fast.ops.pool_stats import triton

    monkeypatch.setattr(triton, "is_hopper", lambda *_: True)
    monkeypatch.setattr(triton, "update_split_rows", None)  # would raise
    n, rows, width = 41, 37, 35
    tracker = Tracker(n, num_classes, (*TYPICAL, *TRAINING))
    for number in (1, 2):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        targets = drawn_targets(ids, num_classes, number)
        head = contract.Head(
            draw(rows, width, dtype, number, 1.0),
            draw(num_classes, width, dtype, 7, 0.3),
            draw(1, num_classes, dtype, 8)[0],
        )
        pool_stats_update_from_features(
            ids.to(DEVICE),
            *(tensor.to(DEVICE) for tensor in head),
            *(None,) * 3,
            *tracker.tensors,
            targets=targets.to(DEVICE),
            backend="triton",
        )
        reference.update_from_features(ids, head, None, tracker.expected, targets)
    tracker.check(rtol=5e-5, atol=1e-5)
