"""`PoolImages`: a pool of images that stays on the device."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dynal_fast.normalize import Normalize


class PoolImages:
    """Images that stay on the device as uint8 and are normalised batch by batch.

    Replaces a DataLoader for pools that fit into device memory (50,000 images of 32 x 32 x 3 are
    154 MB): no workers, no copies from the host. Iterating yields ``(sample_ids, inputs)`` on the
    device: ids int64 ``(batch,)``, and inputs ``(batch, channels, height, width)`` of ``dtype``,
    ``(pixel / 255 - mean) / std``.

    Parameters
    ----------
    images
        uint8 ``(n, channels, height, width)``, a tensor, an array or a memory map. Image i is
        sample i.
    mean, std
        Of pixels scaled to [0, 1]: one number, or one per channel.
    batch_size
        Images per batch.
    sample_ids
        ``(m,)`` integers: the samples to stream, in this order; by default all n in order.
    device
        Where to move the images; by default they stay where they are.
    dtype
        Of the inputs.

    Raises
    ------
    ValueError
        ``images`` is not 4-D uint8, ``mean`` or ``std`` has not one number or one per channel, a
        ``std`` is not positive, ``batch_size`` is below 1, or an id is outside [0, n).

    Examples
    --------
    >>> images = torch.full((3, 1, 2, 2), 255, dtype=torch.uint8)
    >>> pool = PoolImages(images, mean=0.5, std=0.25, batch_size=2, sample_ids=[2, 0])
    >>> [(ids.tolist(), inputs.unique().tolist()) for ids, inputs in pool]
    [([2, 0], [2.0])]
    """

    def __init__(
        self,
        images: Any,
        *,
        mean: Any,
        std: Any,
        batch_size: int = 512,
        sample_ids: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        with warnings.catch_warnings():  # of a read-only memory map; it is only read
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            images = torch.as_tensor(images)
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                "images must be (n, channels, height, width) uint8, "
                f"got {tuple(images.shape)} {images.dtype}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.images = images.to(device) if device is not None else images
        self.batch_size = batch_size
        self._normalize = Normalize(mean, std, images.shape[1], self.images.device, dtype)
        self.sample_ids = self._checked_ids(sample_ids)

    def with_ids(self, sample_ids: Any) -> "PoolImages":
        """Return a pool of these samples only, in this order, that shares the images.

        Parameters
        ----------
        sample_ids
            ``(m,)`` integers, or None for all samples.

        Raises
        ------
        ValueError
            An id is outside [0, n).

        Examples
        --------
        >>> images = torch.zeros(4, 1, 1, 1, dtype=torch.uint8)
        >>> pool = PoolImages(images, mean=0, std=1)
        >>> [ids.tolist() for ids, _ in pool.with_ids([3, 1])]
        [[3, 1]]
        """
        other = object.__new__(PoolImages)
        other.__dict__.update(self.__dict__)
        other.sample_ids = other._checked_ids(sample_ids)
        return other

    def __len__(self) -> int:
        """Return the number of batches."""
        n = len(self.images) if self.sample_ids is None else len(self.sample_ids)
        return -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            if self.sample_ids is None:
                pixels = self.images[start : start + self.batch_size]
                ids = torch.arange(start, start + len(pixels), device=self.images.device)
            else:
                ids = self.sample_ids[start : start + self.batch_size]
                pixels = self.images[ids]
            yield ids, self._normalize(pixels)

    def _checked_ids(self, sample_ids: Any) -> Tensor | None:
        if sample_ids is None:
            return None
        ids = torch.as_tensor(sample_ids)
        if ids.shape == (0,):
            ids = ids.long()
        if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ValueError(f"sample_ids must be 1-D integers, got {tuple(ids.shape)} {ids.dtype}")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.images):
            raise ValueError(
                f"sample_ids must be in [0, {len(self.images)}), "
                f"got values from {int(ids.min())} to {int(ids.max())}"
            )
        return ids.to(self.images.device, torch.int64)
