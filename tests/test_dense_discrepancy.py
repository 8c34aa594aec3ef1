import pytest
import torch

from dynal_fast._extension import load
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from tests.cases.dense_discrepancy import DTYPES, SHAPES, maps, spoiled

NATIVE = load()
BLOCKS = [(2, 19, 23, 41), (1, 3, 64, 65)]  # many blocks of pixels, and a part of one


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, *BLOCKS])
def test_agrees_with_the_reference(shape, dtype):
    logits, other = maps(shape, dtype)
    want = dense_discrepancy(logits, other, backend="reference")
    got = dense_discrepancy(logits, other)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("apart", [1e-3, 30.0])
def test_maps_close_together_and_far_apart(apart):
    logits, other = maps(BLOCKS[0], torch.float32, apart=apart)
    want = dense_discrepancy(logits, other, backend="reference")
    torch.testing.assert_close(dense_discrepancy(logits, other), want, rtol=1e-4, atol=0)


@pytest.mark.usefixtures("isa")
def test_large_offsets_do_not_matter():
    logits, other = maps(SHAPES[1], torch.float32)
    far = 3e38 * torch.tensor([1.0, -1.0]).repeat(10)[:19, None, None].expand_as(logits)
    assert dense_discrepancy(far.contiguous(), far.contiguous()).tolist() == [0.0] * 3
    want = dense_discrepancy(logits + 1000, other - 1000, backend="reference")
    torch.testing.assert_close(dense_discrepancy(logits + 1000, other - 1000), want)


@pytest.mark.usefixtures("isa")
def test_the_result_does_not_depend_on_the_number_of_threads():
    threads, results = torch.get_num_threads(), []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        results.append(dense_discrepancy(*maps(BLOCKS[1], torch.float32)).item())
    torch.set_num_threads(threads)
    assert len(set(results)) == 1


def test_the_reference_is_the_formula():
    logits, other = maps((2, 3, 2, 2), torch.float32)
    difference = logits.double().softmax(1) - other.double().softmax(1)
    want = difference.square().sum(1).mean((1, 2)).float()
    torch.testing.assert_close(dense_discrepancy(logits, other, backend="reference"), want)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_non_finite_logit_spoils_its_image_only(backend):
    values = dense_discrepancy(*spoiled(), backend=backend)
    assert values.isnan().tolist() == [False, True, True, True, True, False]


@pytest.mark.usefixtures("isa")
def test_equal_maps_are_at_zero_and_no_images_are_no_error():
    logits, _ = maps((2, 5, 3, 3), torch.float32)
    assert dense_discrepancy(logits, logits.clone()).tolist() == [0.0, 0.0]
    assert dense_discrepancy(logits[:0], logits[:0]).shape == (0,)


def test_the_operator_is_registered_properly():
    torch.library.opcheck(
        torch.ops.dynal_fast.dense_discrepancy.default, maps((2, 5, 3, 3), torch.float32)
    )


def test_wrong_arguments_say_what_was_expected():
    logits, other = maps((2, 5, 3, 3), torch.float32)
    with pytest.raises(ValueError, match=r"logits must be \(batch, classes >= 2.*got \(5, 3, 3\)"):
        dense_discrepancy(logits[0], other[0])
    with pytest.raises(ValueError, match="other must have the shape of logits"):
        dense_discrepancy(logits, other[:1])
    with pytest.raises(ValueError, match=r"logits must be float32.*got torch.float64"):
        dense_discrepancy(logits.double(), other.double())
    with pytest.raises(ValueError, match=r"pass logits.contiguous\(\)"):
        dense_discrepancy(logits.transpose(2, 3), other)
    with pytest.raises(ValueError, match="backend must be one of"):
        dense_discrepancy(logits, other, backend="fast")
    with pytest.raises(ValueError, match='backend "cpu" needs tensors on the CPU, got meta'):
        dense_discrepancy(logits.to("meta"), other.to("meta"), backend="cpu")


@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
def test_the_result_is_where_the_maps_are(backend):
    logits, other = maps((2, 5, 3, 3), torch.float32)
    with torch.device("meta"):
        assert dense_discrepancy(logits, other, backend=backend).device == logits.device
