"""The discrepancy of two segmentation models: our backend beside plain torch and a bare copy.

    pytest benchmarks/bench_dense_discrepancy.py --benchmark-only

Maps of 19 classes, as of Cityscapes at half its resolution. The copy of one of the two maps moves
as many bytes as must be read, so its ratio to ours is the share of its bandwidth that we reach.
Every backend must equal the float64 reference on the maps of the tests, and every way on the maps
that are timed. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the maps' height.
"""

import functools

import pytest
import torch

from benchmarks.machine import DEVICES, OURS, REFERENCE, SCALE
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from tests.cases.dense_discrepancy import DTYPES, SHAPES, maps, spoiled

SHAPE = (2, 19, max(1, int(512 * SCALE)), 1024)
COPY, PLAIN, COMPILED = "copy of one map", "plain torch", "torch.compile"
TIMES_AS_FAST = 6  # as plain torch, at least


def plain_torch(logits, other):
    """The formula over the whole batch at once; it lacks the care for non-finite logits."""
    difference = logits.float().softmax(dim=1) - other.float().softmax(dim=1)
    return difference.square().sum(dim=1).mean(dim=(1, 2))


WAYS = {
    COPY: None,
    PLAIN: plain_torch,
    COMPILED: torch.compile(plain_torch),
    REFERENCE: functools.partial(dense_discrepancy, backend=REFERENCE),
    OURS: dense_discrepancy,
}


def assert_same(function, logits, other, device):
    got = function(logits.to(device), other.to(device)).cpu()
    want = dense_discrepancy(logits, other, backend=REFERENCE)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7, equal_nan=True)


@functools.cache
def equals_the_reference(device):
    """Our backend must equal the reference on the maps of the tests."""
    for shape in SHAPES:
        for dtype in DTYPES:
            assert_same(dense_discrepancy, *maps(shape, dtype), device)
    assert_same(dense_discrepancy, *spoiled(), device)


def prepare(way, dtype, device):
    """Return the job of a way, after verifying its results."""
    logits, other = maps(SHAPE, dtype)
    here, there = logits.to(device), other.to(device)
    if way == COPY:
        return lambda: there.copy_(here)
    if way == OURS:
        equals_the_reference(device)
    if way != REFERENCE:
        assert_same(WAYS[way], logits, other, device)
    return lambda: WAYS[way](here, there)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_maps(side_by_side, way, dtype, device):
    if way == REFERENCE and device != "cpu":
        pytest.skip("the reference runs on the CPU")
    size = " × ".join(map(str, SHAPE))
    group = f"dense discrepancy of maps {size}, {str(dtype).removeprefix('torch.')}"
    rounds = 1 if way == REFERENCE else 5
    ratios = side_by_side(group, way, prepare(way, dtype, device), device=device, rounds=rounds)
    if way == OURS and PLAIN in ratios and SCALE == 1 and device == "cpu":
        assert ratios[PLAIN] >= TIMES_AS_FAST
