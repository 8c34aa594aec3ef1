"""Whole active-learning cycles of four kinds, with and without the package, in parts."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast import (
    Accelerator,
    EveryEpoch,
    PoolImages,
    PoolStats,
    embedding_store,
    farthest_first,
    observe_pool,
)
from dynal_fast.bench.cases import TraversalCase
from dynal_fast.bench.competitors.base import Size
from dynal_fast.bench.competitors.loops import blas_loop
from dynal_fast.bench.end_to_end import CLASSES, grey_images, seconds_of
from dynal_fast.experiment.models import embed_samples
from dynal_fast.measured import measured
from dynal_fast.models import LeNet

WIDTH = 512  # of LeNet's embeddings, and of the features of a frozen backbone
MC_PASSES = 10
PARTS = ("train", "observe", "score", "embed", "pick")
KINDS = {
    "farthest_first": "each epoch observed, picks farthest first",
    "label_dispersion": "each epoch observed, picks by label dispersion",
    "bald": f"{MC_PASSES} passes of MC dropout, picks by BALD",
    "frozen": f"a frozen backbone's {WIDTH} features, each epoch observed, picks by stability",
}


def cycle(
    kind: str, with_package: bool, n: int, labeled: int, k: int, epochs: int, device: str
) -> dict[str, Any]:
    """Seconds of the parts of one cycle, and the peak memory that is not the training's.

    Train LeNet, or a linear head, on ``labeled`` samples for ``epochs``; observe the other n; score
    them; pick ``k``. Without the package: what loops keep, a history of outputs, and the BLAS loop
    for farthest-first, the strong baseline. With it: folded passes, which give the embeddings, too.
    The memory is that of the part with the highest peak, beyond what there was when it began, such
    as the model, the images, statistics and the store of embeddings.
    """
    run = _Cycle(kind, with_package, n, labeled, k, epochs, device)
    getattr(run, kind)()
    parts = {name: seconds for name, seconds in run.parts.items() if seconds}
    return {"parts": parts, "memory_bytes": run.peak_bytes}


class _Cycle:
    def __init__(
        self,
        kind: str,
        with_package: bool,
        n: int,
        labeled: int,
        k: int,
        epochs: int,
        device: str,
    ) -> None:
        torch.manual_seed(0)
        self.ours = with_package
        self.n, self.labeled, self.k, self.epochs, self.device = n, labeled, k, epochs, device
        self.labels = torch.randint(CLASSES, (labeled,), device=device)
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.peak_bytes = 0
        self.accelerator = Accelerator("fold")
        self.given: Any = self._features() if kind == "frozen" else self._images()

    def farthest_first(self) -> None:
        """Train, observe each epoch, score, pick farthest first among the embeddings."""
        model, pool, train = self.given
        stats, store = self._stats("prediction_stability"), None
        history: list[Tensor] = []
        for epoch in range(1, self.epochs + 1):
            self._timed("train", lambda: self._train(model, train))
            if self.ours and epoch == self.epochs:
                store = embedding_store(model, self.n, device=self.device)
            self._observe(model, pool, stats, history, epoch, store)
        self._timed("score", lambda: self._stability(stats, history))
        here = torch.device(self.device)

        def embed() -> tuple[Tensor, Tensor]:
            of_pool = store if store is not None else embed_samples(model, pool, self.n, here)
            embedder = Accelerator("fold") if self.ours else None
            of_train = embed_samples(model, train, self.labeled, here, accelerator=embedder)
            return of_pool, of_train

        features = self._timed("embed", embed)
        if self.ours:
            self._timed("pick", lambda: farthest_first(features[0], self.k, features[1]))
        else:
            case = TraversalCase("embeddings", self.n, WIDTH, self.k, self.labeled)
            self._timed("pick", lambda: blas_loop(case, features)(Size(self.k, self.labeled)))

    def label_dispersion(self) -> None:
        """Train, observe each epoch, pick the samples whose predicted label changed most."""
        model, pool, train = self.given
        stats = self._stats("label_dispersion")
        history: list[Tensor] = []
        for epoch in range(1, self.epochs + 1):
            self._timed("train", lambda: self._train(model, train))
            self._observe(model, pool, stats, history, epoch)

        def score() -> Tensor:
            if self.ours:
                return stats.score("label_dispersion")
            labels = torch.stack(history).argmax(2)
            return 1 - (labels == labels.mode(0).values).float().mean(0)

        self._pick(self._timed("score", score))

    def bald(self) -> None:
        """Train, then pass the pool with active dropout; pick by mutual information."""
        model, pool, train = self.given
        for _ in range(self.epochs):
            self._timed("train", lambda: self._train(model, train))
        stats, history = self._stats("bald"), list[Tensor]()

        def ours() -> None:
            observe_pool(
                model,
                pool,
                stats,
                epoch=1,
                num_epochs=1,
                mc_passes=MC_PASSES,
                accelerate=self.accelerator,
                progress=False,
            )

        def theirs() -> None:
            model.eval()
            for layer in model.modules():
                layer.training = isinstance(layer, nn.Dropout)
            history.extend(self._outputs(model, pool) for _ in range(MC_PASSES))

        def score() -> Tensor:
            if self.ours:
                return stats.score("bald")
            p = torch.stack(history)
            mean = p.mean(0)
            return torch.special.entr(mean).sum(1) - torch.special.entr(p).sum(2).mean(0)

        self._timed("observe", ours if self.ours else theirs)
        self._pick(self._timed("score", score))

    def frozen(self) -> None:
        """Train a linear head on features; observe all others after each epoch."""
        head, features, batches = self.given
        stats, history = self._stats("prediction_stability"), list[Tensor]()
        ids = torch.arange(self.n, device=self.device)

        def observe(epoch: int) -> None:
            if not self.ours:
                history.append(torch.softmax(head(features[ids]), dim=1))
                return
            with stats.observe(epoch, self.epochs):
                stats.update_from_features(ids, features, head.weight, head.bias, by_id=True)

        for epoch in range(1, self.epochs + 1):
            self._timed("train", lambda: self._train(head, batches))
            with torch.no_grad():
                self._timed("observe", functools.partial(observe, epoch))
        self._pick(self._timed("score", lambda: self._stability(stats, history)))

    def _features(self) -> tuple[nn.Module, Tensor, Any]:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(self.n + self.labeled, WIDTH, generator=generator).to(self.device)
        labeled = torch.arange(self.labeled, device=self.device).split(128)
        batches = [(rows, features[self.n + rows]) for rows in labeled]
        return nn.Linear(WIDTH, CLASSES).to(self.device), features[: self.n], batches

    def _images(self) -> tuple[nn.Module, PoolImages, PoolImages]:
        model = LeNet((1, 28, 28), CLASSES).to(self.device)
        images = grey_images(self.n + self.labeled)
        options: dict[str, Any] = {"mean": 0.5, "std": 0.25, "device": self.device}
        pool = PoolImages(images[: self.n], batch_size=512, **options)
        return model, pool, PoolImages(images[self.n :], batch_size=128, **options)

    def _stats(self, score: str) -> PoolStats:
        n = self.n if self.ours else 0
        schedules = {score: EveryEpoch()}
        return PoolStats(n, CLASSES, track=(score,), schedules=schedules, device=self.device)

    def _train(self, model: nn.Module, batches: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        model.train()
        for ids, batch in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), self.labels[ids]).backward()
            optimizer.step()

    def _observe(
        self,
        model: nn.Module,
        pool: PoolImages,
        stats: PoolStats,
        history: list[Tensor],
        epoch: int,
        store: Tensor | None = None,
    ) -> None:
        def ours() -> None:
            observe_pool(
                model,
                pool,
                stats,
                epoch=epoch,
                num_epochs=self.epochs,
                embeddings=store,
                accelerate=self.accelerator,
                progress=False,
            )

        def theirs() -> None:
            history.append(self._outputs(model.eval(), pool))

        self._timed("observe", ours if self.ours else theirs)

    def _outputs(self, model: nn.Module, pool: PoolImages) -> Tensor:
        with torch.no_grad():
            return torch.cat([torch.softmax(model(batch), dim=1) for _, batch in pool])

    def _stability(self, stats: PoolStats, history: list[Tensor]) -> Tensor:
        if self.ours:
            return stats.score("prediction_stability")
        return torch.stack(history).var(dim=0, correction=0).sum(1)

    def _pick(self, scores: Tensor) -> None:
        assert not math.isnan(float(scores.sum()))
        self._timed("pick", lambda: scores.topk(self.k))

    def _timed(self, part: str, work: Callable[[], Any]) -> Any:
        answer = []
        with measured(torch.device(self.device)) as step:
            self.parts[part] += seconds_of(lambda: answer.append(work()), self.device)
        if part != "train":
            self.peak_bytes = max(self.peak_bytes, step.peak_extra_bytes)
        return answer[0]
