"""Normalisation of uint8 images by channel mean and standard deviation, on their own device."""

from typing import Any

import torch
from torch import Tensor


class Normalize:
    """Maps uint8 images to ``(pixel / 255 - mean) / std``.

    This is one subtraction and one multiplication; their constants are kept on the device, so that
    a batch copies nothing.

    Parameters
    ----------
    mean, std
        Of pixels scaled to [0, 1]: one number, or one per channel.
    channels
        Of the images.
    device
        Of the images.
    dtype
        Of the result.

    Raises
    ------
    ValueError
        ``mean`` or ``std`` is not one number or one per channel, or a ``std`` is not positive.

    Examples
    --------
    >>> normalize = Normalize(mean=0.5, std=0.25, channels=1)
    >>> normalize(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)).flatten().tolist()
    [-2.0, 2.0]
    """

    def __init__(
        self,
        mean: Any,
        std: Any,
        channels: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        mean = _per_channel("mean", mean, channels)
        std = _per_channel("std", std, channels)
        if not bool((std > 0).all()):
            raise ValueError(f"std must be positive, got {std.flatten().tolist()}")
        # (pixel / 255 - mean) / std = (pixel - offset) * scale
        self._offset = (255 * mean).to(device, torch.float32)
        self._scale = (1 / (255 * std)).to(device, torch.float32)
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``(batch, channels, height, width)`` of the dtype for uint8 images."""
        return (images - self._offset).mul_(self._scale).to(self.dtype)


def _per_channel(name: str, value: Any, channels: int) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten()
    if len(value) not in (1, channels):
        raise ValueError(
            f"{name} must be one number or one per channel ({channels}), got {len(value)}"
        )
    return value.view(-1, 1, 1)
