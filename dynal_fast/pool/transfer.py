"""Batches are moved to a device: on CUDA, the next is copied while one is computed on."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from dynal_fast.pool.containers import map_tensors


def on_device(batches: Iterable[Any], device: torch.device, channels_last: bool) -> Iterator[Any]:
    """Yield the batches in order on ``device``, 4-D tensors as channels-last if asked.

    On a CUDA device each batch is ready for the stream that is current when it is requested.
    """
    place = functools.partial(_place, device=device, channels_last=channels_last)
    ahead: tuple[Any, torch.cuda.Event] | None = None
    for batch in batches:
        copied = None
        if device.type == "cuda" and _is_elsewhere(batch, device):
            copied = _copy(batch, device, place)
        if ahead is not None:
            yield _arrive(*ahead, device)
        ahead = copied
        if copied is None:
            yield map_tensors(place, batch)
    if ahead is not None:
        yield _arrive(*ahead, device)


@functools.cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the copy stream of a device: always the same, since each stream caches memory."""
    return torch.cuda.Stream(device)


def _copy(
    batch: Any, device: torch.device, place: Callable[[Tensor], Tensor]
) -> tuple[Any, torch.cuda.Event]:
    """Start copying a batch on the copy stream; return it and the event that ends the copy."""
    copying = copy_stream(device)

    def copy(tensor: Tensor) -> Tensor:
        placed = place(tensor.pin_memory() if tensor.device.type == "cpu" else tensor)
        if placed is not tensor and tensor.device == device:
            tensor.record_stream(copying)  # so that it is not freed while it is read
        return placed

    # If the loader makes tensors on the device, their kernels must end before the copy begins.
    copying.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(copying):
        return map_tensors(copy, batch), copying.record_event()


def _arrive(batch: Any, copied: torch.cuda.Event, device: torch.device) -> Any:
    """Make the current stream wait for a batch, and keep its memory until that stream is done."""
    computing = torch.cuda.current_stream(device)
    computing.wait_event(copied)

    def record(tensor: Tensor) -> Tensor:
        tensor.record_stream(computing)
        return tensor

    return map_tensors(record, batch)


def _place(tensor: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    tensor = tensor.to(device, non_blocking=device.type == "cuda")
    if channels_last and tensor.ndim == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _is_elsewhere(batch: Any, device: torch.device) -> bool:
    found = False

    def look(tensor: Tensor) -> Tensor:
        nonlocal found
        found |= tensor.device != device
        return tensor

    map_tensors(look, batch)
    return found
