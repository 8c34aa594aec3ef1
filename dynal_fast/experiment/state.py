"""A run: its setup, which is fixed, and its state, which changes from cycle to cycle."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast._version import __version__
from dynal_fast.data.inflate import PoolView, inflated_view
from dynal_fast.experiment.checkpoint import CHECKPOINT, RandomStreams, own_random_state
from dynal_fast.experiment.config import Protocol, Schedule, Training
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.determinism import (
    checked_device,
    derived_seed,
    numerics,
    weights_digest,
)
from dynal_fast.experiment.models import ModelFactory, embed_samples, model_factory
from dynal_fast.experiment.observation import PoolObserver, parsed_schedules
from dynal_fast.experiment.runs import CycleResult, CycleTiming, Request
from dynal_fast.experiment.segmentation import ImageObserver, check_segmentation
from dynal_fast.experiment.semi_supervised import Objective, TwoHeads
from dynal_fast.experiment.tables import canonical_json
from dynal_fast.models import SEGMENTATION
from dynal_fast.models.loss_prediction import LossPredicting
from dynal_fast.pool.accelerator import Accelerator, Mode
from dynal_fast.pool.mc_dropout import dropout_layers
from dynal_fast.strategies.registry import Select, Strategy, as_strategy, check_selects_from

EVALUATION_BATCH = 512


@dataclass
class RunState:
    """What changes from cycle to cycle of a run."""

    model: nn.Module
    labeled: Tensor
    targets: Any  # Tensor, or LabelMaps; None before they are taken from the oracle
    observer: PoolObserver | ImageObserver
    streams: RandomStreams
    objective: Objective | None
    cycles: list[CycleResult] = field(default_factory=list)
    timings: list[CycleTiming] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    request: Request | None = None  # the last one, where the oracle is asked


class RunSetup:
    """The fixed part of a run: its checked arguments, and what is derived from them.

    The parameters are those of :class:`~dynal_fast.experiment.loop.ActiveLearningExperiment`.
    """

    selects_from = "unlabeled"

    def __init__(
        self,
        data: ExperimentData,
        model: str | ModelFactory,
        strategy: str | Strategy | Select,
        *,
        protocol: Protocol | None = None,
        training: Training | None = None,
        schedules: dict[str, Schedule] | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        directory: str | Path | None = None,
        analysis: bool = False,
        accelerate: Mode = "off",
        on_epoch: Callable[[int, int], None] | None = None,
    ) -> None:
        self.model_name = model if isinstance(model, str) else _qualified_name(model)
        self.build_model = (
            model_factory(model, data.samples.input_shape, data.num_classes, data.segments)
            if isinstance(model, str)
            else model
        )
        self.strategy = as_strategy(strategy)
        self.seed = seed
        self.protocol = protocol or Protocol()
        self.training = training or Training()
        if bool(self.protocol.compress) != (self.selects_from == "labeled"):
            raise ValueError(
                "protocol.compress must be empty but for a CompressionExperiment, which needs it, "
                f"got {self.protocol.compress}"
            )
        check_selects_from(self.strategy, self.selects_from)
        if "loss_prediction" in self.strategy.needs and self.training.unsupervised != "none":
            raise ValueError(
                f"strategy {self.strategy.name!r} trains the model with a ranking loss, which "
                f"unsupervised={self.training.unsupervised!r} would replace: set it to 'none'"
            )
        self.schedules = dict(schedules or {})
        parsed_schedules(self.schedules)
        self.analysis = analysis
        self.accelerate: Mode = Accelerator(accelerate).mode
        if data.segments:
            check_segmentation(self.strategy, self.protocol, self.training, analysis)
        if data.oracle.asks:
            check_asking(self.strategy, self.protocol, data, analysis, directory is not None)
        # A label map is as large as thousands of labels: no larger batches than in training.
        self.batch = self.training.batch_size if data.segments else EVALUATION_BATCH
        self.device = checked_device(device)
        self.path = Path(directory) / CHECKPOINT if directory is not None else None
        self.on_epoch = on_epoch or (lambda cycle, epoch: None)
        wanted = max(self.protocol.labeled_counts())
        entries = self.protocol.entries(len(data.samples))
        if wanted > entries:
            raise ValueError(
                f"initial + cycles * budget must be at most the {entries} samples, got {wanted}"
            )
        self.given = data
        self.view: PoolView | None = None
        self.data, self.initial = self._drawn(data)
        self.initial_ids: list[int] = self.originals(self.initial).tolist()

    @functools.cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything the results depend on: a checkpoint of another configuration is refused."""
        data = self.data
        values = {
            "dynal_fast": __version__,
            "data": data.name,
            "input_shape": [len(data.samples), *data.samples.input_shape],
            "labels": data.oracle.digest(),
            "sha256": self.given.digests,
            "model": self.model_name,
            "initial_weights": weights_digest(self.initial_model()),
            "strategy": self.strategy.name,
            "options": dict(self.strategy.options),
            "seed": self.seed,
            "device": self.device.type,
            "protocol": dataclasses.asdict(self.protocol),
            "training": dataclasses.asdict(self.training),
            "schedules": self.schedules,
            "accelerate": self.accelerate,
            **numerics(),
        }
        if data.oracle.asks:
            values["classes"] = list(data.oracle.classes)
        return json.loads(canonical_json(values))

    def originals(self, ids: Tensor) -> Tensor:
        """Return the sample of the data set that each entry of the pool is a copy of."""
        return ids if self.view is None else self.view.original_ids[ids]

    def initial_model(self, purpose: str = "model") -> nn.Module:
        """Return an untrained model; its weights belong to the seed and to ``purpose``."""
        with own_random_state():
            torch.manual_seed(derived_seed(self.seed, purpose))
            model = self.build_model()
            if self.training.unsupervised == "tod-code":
                model = TwoHeads(model, self.data.samples.input_shape, self.data.num_classes)
            if "loss_prediction" in self.strategy.needs:
                options = self.strategy.options
                model = LossPredicting(
                    model,
                    self.data.samples.input_shape,
                    weight=options.get("weight", 1.0),
                    margin=options.get("margin"),
                    flow=options.get("flow", 1.0),
                )
            return model.to(self.device)

    def check_needs(self, model: nn.Module | None = None) -> None:
        """Check that a model, by default the initial one, has what the strategy needs.

        Raises
        ------
        ValueError
            It gives no embeddings, has no dropout layer, or images lack the score.
        """
        model = model or self.initial_model()
        self.observer()
        if "embeddings" in self.strategy.needs:
            one = self.data.samples.loader(torch.tensor([0]), 1)
            embed_samples(model, one, 1, self.device, self.head)
        if "mc_dropout" in self.strategy.needs and not dropout_layers(model):
            raise ValueError(
                f"strategy {self.strategy.name!r} needs dropout, and {self.model_name} has no "
                "dropout layer"
            )

    @property
    def head(self) -> str | None:
        """The layer whose input is the embedding, where it is not the last linear one."""
        return SEGMENTATION.get(self.model_name) if self.data.segments else None

    def finished(self, cycles: list[CycleResult]) -> bool:
        """Whether all cycles ran, or the error fell by ``protocol.error_reduction``."""
        reached = self.reached([cycle.accuracy for cycle in cycles])
        return reached or len(cycles) > self.protocol.selections

    def reached(self, accuracies: Sequence[float | None]) -> bool:
        """Whether the test error fell by ``protocol.error_reduction`` since the first training."""
        wanted = self.protocol.error_reduction
        known = [accuracy for accuracy in accuracies if accuracy is not None]
        return bool(wanted and known) and known[-1] - known[0] >= wanted

    def observer(self) -> PoolObserver | ImageObserver:
        """Return what observes the pool for the strategy; nothing is observed yet."""
        samples, tracks = self.data.samples, self.strategy.tracks
        if self.data.segments:
            return ImageObserver(samples, tracks, self.batch)
        embeds = "embeddings" in self.strategy.needs
        observer = PoolObserver(
            samples, self.data.num_classes, tracks, self.schedules, self.device, embeds
        )
        # All passes of the run, so that a run that is resumed decides as the one that was cut off.
        epochs = self.training.epochs
        passes = sum(observer.observes(epoch, epochs) for epoch in range(1, epochs + 1))
        observer.accelerator = Accelerator(
            self.accelerate, passes=max(1, passes * self.protocol.selections)
        )
        observer.embedder = Accelerator(self.accelerate)
        return observer

    def _drawn(self, data: ExperimentData) -> tuple[ExperimentData, Tensor]:
        """Draw the initial set, and the pool where it is inflated."""
        draw = torch.Generator().manual_seed(derived_seed(self.seed, "initial set"))
        initial = data.oracle.initial_set(self.protocol.initial, self.protocol.balanced, draw)
        if not self.protocol.inflates:
            return data, initial
        rest = unlabeled(len(data.samples), initial)
        flips, factor = self.protocol.pool_flips, self.protocol.pool_factor
        self.view = inflated_view(initial, rest, flips, factor, draw)
        return data.entries(self.view), torch.arange(len(initial))


