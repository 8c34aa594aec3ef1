"""The active-learning loop: train, observe, evaluate, select, label; checkpointed every cycle."""

import dataclasses
import math
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from dynal_fast.experiment import resume
from dynal_fast.experiment.analysis import AnalysisRecorder
from dynal_fast.experiment.checkpoint import RandomStreams, own_random_state, sole_run
from dynal_fast.experiment.determinism import (
    derived_seed,
    deterministic_algorithms,
    machine,
)
from dynal_fast.experiment.runs import CycleResult, CycleTiming, Request, RunResult
from dynal_fast.experiment.selection import request_of, selection_context
from dynal_fast.experiment.semi_supervised import Objective
from dynal_fast.experiment.state import RunSetup, RunState, unlabeled
from dynal_fast.experiment.training import Trainer, evaluate
from dynal_fast.measured import measured
from dynal_fast.pool import EMATeacher
from dynal_fast.strategies.registry import checked_picks


class ActiveLearningExperiment(RunSetup):
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
    accelerate
        Observe through a twin of the model, as `observe_pool` does: ``"fold"``, ``"compile"`` or
        ``"auto"``. By default scores are those of the model's own forward, bit for bit.
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

    def run(self) -> RunResult:
        """Run all cycles, or those that are left, and return the results.

        Where the oracle is asked and labels are missing, the run ends there, and ``request`` of the
        results says which they are; when they are known, running again goes on.

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
        waits_for: Request | None = None
        with own_random_state(), deterministic_algorithms():
            state = self._start()
            with nullcontext() if self.path is None else sole_run(self.path.parent):
                resume.restore(self, state)
                while not self.finished(state.cycles):
                    missing = self.data.oracle.missing(state.labeled)
                    if len(missing):
                        request = state.request or Request(0, self.initial_ids)
                        waits_for = dataclasses.replace(request, missing=missing.tolist())
                        break
                    state.targets = self.data.oracle.label(state.labeled)
                    self._run_cycle(state)
                    resume.save(self, state)
        return RunResult(
            self.strategy.name, self.seed, self.initial_ids, state.cycles, state.timings, waits_for
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

    def _start(self) -> RunState:
        model = self.initial_model()
        self.check_needs(model)
        labeled = self.initial
        observer = self.observer()
        observer.drop(labeled)
        streams = RandomStreams(derived_seed(self.seed, "run"))
        objective = None
        if self.training.unsupervised != "none":
            objective = Objective(self.training, self.initial_model("baseline"))
        here = [machine(self.device)]
        return RunState(model, labeled, None, observer, streams, objective, machines=here)

    def _run_cycle(self, state: RunState) -> None:
        cycle = len(state.cycles)
        selects = cycle < self.protocol.selections
        previous = state.model
        if cycle > 0 and self.protocol.retrain == "scratch":
            state.model = self.initial_model()
        if state.objective is not None:
            state.objective.begin_cycle(state.model, previous, first=cycle == 0)
        pool = unlabeled(len(self.data.samples), state.labeled)
        start = time.perf_counter()
        observe_seconds = 0.0
        state.observer.used = []
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
        if selects and self.protocol.error_reduction:
            selects = not self.reached([*(c.accuracy for c in state.cycles), test_accuracy])
        distinct = self.view.oracle_cost(state.labeled) if self.view is not None else None
        if selects:
            observed = [] if recorder is None else recorder.observed
            context = selection_context(self, state, pool, self.protocol.budget, observed)
            with measured(self.device) as selection:
                picks = checked_picks(self.strategy.select(context), context)
            report = context.report
            if recorder is not None and self.path is not None:
                recorder.save(self.path.parent, context, picks)
            timing = dataclasses.replace(timing, selection=selection)
            if self.data.oracle.asks:
                state.request = request_of(self, context, picks, observed)
            state.labeled = torch.cat([state.labeled, picks])
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
                state.observer.accelerated,
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
