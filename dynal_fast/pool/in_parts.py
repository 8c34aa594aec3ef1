"""Run a folded graph on parts of a batch, so that its activations are small enough to be reused."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from dynal_fast.pool.containers import tensors_in

# What a layer writes, the next one finds in the cache. glibc also gives blocks of 32 MiB and more
# back to the system, whose pages are then cleared anew for every layer. Smaller parts pay the cost
# of a call more often.
PART_BYTES = 10 << 20
FEW = 8  # samples of which the activations are measured


def channels_last(module: nn.Module) -> bool:
    """Give the 2-D convolutions channels-last weights; return whether there are any."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        # Not contiguous(): weights of one channel would keep strides that say channels-first.
        layer.weight.data = layer.weight.to(memory_format=torch.channels_last)
    return bool(layers)


def images_last(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors of which the 4-D ones are channels-last."""
    last = torch.channels_last
    return [t.contiguous(memory_format=last) if t.ndim == 4 else t for t in tensors]


def part_size(graph: fx.GraphModule, tensors: list[Tensor]) -> int | None:
    """Return how many samples a part has, None if the batch (n, ...) is to run as a whole.

    >>> from dynal_fast.pool.forward import model_call
    >>> from dynal_fast.pool.trace import trace
    >>> images = torch.zeros(512, 1, 28, 28)
    >>> graph = trace(nn.Conv2d(1, 32, 5, padding=2), model_call(), images)
    >>> part_size(graph, [images]), part_size(graph, [images[:96]])
    (103, None)
    """
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    n = sizes.pop() if len(sizes) == 1 else 0
    if n < 2 or tensors[0].device.type != "cpu":
        return None
    some, largest = min(n, FEW), _Largest(graph)
    try:
        largest.run([tensor[:some] for tensor in tensors])
    except Exception:  # of a graph that does not hold for a few samples
        return None
    parts = -(-n * largest.nbytes // (some * PART_BYTES))
    return None if parts <= 1 else -(-n // parts)


def parts_of(tensors: list[Tensor], size: int) -> list[list[Tensor]]:
    """Return the tensors of each part.

    >>> [[len(t) for t in part] for part in parts_of([torch.zeros(5, 2), torch.zeros(5)], 3)]
    [[3, 3], [2, 2]]
    """
    return [list(part) for part in zip(*(tensor.split(size) for tensor in tensors), strict=True)]


class _Largest(fx.Interpreter):
    """Finds the largest tensor that a graph makes."""

    nbytes = 0

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op not in ("get_attr", "output"):
            self.nbytes = max([self.nbytes, *(tensor.nbytes for tensor in tensors_in(value))])
        return value
