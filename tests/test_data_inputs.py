"""Images as a model takes them, from memory, from files, and through a pool view."""

import numpy as np
import pytest
import torch

from dynal_fast.data.augment import Augmentation
from dynal_fast.data.dataset import LazyStack
from dynal_fast.data.inflate import add_horizontal_flips, inflate, original_pool
from dynal_fast.data.inputs import ImageInputs

MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.25, 1.0]
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5), dtype=np.uint8)


def decode(path):
    return PIXELS[int(path)]


SOURCES = {
    "tensor": torch.from_numpy(PIXELS),
    "array": PIXELS,
    "lazy": LazyStack([str(i) for i in range(9)], decode, (3, 4, 5)),
}


def normalised(pixels):
    per_channel = np.array([MEAN, STD])[:, None, :, None, None]
    return (pixels / 255 - per_channel[0]) / per_channel[1]


@pytest.fixture(params=sorted(SOURCES))
def images(request):
    return SOURCES[request.param]


def test_batches_are_normalised_by_channel(images):
    inputs = ImageInputs(images, MEAN, STD)
    ids = torch.tensor([7, 0, 7, 3])
    np.testing.assert_allclose(inputs[ids], normalised(PIXELS[ids]), rtol=1e-5, atol=1e-6)
    assert inputs[ids].dtype == torch.float32
    assert inputs.shape == (9, 3, 4, 5)
    assert inputs[torch.empty(0, dtype=torch.int64)].shape == (0, 3, 4, 5)


def test_one_image_is_a_batch_without_its_first_axis(images):
    inputs = ImageInputs(images, MEAN, STD)
    assert torch.equal(inputs[2], inputs[torch.tensor([2])][0])
    assert torch.equal(inputs[-1], inputs[8])
    with pytest.raises(IndexError):
        inputs[9]


def test_images_in_memory_are_not_copied():
    images = torch.from_numpy(PIXELS.copy())
    assert ImageInputs(images, MEAN, STD).images.data_ptr() == images.data_ptr()
    array = PIXELS.copy()
    assert ImageInputs(array, MEAN, STD).images.data_ptr() == array.ctypes.data


def test_a_view_gives_entries_of_the_originals(images):
    generator = torch.Generator().manual_seed(0)
    view = inflate(add_horizontal_flips(original_pool(9)), 3, generator)
    inputs = ImageInputs(images, MEAN, STD, view=view)
    assert len(inputs) == 54
    originals = ImageInputs(images, MEAN, STD)
    assert torch.equal(originals.with_view(view)[torch.arange(54)], inputs[torch.arange(54)])
    assert len(originals) == 9
    for entry in range(0, 54, 5):
        expected = originals[int(view.original_ids[entry])]
        expected = expected.flip(-1) if view.flipped[entry] else expected
        assert torch.equal(inputs[entry], expected)
        assert torch.equal(inputs[torch.tensor([entry])][0], expected)


def test_augmented_batches_are_cropped_before_they_are_normalised(images):
    ids = torch.tensor([4, 2, 8])
    inputs = ImageInputs(images, MEAN, STD)
    batch = inputs.augmented(ids, Augmentation(2), torch.Generator().manual_seed(3))
    pixels = Augmentation(2)(torch.from_numpy(PIXELS[ids]), torch.Generator().manual_seed(3))
    np.testing.assert_allclose(batch, normalised(pixels.numpy()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)]
)
def test_anything_but_uint8_images_is_refused(images):
    with pytest.raises(ValueError, match=r"images must be uint8 \(n, channels, height, width\)"):
        ImageInputs(images, 0.5, 0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("with_view", [False, True])
def test_batches_on_a_device_equal_those_on_the_cpu(images, with_view):
    view = add_horizontal_flips(original_pool(9)) if with_view else None
    ids = torch.tensor([5, 0, 8])
    host = ImageInputs(images, MEAN, STD, view=view)
    device = ImageInputs(images, MEAN, STD, device="cuda", view=view)
    for on_device in (device[ids], device[ids.cuda()]):
        assert on_device.is_cuda
        torch.testing.assert_close(on_device.cpu(), host[ids])
