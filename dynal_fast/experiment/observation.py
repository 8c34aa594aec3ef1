"""Pool statistics in the loop: which are tracked, and in which epochs they see which samples."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast.experiment.checkpoint import own_random_state
from dynal_fast.experiment.config import Schedule
from dynal_fast.experiment.samples import SampleSet
from dynal_fast.models import linear_head
from dynal_fast.pool import (
    Epochs,
    EveryEpoch,
    LastEpochs,
    PoolStats,
    embedding_store,
    observe_pool,
)
from dynal_fast.pool.accelerator import Accelerator
from dynal_fast.pool.scores import ALIASES, SCORES, scores_named
from dynal_fast.pool.store import DTYPES

OBSERVATION_BATCH = 512


class PoolObserver:
    """Streams the unlabeled pool through the model in each epoch that a tracked statistic wants.

    Row i of the statistics is sample i of the data set, labeled or not, so ids never change.

    Parameters
    ----------
    tracks
        Names of the scores to track; with none, there are no statistics and nothing is observed.
    schedules
        Observed epochs of a statistic, as in :class:`RunConfig`; those of statistics that are not
        tracked are ignored, so that one table serves a whole grid of strategies.
    embeds
        Keep the embeddings of the pass after the last epoch of a cycle, for the selection.

    Raises
    ------
    ValueError
        A statistic or a schedule is not one that :class:`PoolStats` knows.
    """

    def __init__(
        self,
        samples: SampleSet,
        num_classes: int,
        tracks: tuple[str, ...],
        schedules: Mapping[str, Schedule],
        device: torch.device,
        embeds: bool = False,
    ) -> None:
        self.samples = samples
        self.embeds = embeds
        self.embeddings: Tensor | None = None
        self.accelerator = Accelerator("off")
        self.embedder = Accelerator("off")  # of passes for embeddings alone
        self.used: list[str] = []
        self._embedded = torch.zeros(len(samples), dtype=torch.bool)
        parsed = parsed_schedules(schedules)
        tracked = {ALIASES.get(name, name) for name in tracks}
        self.stats: PoolStats | None = None
        if tracks:
            self.stats = PoolStats(
                len(samples),
                num_classes,
                track=tracks,
                schedules={name: parsed[name] for name in parsed if name in tracked},
                device=device,
            )

    def observes(self, epoch: int, num_epochs: int) -> bool:
        """Return whether a tracked statistic wants this epoch."""
        return self.stats is not None and self.stats.observes(epoch, num_epochs)

    @property
    def accelerated(self) -> str | None:
        """What the passes of this cycle used, as in :class:`CycleResult`."""
        return ", ".join(dict.fromkeys(self.used)) or None

    def settled(self) -> dict[str, str | None]:
        """Return what ``"auto"`` found to pay, for the checkpoint."""
        return {name: given.settled for name, given in self._accelerators().items()}

    def repeat(self, settled: dict[str, str | None]) -> None:
        """Let ``"auto"`` go on with what :meth:`settled` returned, without a clock."""
        for name, given in self._accelerators().items():
            given.repeat(settled.get(name))

    def _accelerators(self) -> dict[str, Accelerator]:
        observer, teacher = self.accelerator, self.accelerator.of_teacher()
        return {"observer": observer, "teacher": teacher, "embedder": self.embedder}

    def drop(self, ids: Tensor) -> None:
        """Take samples that became labeled out of the statistics."""
        if self.stats is not None:
            self.stats.drop(ids)

    def begin_cycle(self, model: nn.Module, pool: Tensor, first: bool) -> float:
        """Reset the statistics over epochs; return the seconds it took.

        In the first cycle, scores that compare cycles compare with the initial model (temporal
        output discrepancy, 4.2), so its output is recorded before the first training.
        """
        self.embeddings = None
        if self.stats is None:
            return 0.0
        compares = any(score.compares_cycles for score in scores_named(self.stats.track))
        seconds = self.observe(model, pool, 1, 1) if first and compares else 0.0
        self.stats.begin_cycle()
        return seconds

    def observe(
        self,
        model: nn.Module,
        pool: Tensor,
        epoch: int,
        num_epochs: int,
        teacher: nn.Module | None = None,
    ) -> float:
        """Observe the samples ``pool`` if this epoch is wanted; return the seconds it took.

        ``teacher`` is the averaged model, where a score compares with it.
        """
        if self.stats is None or not self.stats.observes(epoch, num_epochs):
            return 0.0
        start = time.perf_counter()
        head = linear_head(model)
        if head is not None and teacher is None:
            self._observe_features(head, pool, epoch, num_epochs)
            self.used.append("off")  # there is nothing to fold
            return time.perf_counter() - start
        if self.embeds and epoch == num_epochs and len(pool):
            self._make_room(model, pool)
        observe_pool(
            model,
            self.samples.loader(pool, OBSERVATION_BATCH),
            self.stats,
            epoch=epoch,
            num_epochs=num_epochs,
            teacher=teacher,
            embeddings=self.embeddings,
            accelerate=self.accelerator,
            progress=False,
        )
        self.used.append(self.accelerator.used)
        return time.perf_counter() - start

    def _observe_features(self, head: nn.Linear, pool: Tensor, epoch: int, num_epochs: int) -> None:
        """Observe a linear head on the inputs themselves: no logit is stored."""
        assert self.stats is not None
        device, rows = head.weight.device, self.samples.source
        with torch.no_grad(), self.stats.observe(epoch, num_epochs):
            if isinstance(rows, Tensor) and rows.ndim == 2 and rows.is_contiguous():
                ids = pool.to(device)
                self.stats.update_from_features(ids, rows, head.weight, head.bias, by_id=True)
                return
            for ids in pool.split(OBSERVATION_BATCH):
                numbers, inputs = self.samples[ids]
                features = inputs.flatten(1).to(device)
                numbers = torch.as_tensor(numbers, device=device)
                self.stats.update_from_features(numbers, features, head.weight, head.bias)

    def _make_room(self, model: nn.Module, pool: Tensor) -> None:
        """Allocate the embeddings of the samples ``pool``, one row for each of the data set."""
        weight = next(model.parameters(), torch.empty(0))
        if weight.dtype not in DTYPES:
            return
        inputs = self.samples[pool[:1]][1].to(weight.device)
        self.embeddings = embedding_store(
            model, len(self.samples), dtype=weight.dtype, inputs=inputs, device=weight.device
        )
        self._embedded.fill_(False)[pool] = True

    def embedded(self, ids: Tensor) -> Tensor | None:
        """Return the embeddings of ``ids`` that the last pass wrote, or None if it saw not all."""
        if self.embeddings is None or not bool(self._embedded[ids].all()):
            return None
        return self.embeddings[ids.to(self.embeddings.device)]

    def state(self) -> dict[str, Tensor]:
        """Return the statistics as tensors for the checkpoint."""
        return {} if self.stats is None else self.stats.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Set the statistics to what :meth:`state` returned."""
        if self.stats is not None:
            self.stats.load_state_dict(tensors)


