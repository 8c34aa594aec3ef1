"""Random crops and flips against a loop over samples that draws the same numbers."""

import numpy as np
import pytest
import torch

from dynal_fast.data.augment import Augmentation, random_crop, random_horizontal_flip

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def images(batch=7, channels=3, height=6, width=5, dtype=torch.uint8, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(1, 256, (batch, channels, height, width), generator=generator)
    return pixels.to(dtype).to(device)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 3, 6, 5), (1, 1, 8, 8), (65, 3, 32, 32), (0, 3, 4, 4)])
@pytest.mark.parametrize("padding", [1, 4])
def test_random_crop_equals_a_loop_over_samples(device, shape, padding, dtype):
    batch = images(*shape, dtype=dtype, device=device)
    cropped = random_crop(batch, padding, generator())
    rows, columns = torch.randint(2 * padding + 1, (2, len(batch)), generator=generator()).tolist()
    assert cropped.shape == batch.shape
    assert cropped.dtype == dtype
    assert cropped.device == batch.device
    for image, row, column, result in zip(batch.cpu(), rows, columns, cropped.cpu(), strict=True):
        canvas = np.pad(image.float().numpy(), ((0, 0), (padding, padding), (padding, padding)))
        expected = canvas[:, row : row + image.shape[1], column : column + image.shape[2]]
        assert np.array_equal(result.float().numpy(), expected)


@pytest.mark.parametrize("shape", [(9, 3, 6, 5), (65, 1, 8, 8)])
def test_random_flip_equals_a_loop_over_samples(device, shape):
    batch = images(*shape, device=device)
    flipped = random_horizontal_flip(batch, generator())
    coins = torch.randint(2, (len(batch),), generator=generator()).tolist()
    assert 0 < sum(coins) < len(coins)
    for image, coin, result in zip(batch.cpu(), coins, flipped.cpu(), strict=True):
        expected = image.numpy()[:, :, ::-1] if coin else image.numpy()
        assert np.array_equal(result.numpy(), expected)


def test_every_offset_is_reached_about_equally_often():
    batch = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    batch[:, :, 2, 2] = 1  # stays inside under every offset of padding 1
    where = random_crop(batch, 1, generator()).flatten(1).argmax(1)
    counts = torch.bincount(where, minlength=25).view(5, 5)
    assert counts[1:4, 1:4].sum() == 9000
    assert counts[1:4, 1:4].min() > 900  # 1,000 expected, standard deviation 30
    assert counts[1:4, 1:4].max() < 1100


def test_the_batch_itself_is_left_alone(device):
    batch = images(device=device)
    before = batch.clone()
    Augmentation()(batch, generator())
    assert torch.equal(batch, before)


def test_channels_last_batches_give_the_same_pixels(device):
    batch = images(16, 3, 8, 8, device=device)
    strided = batch.to(memory_format=torch.channels_last)
    expected = Augmentation(2)(batch, generator())
    assert torch.equal(Augmentation(2)(strided, generator()), expected)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 2])
def test_augmentation_crops_then_flips_and_leaves_out_what_is_off(padding, flip):
    batch, draws = images(32), generator()
    expected = random_crop(batch, padding, draws) if padding else batch
    expected = random_horizontal_flip(expected, draws) if flip else expected
    assert torch.equal(Augmentation(padding, flip)(batch, generator()), expected)
    assert torch.equal(expected, batch) == (not padding and not flip)


def test_a_seed_decides_everything():
    batch = images(32)
    assert torch.equal(Augmentation()(batch, generator(3)), Augmentation()(batch, generator(3)))
    assert not torch.equal(Augmentation()(batch, generator(3)), Augmentation()(batch, generator(4)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_generator_of_the_device_is_accepted():
    batch = images(16, device="cuda")
    result = Augmentation()(batch, torch.Generator("cuda").manual_seed(0))
    again = Augmentation()(batch, torch.Generator("cuda").manual_seed(0))
    assert torch.equal(result, again)
    assert not torch.equal(result, batch)


@pytest.mark.parametrize(
    "function",
    [lambda x: random_crop(x, 1, generator()), lambda x: random_horizontal_flip(x, generator())],
)
def test_a_single_image_is_refused(function):
    with pytest.raises(ValueError, match=r"images must be \(batch, channels, .*got \(3, 4, 4\)"):
        function(torch.zeros(3, 4, 4))


def test_a_padding_below_one_is_refused():
    with pytest.raises(ValueError, match="padding must be at least 1, got 0"):
        random_crop(images(), 0, generator())