def check_asking(
    strategy: Strategy, protocol: Protocol, data: ExperimentData, analysis: bool, is_kept: bool
) -> None:
    """Check that no setting needs labels that nobody has given yet.

    Raises
    ------
    ValueError
        Something does; the message names it.
    """
    refused = {
        "analysis": analysis,
        "compress": protocol.compress,
        "pool_flips and pool_factor": protocol.inflates,
        f"strategy {strategy.name!r}": "oracle" in strategy.needs,
    }
    for what, asked in refused.items():
        if asked:
            raise ValueError(f"{what} needs the labels of all samples, and the oracle is asked")
    if protocol.error_reduction and not len(data.test_samples):
        raise ValueError("error_reduction needs a test set, and there is no hold-out")
    if not is_kept:
        raise ValueError("directory must be given where the oracle is asked: a run goes on from it")


def unlabeled(count: int, labeled: Tensor) -> Tensor:
    """Return the ids of ``range(count)`` that are not in ``labeled``, ascending.

    >>> unlabeled(5, torch.tensor([3, 0]))
    tensor([1, 2, 4])
    """
    keep = torch.ones(count, dtype=torch.bool)
    keep[labeled] = False
    return keep.nonzero().flatten()


def _qualified_name(factory: Callable) -> str:
    return getattr(factory, "__qualname__", type(factory).__qualname__)
