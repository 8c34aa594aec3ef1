"""Random crops and flips of uint8 image batches, on the device of the batch.

The standard scheme of the papers' experiments (label dispersion 4.1): a random crop from the image
padded with zeros, and a random horizontal flip; then normalisation by channel mean and standard
deviation. Each is a few operations on the whole batch, so a data set on a device needs neither
workers nor copies.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Which random changes a training batch gets; called with a batch, it makes them.

    Parameters
    ----------
    padding
        Zero pixels added at each side before a crop of the original size; 0 crops nothing.
    horizontal_flip
        Mirror each image with probability a half.

    >>> generator = torch.Generator().manual_seed(0)
    >>> images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    >>> Augmentation(padding=4)(images, generator).shape
    torch.Size([8, 3, 32, 32])
    """

    padding: int = 4
    horizontal_flip: bool = True

    @property
    def changes_nothing(self) -> bool:
        """Whether images stay as they are."""
        return self.padding == 0 and not self.horizontal_flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed images; see :func:`random_crop` and :func:`random_horizontal_flip`."""
        if self.padding:
            images = random_crop(images, self.padding, generator)
        return random_horizontal_flip(images, generator) if self.horizontal_flip else images


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad each image with zeros and crop it at a random position to its original size.

    Parameters
    ----------
    images
        ``(batch, channels, height, width)``, any dtype and device.
    padding
        Pixels added at each of the four sides, at least 1 and at most as many as the shorter side
        of an image has; beyond that, a crop could miss the image.
    generator
        Draws two offsets a sample. From a CPU generator the offsets are the same whatever the
        device of the images; one of the device spares the copy.

    Returns
    -------
    A tensor of the same shape, dtype and device.

    Raises
    ------
    TypeError
        The padding is no integer.
    ValueError
        Images are not 4-D, or the padding is out of range.
    """
    _check_images(images)
    batch, _, height, width = images.shape
    if isinstance(padding, bool) or not isinstance(padding, int):
        raise TypeError(f"padding must be a number of pixels, got {padding!r}")
    if padding < 1:
        raise ValueError(f"padding must be at least 1, got {padding}")
    if padding > min(height, width):
        raise ValueError(
            f"padding must be at most the shorter side of images of {height}x{width}, got {padding}"
        )
    shape = (2, batch)
    offsets = torch.randint(
        2 * padding + 1, shape, generator=generator, device=generator.device
    ).to(images.device, non_blocking=True)
    padded = functional.pad(images, (padding,) * 4)
    # A view of all windows; indexing it copies one of them for each sample.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    samples = torch.arange(batch, device=images.device)
    return windows[samples, :, offsets[0], offsets[1]]


def random_horizontal_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability a half.

    Parameters
    ----------
    images
        ``(batch, channels, height, width)``, any dtype and device.
    generator
        Draws one number a sample, as in :func:`random_crop`.

    Returns
    -------
    A tensor of the same shape, dtype and device.

    Raises
    ------
    ValueError
        Images are not 4-D.
    """
    _check_images(images)
    flipped = torch.randint(2, (len(images),), generator=generator, device=generator.device).to(
        images.device, torch.bool, non_blocking=True
    )
    return flip_where(images, flipped)


def flip_where(images: Tensor, flipped: Tensor) -> Tensor:
    """Return the images with those mirrored for which ``flipped`` ``(batch,)`` bool is true."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"images must be (batch, channels, height, width), got {tuple(images.shape)}"
        )
