"""What a user waits for in an epoch: the model's passes over the pool."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynal_fast import Accelerator, EveryEpoch, PoolImages, PoolStats, observe_pool
from dynal_fast.models import LeNet

TRACK = ("prediction_stability", "label_dispersion", "margin")
CLASSES = 10


def epoch_ways(n: int, batch: int, device: str) -> dict[str, Callable[[], None]]:
    """Ways through an epoch over ``n`` images: LeNet's bare forward, `observe_pool`, a twin."""
    model = LeNet((1, 28, 28), CLASSES).to(device).eval()
    pool = PoolImages(grey_images(n), mean=0.5, std=0.25, batch_size=batch, device=device)
    stats = PoolStats(
        n, CLASSES, track=TRACK, schedules={name: EveryEpoch() for name in TRACK}, device=device
    )

    def bare() -> None:
        with torch.no_grad():
            for _, images in pool:
                model(images)

    def observed(accelerator: Accelerator) -> None:
        observe_pool(
            model, pool, stats, epoch=1, num_epochs=1, accelerate=accelerator, progress=False
        )

    return {
        "bare forward": bare,
        "observe_pool": functools.partial(observed, Accelerator("off")),
        "observe_pool, folded": functools.partial(observed, Accelerator("fold")),
    }


def observing(n: int, batch: int, repeats: int, device: str) -> dict[str, Any]:
    """Median seconds of all ways.

    They take turns, so that whatever else the machine does meets all; the first turn warms up.
    """
    ways = epoch_ways(n, batch, device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            seconds[name].append(seconds_of(work, device))
    kept = {name: values[1:] for name, values in seconds.items()}
    return {
        "parts": {name: statistics.median(values) for name, values in kept.items()},
        "spread": {name: [min(values), max(values)] for name, values in kept.items()},
    }


def grey_images(n: int) -> Tensor:
    """Random grey images (n, 1, 28, 28): what is measured does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)


def seconds_of(work: Callable[[], Any], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
