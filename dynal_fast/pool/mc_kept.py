"""What a model computes before its first dropout, kept from the first pass for the others."""

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch import Tensor

from dynal_fast.pool.containers import map_tensors, tensors_in

MEMORY_BYTES = 64 << 20
FILE_BYTES = 2 << 30  # a million samples of 512 float32

Batch = tuple[Tensor, Any]  # ids, and containers of tensors


class KeptBatches:
    """Batches in their order: the first in memory, the others in a file without a name.

    Those on a GPU stay there, as many as are kept in memory.

    The file is made when it is needed, in the system's folder for temporary files, and is gone when
    it is closed or the process ends.

    >>> kept = KeptBatches()
    >>> kept.add(torch.tensor([4, 2]), (torch.ones(2, 3),))
    True
    >>> [(ids.tolist(), values[0].shape) for ids, values in kept]
    [([4, 2], torch.Size([2, 3]))]
    """

    def __init__(self) -> None:
        self._in_memory: list[Batch] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._in_file: list[Batch] = []  # their values without data

    def add(self, sample_ids: Tensor, values: Any) -> bool:
        """Keep a batch; return whether there was room for it."""
        self._bytes += sum(tensor.nbytes for tensor in tensors_in(values))
        if self._bytes <= MEMORY_BYTES:
            self._in_memory.append((sample_ids, values))
            return True
        if self._bytes > MEMORY_BYTES + FILE_BYTES:
            return False
        if any(tensor.device.type != "cpu" for tensor in tensors_in(values)):
            return False
        try:
            self._write(sample_ids, values)
        except OSError:  # no folder, or no room on the disk
            return False
        return True

    def __iter__(self) -> Iterator[Batch]:
        yield from self._in_memory
        if self._file is None:
            return
        self._file.seek(0)
        for sample_ids, shapes in self._in_file:
            yield sample_ids, map_tensors(self._read, shapes)

    def close(self) -> None:
        """Forget all batches."""
        self._in_memory, self._in_file = [], []
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, sample_ids: Tensor, values: Any) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        # A clone is dense, in the order of its original.
        dense = map_tensors(lambda tensor: tensor.detach().clone(), values)
        for tensor in tensors_in(dense):
            self._file.write(_bytes_of(tensor))
        self._file.flush()  # a full disk is an error here
        self._in_file.append((sample_ids, map_tensors(_without_data, dense)))

    def _read(self, like: Tensor) -> Tensor:
        assert self._file is not None
        tensor = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
        if self._file.readinto(_bytes_of(tensor)) != tensor.nbytes:  # type: ignore[attr-defined]
            raise OSError("the temporary file of activations was cut short")
        return tensor


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a dense tensor."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _without_data(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
