"""The Triton kernels on sigmoid outputs: on a GPU, or interpreted (test_interpreter)."""

import pytest
import torch

from dynal_fast.ops.pool_stats import (
    contract,
    pool_stats_update,
    pool_stats_update_from_features,
    reference,
)
from tests.cases.pool_stats import OF_SIGMOIDS as EVERYTHING
from tests.cases.pool_stats_tensors import Tracker, draw
from tests.triton_device import DEVICE, INTERPRETED, needs_triton

pytestmark = needs_triton


LIGHT = ("count", "mean", "m2", "entropy_sum", "last_entropy", "last_top", "last_margin")


def fresh(n, num_classes, names, **options):
    return Tracker(n, num_classes, names, activation="sigmoid", **options)


@pytest.mark.parametrize(
    ("num_classes", "dtype"),
    [
        (1, torch.float32),
        (10, torch.float16),
        (65, torch.float64),
        (300, torch.bfloat16),
        (4097, torch.float32),
        (4097, torch.float64),
    ],
)
def test_everything_tracked(num_classes, dtype):
    n, rows = (29, 23) if num_classes < 4096 else (9, 8)
    tracker = fresh(n, num_classes, EVERYTHING)
    for number in (1, 2):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        logits, teacher = (draw(rows, num_classes, dtype, seed) for seed in (number, -number))
        logits[1, -1], logits[2, 0], teacher[4, 0] = torch.nan, -torch.inf, torch.inf
        ids[5], ids[6] = n, -1
        inputs = (ids.to(DEVICE), logits.to(DEVICE), teacher.to(DEVICE))
        pool_stats_update(*inputs, *tracker.tensors, backend="triton")
        tracker.expect(ids, logits, teacher)
    tracker.check()


@pytest.mark.parametrize("num_classes", [10, 4097])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_and_huge_logits(num_classes, dtype):
    tracker = fresh(6, num_classes, LIGHT)
    tracker.begin_pass(1)
    sizes = torch.tensor([12.0, 25.0, 80.0, 1e4, 3e38, 2.0], dtype=dtype)
    logits = sizes[:, None] * (-1.0) ** torch.arange(num_classes)
    if dtype == torch.float64:
        logits[4] *= 1e200
    ids = torch.arange(6)
    pool_stats_update(ids.to(DEVICE), logits.to(DEVICE), None, *tracker.tensors, backend="triton")
    tracker.expect(ids, logits)
    tracker.check(rtol=2e-6, atol=1e-15)


@pytest.mark.skipif(not INTERPRETED, reason="the GPU decides which rows are split")
@pytest.mark.parametrize("names", [LIGHT, ("output", "cycle_discrepancy")])
def test_from_features_with_rows_that_programs_share(names, monkeypatch):
    from dynal_fast.ops.pool_stats import triton
    from tests.interleaved import Turns

    monkeypatch.setattr("triton.runtime.interpreter.GridExecutor", Turns)
    for name, value in {"SPLIT_ROWS": 16, "SPLIT_TILE": 64, "is_hopper": lambda *_: True}.items():
        monkeypatch.setattr(triton, name, value)
    monkeypatch.setattr(triton, "update_long_rows", None)  # would raise
    test_from_features(190, names, torch.float16)


@pytest.mark.parametrize(
    ("num_classes", "names", "dtype"),
    [
        (10, LIGHT, torch.bfloat16),
        (150, EVERYTHING, torch.float32),
        (300, LIGHT, torch.float16),
        (1, LIGHT, torch.float32),
    ],
)
def test_from_features(num_classes, names, dtype):
    n, rows, width = 41, 37, 35
    tracker = fresh(n, num_classes, names)
    for number in (1, 2):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        features = draw(rows, width, dtype, number, 1.0)
        features[1, 1], features[2, 0] = torch.nan, -torch.inf
        weight, bias = draw(num_classes, width, dtype, 7, 0.3), draw(1, num_classes, dtype, 8)[0]
        theirs = (None, None, None)
        if "teacher_discrepancy" in names:
            theirs = (features.flip(0), weight.flip(0), None)
        ids[5], ids[6] = n, -1
        inputs = (features, weight, bias, *theirs)
        pool_stats_update_from_features(
            ids.to(DEVICE),
            *(tensor if tensor is None else tensor.contiguous().to(DEVICE) for tensor in inputs),
            *tracker.tensors,
            backend="triton",
        )
        teacher = contract.Head(*theirs) if theirs[0] is not None else None
        head = contract.Head(features, weight, bias)
        reference.update_from_features(ids, head, teacher, tracker.expected)
    tracker.check(rtol=5e-5, atol=1e-5)
