"""MC dropout: active dropout in evaluation mode (Gal and Ghahramani, ICML 2016)."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dynal_fast.pool.dropout_calls import called, watching_dropout

DROPOUT_LAYERS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
LIKE_DROPOUT = re.compile("drop|stochastic_?depth", re.IGNORECASE)
RATES = ("p", "drop_prob", "drop_rate", "dropout", "prob", "rate")
CURE = "forward= may set .training = True of the modules that call it"
PROBES = 16  # with tiny rates and a small batch, two passes may agree by chance


def dropout_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by name, the layers whose training flag switches on dropout and nothing else.

    These are torch.nn's dropout layers, attention and recurrent layers with dropout, and layers of
    other libraries that are named after dropout or stochastic depth and have no buffers and no
    sublayers. Layers with a rate of 0 or 1 are left out: they are not random.

    >>> model = nn.Sequential(nn.LSTM(2, 3, num_layers=2, dropout=0.1), nn.Dropout(0.0))
    >>> list(dropout_layers(model))
    ['0']
    """
    return {name: layer for name, layer, rate in _rated_layers(model) if rate not in (0.0, 1.0)}


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Disable torch's fused transformer layers, which ignore dropout, inside the block."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def switched_off(layers: list[nn.Module]) -> Iterator[None]:
    """Switch these dropout layers off inside the block."""
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def activate_dropout(
    model: nn.Module, logits: Callable[[], Tensor], device: torch.device
) -> dict[str, nn.Module]:
    """Switch on the dropout of a model in evaluation mode, and return the layers by name.

    ``logits()`` returns the model's logits of some batch. It is called a few times to see whether
    anything is random; the random state is restored afterwards.

    Warns
    -----
    UserWarning
        Some dropout stays off; the message names it.

    Raises
    ------
    ValueError
        Nothing is random.
    """
    layers = _switched_on(model)
    devices = {device, *(weight.device for weight in model.parameters())}
    cuda = [device for device in devices if device.type == "cuda"]
    with torch.random.fork_rng(devices=cuda):
        before = random_states(cuda)
        with watching_dropout(model, layers) as idle:
            logits()
        drawn = not all(map(torch.equal, before, random_states(cuda)))
        model.eval()  # also the layers that this call created
        layers = _switched_on(model)
        if not layers and not drawn:
            raise ValueError(
                "mc_passes needs a model with dropout (torch.nn.Dropout and its kin), and "
                f"{type(model).__name__} has none{_why(model, idle)}: all passes would be the same"
            )
        first = logits()
        if all(_same(first, logits()) for _ in range(PROBES - 1)):
            raise ValueError(
                f"mc_passes: {PROBES} passes of {type(model).__name__} over the first batch gave "
                "the same logits, bit for bit, so its dropout does not act on them"
                f"{_why(model, idle)}"
            )
    if idle:
        warnings.warn(
            f"mc_passes: some dropout of {type(model).__name__} stays off, so the passes may "
            f"differ less than in training: {_few(idle)}. Only layers such as torch.nn.Dropout are "
            f"switched on, and only run where the model calls them in evaluation mode too; {CURE}",
            stacklevel=5,  # the caller of observe_pool
        )
    return layers


def _rated_layers(model: nn.Module) -> list[tuple[str, nn.Module, float]]:
    """Return name, layer and rate (NaN if unknown) of all dropout layers."""
    rated = ((name, layer, _rate(layer)) for name, layer in model.named_modules())
    return [(name, layer, rate) for name, layer, rate in rated if rate is not None]


def _rate(layer: nn.Module) -> float | None:
    if isinstance(layer, DROPOUT_LAYERS):
        return float(layer.p)
    if isinstance(layer, nn.MultiheadAttention):
        return float(layer.dropout)
    if isinstance(layer, nn.RNNBase):
        return float(layer.dropout) if layer.num_layers > 1 else 0.0
    if not LIKE_DROPOUT.search(type(layer).__name__) or layer._buffers or layer._modules:
        return None
    given = (getattr(layer, name, None) for name in RATES)
    return next((float(rate) for rate in given if isinstance(rate, (int, float))), math.nan)


def _switched_on(model: nn.Module) -> dict[str, nn.Module]:
    layers = dropout_layers(model)
    for layer in layers.values():
        layer.training = True
    return layers


def random_states(cuda: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]


def _same(first: Tensor, second: Tensor) -> bool:
    """Return whether all logits agree, except NaN, which the tracker reports."""
    numbers = ~(first.isnan() & second.isnan())
    return bool(numbers.any() and (first == second)[numbers].all())


def _why(model: nn.Module, idle: list[str]) -> str:
    """Return, for a message, which dropout the model has and which of it is off."""
    layers = [
        f"{called(name, layer)} with a rate of {rate:g}"
        for name, layer, rate in _rated_layers(model)
    ]
    has = f"; it has {_few(layers)}" if layers else ""
    return has + (f"; {_few(idle)} ({CURE})" if idle else "")


def _few(things: list[str], most: int = 5) -> str:
    shown = ", ".join(things[:most])
    return shown if len(things) <= most else f"{shown} and {len(things) - most} more"
