"""The samples of a data set with their ids and without their labels."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dynal_fast.data import ImageInputs, LazyStack
from dynal_fast.data.augment import Augmentation
from dynal_fast.experiment.determinism import tensor_bytes


class SampleSet(Dataset):
    """The samples of a data set with their ids and without their labels.

    ``samples[i]`` is ``(i, input)``, so that a plain ``DataLoader`` over it yields the
    ``(sample_ids, inputs)`` batches which the pool statistics need. ``samples[ids]`` with an int64
    tensor of shape ``(batch,)`` is a whole batch at once, the ids on the inputs' device.

    Parameters
    ----------
    source
        Inputs, shape ``(samples, ...)``, as a tensor or as :class:`~dynal_fast.data.ImageInputs`;
        or any map-style data set, of whose tuples the first element is the input.

    >>> samples = SampleSet(torch.arange(6.0).reshape(3, 2))
    >>> samples[2]
    (2, tensor([4., 5.]))
    >>> samples[torch.tensor([2, 0])]
    (tensor([2, 0]), tensor([[4., 5.],
            [0., 1.]]))
    """

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int | Tensor) -> tuple[int | Tensor, Tensor]:
        if isinstance(index, Tensor):
            inputs = self._inputs(index)
            return index.to(inputs.device), inputs
        return index, self._inputs(torch.tensor([index]))[0]

    def _inputs(self, ids: Tensor) -> Tensor:
        if isinstance(self.source, Tensor | ImageInputs):
            return self.source[ids]
        items = [self.source[i] for i in ids.tolist()]
        return default_collate([i[0] if isinstance(i, tuple | list) else i for i in items])

    def augmented(
        self, ids: Tensor, augmentation: Augmentation, generator: torch.Generator
    ) -> Tensor:
        """Return the inputs of ``ids``, randomly changed.

        Raises
        ------
        ValueError
            The source is not :class:`~dynal_fast.data.ImageInputs`.
        """
        if not isinstance(self.source, ImageInputs):
            raise ValueError(
                "crop_padding and horizontal_flip need uint8 images (ExperimentData.from_images), "
                f"got samples of {type(self.source).__name__}"
            )
        return self.source.augmented(ids, augmentation, generator)

    def batches(self, ids: Iterable[Tensor]) -> DataLoader:
        """Return a loader of the ``(sample_ids, inputs)`` of these batches of ids.

        It draws nothing from torch's global generator, so that observing the pool leaves the
        training's random numbers as they were.
        """
        return DataLoader(
            self,
            sampler=list(ids),
            batch_size=None,
            generator=torch.Generator(),
        )

    def loader(self, ids: Tensor, batch_size: int) -> DataLoader:
        """Return a loader of the ``(sample_ids, inputs)`` of ``ids``, in their order."""
        return self.batches(ids.split(batch_size))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self[0][1].shape)

    def digest(self) -> str:
        """Return a SHA-256 that identifies the inputs.

        It covers all values in memory, the names and sizes of files that are decoded on demand, and
        a few inputs as a model sees them.
        """
        digest = hashlib.sha256()
        held = self.source.images if isinstance(self.source, ImageInputs) else self.source
        if isinstance(held, Tensor):
            digest.update(tensor_bytes(held))
        elif isinstance(held, LazyStack):
            listed = [f"{path.name} {path.stat().st_size}" for path in held.paths]
            digest.update("\n".join(listed).encode())
        spread = torch.linspace(0, len(self) - 1, min(8, len(self))).round().long().unique()
        seen = self._inputs(spread)
        digest.update(f"{tuple(seen.shape)} {seen.dtype}".encode())
        digest.update(tensor_bytes(seen))
        return digest.hexdigest()
