"""Images as a model takes them: stored as uint8, normalised and augmented batch by batch."""

import copy

import numpy as np
import torch
from torch import Tensor

from dynal_fast.data.augment import Augmentation, flip_where
from dynal_fast.data.dataset import LazyStack
from dynal_fast.data.inflate import PoolView
from dynal_fast.normalize import Normalize


class ImageInputs:
    """The images of a data set's split, indexed by sample ids.

    Images stay uint8 on their device, a quarter of float32; a batch is normalised there when it is
    asked for. ``inputs[ids]`` is ``(batch, channels, height, width)`` for an int64 tensor and one
    image for an integer.

    Parameters
    ----------
    images
        ``(n, channels, height, width)`` uint8: a tensor or an array, which is not copied, or a
        :class:`LazyStack`, whose images are decoded batch by batch.
    mean, std
        Of pixels scaled to [0, 1], one for each channel.
    device
        Where batches are made; images held in memory are moved there.
    view
        Pool entries over the images; ids are entries then. By default the images themselves.

    >>> images = torch.full((4, 1, 2, 2), 255, dtype=torch.uint8)
    >>> inputs = ImageInputs(images, mean=[0.5], std=[0.25])
    >>> inputs[torch.tensor([3, 1])].shape, inputs[0].unique().item()
    (torch.Size([2, 1, 2, 2]), 2.0)
    """

    def __init__(
        self,
        images: Tensor | np.ndarray | LazyStack,
        mean: object,
        std: object,
        device: torch.device | str = "cpu",
        view: PoolView | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.images: Tensor | LazyStack
        if isinstance(images, LazyStack):
            self.images, self.view = images, view
        else:
            self.images = torch.as_tensor(images, device=self.device)
            self.view = None if view is None else view.to(self.device)
        if self.images.ndim != 4 or self.images.dtype not in (torch.uint8, np.uint8):
            raise ValueError(
                "images must be uint8 (n, channels, height, width), "
                f"got {self.images.dtype} {tuple(self.images.shape)}"
            )
        self._normalize = Normalize(mean, std, self.images.shape[1], self.device)

    def with_view(self, view: PoolView) -> "ImageInputs":
        """Return inputs whose ids are entries of ``view``, over the same images in memory."""
        other = copy.copy(self)
        other.view = view if isinstance(self.images, LazyStack) else view.to(self.device)
        return other

    def __len__(self) -> int:
        return len(self.images) if self.view is None else len(self.view)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(len(self), channels, height, width)``."""
        return (len(self), *self.images.shape[1:])

    def __getitem__(self, ids: int | Tensor) -> Tensor:
        if isinstance(ids, Tensor):
            return self._normalize(self._pixels(ids))
        return self._normalize(self._pixels(torch.tensor([range(len(self))[ids]])))[0]

    def augmented(
        self, ids: Tensor, augmentation: Augmentation, generator: torch.Generator
    ) -> Tensor:
        """Return the batch of ``ids`` ``(batch,)`` int64, randomly cropped and flipped."""
        return self._normalize(augmentation(self._pixels(ids), generator))

    def _pixels(self, ids: Tensor) -> Tensor:
        if isinstance(self.images, LazyStack):
            chosen = ids if self.view is None else self.view.original_ids[ids.cpu()]
            decoded = torch.from_numpy(self.images[chosen.cpu().numpy()]).to(self.device)
            if self.view is None:
                return decoded
            return flip_where(decoded, self.view.flipped[ids.cpu()].to(self.device))
        if self.view is None:
            return self.images[ids.to(self.device)]
        return self.view.images(self.images, ids)
