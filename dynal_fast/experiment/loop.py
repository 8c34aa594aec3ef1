"""The active-learning loop: train, observe, evaluate, select, label; checkpointed every cycle."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast.data.inflate import PoolView, inflated_view
from dynal_fast.experiment import resume
from dynal_fast.experiment.analysis import AnalysisRecorder
from dynal_fast.experiment.checkpoint import RandomStreams, own_random_state, sole_run
from dynal_fast.experiment.config import Protocol, Schedule, Training
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.determinism import (
    checked_device,
    derived_seed,
    deterministic_algorithms,
    machine,
)
from dynal_fast.experiment.measure import measured
from dynal_fast.experiment.models import ModelFactory, embed_samples, model_factory
from dynal_fast.experiment.observation import PoolObserver, parsed_schedules
from dynal_fast.experiment.results import CycleResult, CycleTiming, RunResult
from dynal_fast.experiment.segmentation import ImageObserver, check_segmentation
from dynal_fast.experiment.selection import selection_context
from dynal_fast.experiment.semi_supervised import Objective, TwoHeads
from dynal_fast.experiment.training import Trainer, evaluate
from dynal_fast.models import SEGMENTATION
from dynal_fast.pool import EMATeacher
from dynal_fast.pool.mc_dropout import dropout_layers
from dynal_fast.strategies.registry import (
    Select,
    Strategy,
    as_strategy,
    check_selects_from,
    checked_picks,
)

EVALUATION_BATCH = 512


@dataclass
class RunState:
    """What changes from cycle to cycle of a run."""

    model: nn.Module
    labeled: Tensor
    targets: Any  # Tensor, or LabelMaps
    observer: PoolObserver | ImageObserver
    streams: RandomStreams
    objective: Objective | None
    cycles: list[CycleResult] = field(default_factory=list)
    timings: list[CycleTiming] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)


class ActiveLearningExperiment:
    """One strategy with one seed on one data set.

    Every strategy of a seed starts from the same labeled samples and the same initial weights
    (prediction stability 4.1.2, label dispersion 4.1). The caller's global random state is left as
    it was.

    Parameters
    ----------
    data
        The samples, the oracle and the test set.
    model
        The name of a model, or a callable that builds one.
    strategy
        A registered name, a :class:`Strategy`, or a plain ``callable(context) -> indices``.
    schedules
        Observed epochs of a statistic, as in :class:`RunConfig`.
    directory
        Where the checkpoint goes; running again with the same arguments continues from it. None
        keeps nothing.
    analysis
        Write what :class:`AnalysisRecorder` records beside the checkpoint, each cycle.
    on_epoch
        Called as ``on_epoch(cycle, epoch)`` after each epoch.

    Raises
    ------
    ValueError
        An argument is out of range, or the model lacks what the strategy needs.

    >>> from dynal_fast.experiment import Protocol, Training, load_data
    >>> experiment = ActiveLearningExperiment(
    ...     load_data("digits"), "mlp", "entropy",
    ...     protocol=Protocol(initial=50, budget=25, cycles=2), training=Training(epochs=3))
    >>> experiment.run().labeled
    [50, 75, 100]
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
        self.schedules = dict(schedules or {})
        parsed_schedules(self.schedules)
        self.analysis = analysis
        if data.segments:
            check_segmentation(self.strategy, self.protocol, self.training, analysis)
        # One label map is as large as thousands of labels: as many images as train together.
        self.batch = self.training.batch_size if data.segments else EVALUATION_BATCH
        self.device = checked_device(device)
        self.path = Path(directory) / resume.CHECKPOINT if directory is not None else None
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

    def run(self) -> RunResult:
        """Run all cycles, or those that are left, and return the results.

        Raises
        ------
        ValueError
            The directory holds a checkpoint that is damaged or of another configuration, which
            includes the number of threads and the version of torch.
        FloatingPointError
            The training diverged.
        OSError
            Another run is writing to the directory, or a checkpoint could not be written; the one
            before is intact.
        """
        with own_random_state(), deterministic_algorithms():
            state = self._start()
            with nullcontext() if self.path is None else sole_run(self.path.parent):
                resume.restore(self, state)
                while not self.finished(state.cycles):
                    self._run_cycle(state)
                    resume.save(self, state)
        return RunResult(
            self.strategy.name, self.seed, self.initial_ids, state.cycles, state.timings
        )

    def check_resumes(self) -> None:
        """Check, before anything is trained, that the run can go on in its directory.

        Raises
        ------
        ValueError
            What is there is damaged, of another configuration, or without the recordings that are
            asked for.
        """
        resume.check_resumes(self)

    def finished(self, cycles: list[CycleResult]) -> bool:
        """Whether all cycles ran, or the error fell as far as asked (the long-tail paper)."""
        wanted = self.protocol.error_reduction
        reached = bool(wanted and cycles) and cycles[-1].accuracy - cycles[0].accuracy >= wanted
        return reached or len(cycles) > self.protocol.selections

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

    def originals(self, ids: Tensor) -> Tensor:
        """Return the samples of the data set that entries of the pool show."""
        return ids if self.view is None else self.view.original_ids[ids]

    def _start(self) -> RunState:
        model = self.initial_model()
        self.check_needs(model)
        labeled = self.initial
        observer = self._observer()
        observer.drop(labeled)
        streams = RandomStreams(derived_seed(self.seed, "run"))
        objective = None
        if self.training.unsupervised != "none":
            objective = Objective(self.training, self.initial_model("baseline"))
        targets = self.data.oracle.label(labeled)
        here = [machine(self.device)]
        return RunState(model, labeled, targets, observer, streams, objective, machines=here)

    @functools.cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything the results depend on: a checkpoint of another configuration is refused."""
        return resume.configuration(self)

    def _observer(self) -> PoolObserver | ImageObserver:
        samples, tracks = self.data.samples, self.strategy.tracks
        if self.data.segments:
            return ImageObserver(samples, tracks, self.batch)
        return PoolObserver(samples, self.data.num_classes, tracks, self.schedules, self.device)

    def initial_model(self, purpose: str = "model") -> nn.Module:
        """Return an untrained model; its weights belong to the seed and to ``purpose``."""
        with own_random_state():
            torch.manual_seed(derived_seed(self.seed, purpose))
            model = self.build_model()
            if self.training.unsupervised == "tod-code":
                model = TwoHeads(model, self.data.samples.input_shape, self.data.num_classes)
            return model.to(self.device)

    def check_needs(self, model: nn.Module | None = None) -> None:
        """Check that a model, by default the initial one, has what the strategy needs.

        Raises
        ------
        ValueError
            It gives no embeddings, has no dropout layer, or images lack the score.
        """
        model = model or self.initial_model()
        self._observer()
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

    def _run_cycle(self, state: RunState) -> None:
        cycle = len(state.cycles)
        selects = cycle < self.protocol.selections
        previous = state.model
        if cycle > 0 and self.protocol.retrain == "scratch":
            state.model = self.initial_model()
        if state.objective is not None:
            state.objective.begin_cycle(state.model, previous)
        pool = unlabeled(len(self.data.samples), state.labeled)
        start = time.perf_counter()
        observe_seconds = 0.0
        if selects:
            compared = previous
            if cycle == 0 and "independent_model" in self.strategy.needs:
                compared = self.initial_model("independent model")
            observe_seconds += state.observer.begin_cycle(compared, pool, first=cycle == 0)
        trainer = Trainer(state.model, self.training, self.device, state.objective)
        teacher = None
        if selects and self.strategy.needs_teacher:
            teacher = EMATeacher(state.model, self.training.ema_alpha)
            teacher.attach(trainer.optimizer)
        recorder = None
        if selects and self.analysis:
            recorder = AnalysisRecorder(self.data, pool, self.device)
        for epoch in range(1, self.training.epochs + 1):
            loss = self._train_epoch(trainer, state, epoch, pool)
            if selects:
                observe_seconds += state.observer.observe(
                    state.model,
                    pool,
                    epoch,
                    self.training.epochs,
                    None if teacher is None else teacher.model,
                )
            if recorder is not None:
                recorder.follow(state.model)
            self.on_epoch(cycle, epoch)
        timing = CycleTiming(cycle, time.perf_counter() - start - observe_seconds, observe_seconds)
        test_accuracy, by_class = evaluate(state.model, self.data, self.batch, self.device)
        labeled_count, selected = len(state.labeled), []
        report: dict[str, Any] = {}
        first = state.cycles[0].accuracy if state.cycles else test_accuracy
        if self.protocol.error_reduction and cycle:
            selects = selects and test_accuracy - first < self.protocol.error_reduction
        distinct = self.view.oracle_cost(state.labeled) if self.view is not None else None
        if selects:
            context = selection_context(self, state, pool, self.protocol.budget, recorder)
            with measured(self.device) as selection:
                picks = checked_picks(self.strategy.select(context), context)
            report = context.report
            if recorder is not None and self.path is not None:
                recorder.save(self.path.parent, context, picks)
            timing = dataclasses.replace(timing, selection=selection)
            state.labeled = torch.cat([state.labeled, picks])
            state.targets = self.data.oracle.label(state.labeled)
            state.observer.drop(picks)
            selected = self.originals(picks).tolist()
        state.cycles.append(
            CycleResult(
                cycle,
                labeled_count,
                test_accuracy,
                loss,
                selected,
                distinct,
                report,
                by_class,
                trainer.steps,
            )
        )
        state.timings.append(timing)

    def _train_epoch(
        self, trainer: Trainer, state: RunState, epoch: int, pool: Tensor | None = None
    ) -> float:
        loss = trainer.run_epoch(
            self.data.samples, state.labeled, state.targets, state.streams.order, pool
        )
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} in cycle {len(state.cycles)}, epoch {epoch}; "
                "a lower learning_rate may help"
            )
        return loss


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