def parsed_schedules(schedules: Mapping[str, Schedule]) -> dict[str, Any]:
    """Return the schedules of a configuration as those of :class:`PoolStats`.

    Raises
    ------
    ValueError
        A statistic is unknown, or a schedule has an unknown form.

    >>> parsed_schedules({"prediction_stability": {"last": 5, "interval": 2}, "margin": "final"})
    {'prediction_stability': LastEpochs(n=5, interval=2), 'margin': LastEpochs(n=1, interval=1)}
    """
    parsed = {}
    for name, given in schedules.items():
        score = ALIASES.get(name, name)
        if score not in SCORES:
            raise ValueError(f"schedules.{name}: no such statistic; known: {', '.join(SCORES)}")
        parsed[score] = _parsed(name, given)
    return parsed


def _parsed(name: str, given: Schedule) -> Any:
    if given == "every":
        return EveryEpoch()
    if given == "final":
        return LastEpochs(1)
    try:
        if isinstance(given, dict):
            if "last" in given and given.keys() <= {"last", "interval"}:
                return LastEpochs(given["last"], given.get("interval", 1))
            if given.keys() == {"every"}:
                return EveryEpoch(given["every"])
            if given.keys() == {"epochs"}:
                return Epochs(given["epochs"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"schedules.{name}: {error}") from error
    raise ValueError(
        f'schedules.{name} must be "every", "final", {{last = n, interval = i}}, {{every = i}} or '
        f"{{epochs = [...]}}, got {given!r}"
    )


def mc_dropout_stats(
    model: nn.Module,
    samples: SampleSet,
    ids: Tensor,
    num_classes: int,
    track: tuple[str, ...],
    passes: int,
    generator: torch.Generator,
    device: torch.device,
    accelerator: Accelerator | None = None,
) -> PoolStats:
    """Return statistics over ``passes`` MC-dropout passes; row i is sample i of the data set.

    Each pass streams into the statistics: no array of passes × samples × classes exists. The
    dropout masks are drawn from ``generator``; the global generators are left as they were.
    """
    stats = PoolStats(len(samples), num_classes, track=track, device=device)
    seed = int(torch.randint(2**62, (), generator=generator))
    with own_random_state():
        torch.manual_seed(seed)
        observe_pool(
            model,
            samples.loader(ids, OBSERVATION_BATCH),
            stats,
            epoch=1,
            num_epochs=1,
            mc_passes=passes,
            accelerate=accelerator or "off",
            partial=True,
            progress=False,
        )
    return stats
