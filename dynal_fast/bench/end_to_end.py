"""What a user waits for: an epoch of observing the pool, and a whole active-learning cycle."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast import EveryEpoch, PoolImages, PoolStats, farthest_first, observe_pool
from dynal_fast.bench.cases import TraversalCase
from dynal_fast.bench.competitors.base import Size
from dynal_fast.bench.competitors.loops import blas_loop
from dynal_fast.experiment.models import embed_samples
from dynal_fast.measured import measured
from dynal_fast.models import LeNet

TRACK = ("prediction_stability", "label_dispersion", "margin")
CLASSES = 10


def epoch_ways(n: int, batch: int, device: str) -> dict[str, Callable[[], None]]:
    """Two ways through an epoch over ``n`` images: LeNet's bare forward, and `observe_pool`."""
    model = LeNet((1, 28, 28), CLASSES).to(device).eval()
    pool = PoolImages(_images(n), mean=0.5, std=0.25, batch_size=batch, device=device)
    stats = PoolStats(
        n, CLASSES, track=TRACK, schedules={name: EveryEpoch() for name in TRACK}, device=device
    )

    def bare() -> None:
        with torch.no_grad():
            for _, images in pool:
                model(images)

    def observed() -> None:
        observe_pool(model, pool, stats, epoch=1, num_epochs=1, progress=False)

    return {"bare forward": bare, "observe_pool": observed}


def observing(n: int, batch: int, repeats: int, device: str) -> dict[str, Any]:
    """Median seconds of both ways.

    They take turns, so that whatever else the machine does meets both; the first turn warms up.
    """
    ways = epoch_ways(n, batch, device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            seconds[name].append(_seconds(work, device))
    kept = {name: values[1:] for name, values in seconds.items()}
    return {
        "parts": {name: statistics.median(values) for name, values in kept.items()},
        "spread": {name: [min(values), max(values)] for name, values in kept.items()},
    }


def cycle(
    with_package: bool, n: int, labeled: int, k: int, epochs: int, device: str
) -> dict[str, Any]:
    """Seconds of the parts of one cycle, and the peak memory beyond model and images.

    Train LeNet on ``labeled`` images for ``epochs``, observing the other n after each; score them
    by prediction stability; pick ``k`` farthest first from the embeddings. Without the package:
    a history of probabilities and the BLAS loop, the strong baseline.
    """
    torch.manual_seed(0)
    model = LeNet((1, 28, 28), CLASSES).to(device)
    images = _images(n + labeled)
    pool = PoolImages(images[:n], mean=0.5, std=0.25, batch_size=512, device=device)
    train = PoolImages(images[n:], mean=0.5, std=0.25, batch_size=128, device=device)
    labels = torch.randint(CLASSES, (labeled,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    parts = {"train": 0.0, "observe": 0.0, "score": 0.0, "embed": 0.0, "pick": 0.0}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        answer = []
        parts[part] += _seconds(lambda: answer.append(work()), device)
        return answer[0]

    def train_epoch() -> None:
        model.train()
        for ids, batch in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[ids]).backward()
            optimizer.step()

    def remember() -> Tensor:
        model.eval()
        with torch.no_grad():
            return torch.cat([torch.softmax(model(batch), dim=1) for _, batch in pool])

    with measured(torch.device(device)) as step:
        history: list[Tensor] = []
        if with_package:
            every = {"prediction_stability": EveryEpoch()}
            stats = PoolStats(
                n, CLASSES, track=("prediction_stability",), schedules=every, device=device
            )
        for epoch in range(1, epochs + 1):
            timed("train", train_epoch)
            if with_package:
                timed(
                    "observe",
                    lambda epoch=epoch: observe_pool(  # type: ignore[misc]
                        model, pool, stats, epoch=epoch, num_epochs=epochs, progress=False
                    ),
                )
            else:
                history.append(timed("observe", remember))
        if with_package:
            timed("score", lambda: stats.score("prediction_stability"))
        else:
            timed("score", lambda: torch.stack(history).var(dim=0, correction=0).sum(1))
        features = timed(
            "embed",
            lambda: tuple(
                embed_samples(model, source, len(source.images), torch.device(device))
                for source in (pool, train)
            ),
        )
        if with_package:
            timed("pick", lambda: farthest_first(features[0], k, features[1], progress=False))
        else:
            case = TraversalCase("embeddings", n, 512, k, labeled)
            timed("pick", lambda: blas_loop(case, features)(Size(k, labeled)))
    return {"parts": parts, "memory_bytes": step.peak_extra_bytes}


def _images(n: int) -> Tensor:
    """Random grey images (n, 1, 28, 28): what is measured does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
