"""The buffers of a model, which data-parallel training leaves different on each rank."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dynal_fast.collective import Collective
from dynal_fast.collective.packing import as_bytes, from_bytes


@contextmanager
def buffers_of_the_first(ranks: Collective, *models: nn.Module | None) -> Iterator[None]:
    """Give every rank the first one's buffers for a block, such as those of batch normalisation.

    Data-parallel training keeps the weights equal, but not these; a model is saved with the first
    rank's. All ranks must call this.
    """
    buffers = [b for model in models if model is not None for b in model.buffers()]
    if ranks.size == 1 or not buffers:
        yield
        return
    own = [buffer.clone() for buffer in buffers]
    sizes = [buffer.nbytes for buffer in buffers]
    with ranks.session():
        sent = torch.cat([as_bytes(buffer.detach().reshape(1, -1)).cpu()[0] for buffer in buffers])
        counts = [len(sent) if rank == 0 else 0 for rank in range(ranks.size)]
        received = ranks.rows(sent[:, None] if ranks.rank == 0 else sent[:0, None], counts)
    for buffer, part in zip(buffers, received[:, 0].split(sizes), strict=True):
        flat = buffer.detach().reshape(1, -1)
        buffer.detach().copy_(from_bytes(part[None], flat).view(buffer.shape))
    try:
        yield
    finally:
        for buffer, kept in zip(buffers, own, strict=True):
            buffer.detach().copy_(kept)
