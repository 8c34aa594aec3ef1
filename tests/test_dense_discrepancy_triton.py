"""The Triton kernels against the float64 reference: on a GPU, or interpreted (test_interpreter)."""

import pytest
import torch

from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from tests.cases.dense_discrepancy import DTYPES, SHAPES, maps, spoiled
from tests.triton_device import DEVICE, needs_triton

pytestmark = needs_triton


def both(logits, other):
    got = dense_discrepancy(logits.to(DEVICE), other.to(DEVICE), backend="triton")
    return got.cpu(), dense_discrepancy(logits, other, backend="reference")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_reference(shape, dtype):
    torch.testing.assert_close(*both(*maps(shape, dtype)), rtol=1e-5, atol=1e-7)


def test_more_pixels_than_one_program_takes():
    torch.testing.assert_close(*both(*maps((2, 3, 37, 41), torch.float32)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("apart", [1e-3, 30.0])
def test_maps_close_together_and_far_apart(apart):
    got, want = both(*maps((2, 300, 2, 3), torch.float32, apart=apart))
    torch.testing.assert_close(got, want, rtol=2e-3 if apart < 1 else 1e-5, atol=1e-12)


def test_a_non_finite_logit_spoils_its_image_only():
    got, want = both(*spoiled())
    assert got.isnan().tolist() == [False, True, True, True, True, False]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7, equal_nan=True)


def test_large_offsets_do_not_matter():
    logits, other = maps((2, 4, 3, 3), torch.float32)
    torch.testing.assert_close(*both(logits + 1e4, other + 1e4), rtol=1e-5, atol=1e-7)
