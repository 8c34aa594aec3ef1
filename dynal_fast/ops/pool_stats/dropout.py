"""Dropout of a head's features: masks that are a function of numbers, so that nothing keeps them.

Whether a feature is dropped depends on the seed, the pass, the sample and the feature alone: not on
how a pass is cut into batches, nor on threads, devices or ranks. ``reference.kept_features`` is the
definition; here are the same bits with torch, and what the compiled kernel is told.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.kmeans_plusplus.reference import mixed
from dynal_fast.ops.pool_stats.contract import STAMP_STEP

STEP = 0x9E3779B97F4A7C15  # of SplitMix64
WORD = 2**64


@dataclass(frozen=True)
class Dropout:
    """Dropout of the features of a pass.

    Each is dropped with probability ``rate`` in [0, 1), and else multiplied by ``scale``, 1 / (1 -
    ``rate``). The masks are those of ``seed``, an integer, and of the number of the pass.
    ``first_sample`` is the number of the tracker's sample 0, where several trackers share a pool.

    Raises
    ------
    ValueError
        ``rate`` is not in [0, 1), or ``seed`` not an integer in [0, 2^64).

    Examples
    --------
    >>> Dropout(0.5, seed=1).scale
    2.0
    """

    rate: float
    seed: int = 0
    first_sample: int = 0

    def __post_init__(self) -> None:
        rate, seed = self.rate, self.seed
        number = isinstance(rate, (int, float, np.floating)) and not isinstance(rate, bool)
        if not number or not 0 <= rate < 1:
            raise ValueError(f"dropout must be a rate from 0 to below 1, got {rate!r}")
        whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
        if not whole or not 0 <= seed < WORD:
            raise ValueError(f"seed must be an integer from 0 to 2^64 - 1, got {seed!r}")

    @property
    def below(self) -> int:
        """What 32 random bits are below if a feature is dropped."""
        return min(round(float(self.rate) * 2**32), 2**32 - 1)

    @property
    def scale(self) -> float:
        """What the features that are kept are multiplied by, so that their mean stays."""
        return 1.0 / (1.0 - float(self.rate))

    @property
    def start(self) -> int:
        """The key that the seed gives."""
        return _mixed_number(int(self.seed))


def native_dropout(native: Any, dropout: Dropout | None, pass_stamp: Tensor) -> Any:
    """The dropout as the compiled kernel takes it; None without one."""
    if dropout is None:
        return None
    number = int(pass_stamp) // STAMP_STEP
    key = _mixed_number((dropout.start + number * STEP) % WORD)
    return native.Dropout(key, dropout.first_sample, dropout.below, dropout.scale)


def factors(sample_ids: Tensor, width: int, dropout: Dropout, pass_stamp: Tensor) -> Tensor:
    """What the features (rows, width) of samples are multiplied by, float32: 0 or the scale.

    On the device of ``sample_ids``, which nothing waits for.
    """
    number = pass_stamp.to(sample_ids.device, torch.int64) // STAMP_STEP
    key = _mixed(number * _signed(STEP) + _signed(dropout.start))
    sample = sample_ids.to(torch.int64) + (dropout.first_sample + 1)
    row = _mixed(sample * _signed(STEP) + key)
    feature = torch.arange(1, width // 2 + 2, device=sample_ids.device)
    words = _mixed(row[:, None] + feature * _signed(STEP))
    low, high = words & 0xFFFFFFFF, _shifted(words, 32)
    kept = torch.stack([low, high], dim=2).flatten(1)[:, :width] >= dropout.below
    return kept * torch.tensor(dropout.scale, device=kept.device)


def _mixed_number(number: int) -> int:
    return int(mixed(np.array([number], dtype=np.uint64))[0])


def _signed(number: int) -> int:
    """The int64 of the same bits."""
    return number - WORD if number >= WORD // 2 else number


def _shifted(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & (2 ** (64 - bits) - 1)


def _mixed(z: Tensor) -> Tensor:
    """``mixed`` of int64 tensors, whose products wrap."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)
