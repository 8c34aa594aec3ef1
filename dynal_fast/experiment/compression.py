"""Compression: how much of a labeled set a strategy can leave out before the model gets worse.

Section 2 of "Deep Active Learning over the Long Tail".
"""

import dataclasses
import time
from typing import Any

from dynal_fast.experiment.loop import ActiveLearningExperiment
from dynal_fast.experiment.runs import CycleResult, CycleTiming
from dynal_fast.experiment.selection import selection_context
from dynal_fast.experiment.state import RunState
from dynal_fast.experiment.training import Trainer, evaluate
from dynal_fast.measured import measured
from dynal_fast.strategies.registry import checked_picks


class CompressionExperiment(ActiveLearningExperiment):
    """Train on the whole initial set, then from scratch on each share of it that is to be kept.

    Which samples are kept is the strategy's choice by the model that was trained on all of them:
    FF-Comp (Algorithm 1 of the long-tail paper) or random ones. Each share is chosen from the whole
    set, not from the previous share. The initial weights are the same in every training.

    Parameters
    ----------
    data, model, strategy, **settings
        As for :class:`ActiveLearningExperiment`; ``protocol.compress`` holds the shares.

    Raises
    ------
    ValueError
        The strategy does not select from labeled samples, or a setting needs an unlabeled pool.

    >>> from dynal_fast.experiment import Protocol, Training, load_data
    >>> experiment = CompressionExperiment(
    ...     load_data("digits"), "mlp", "farthest_first_compress",
    ...     protocol=Protocol(initial=100, compress=[0.5, 0.2]), training=Training(epochs=3))
    >>> experiment.run().labeled
    [100, 50, 20]
    """

    selects_from = "labeled"

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        refused = {
            "label maps": self.data.segments,
            "analysis": self.analysis,
            f"unsupervised {self.training.unsupervised}": self.training.unsupervised != "none",
        }
        for what, asked in refused.items():
            if asked:
                raise ValueError(f"protocol.compress has no unlabeled pool, got {what}")

    def _run_cycle(self, state: RunState) -> None:
        """Train on what is kept; ``state.model`` stays the model that was trained on everything."""
        cycle, kept_counts = len(state.cycles), self.protocol.labeled_counts()
        model = state.model if cycle == 0 else self.initial_model()
        trainer = Trainer(model, self.training, self.device)
        start = time.perf_counter()
        for epoch in range(1, self.training.epochs + 1):
            loss = self._train_epoch(trainer, state, epoch)
            self.on_epoch(cycle, epoch)
        timing = CycleTiming(cycle, time.perf_counter() - start, 0.0)
        accuracy, by_class = evaluate(model, self.data, self.batch, self.device)
        labeled_count, selected = len(state.labeled), []
        if cycle < self.protocol.selections:
            state.labeled = self.initial.sort().values
            state.targets = self.data.oracle.label(state.labeled)
            context = selection_context(self, state, state.labeled, kept_counts[cycle + 1], [])
            with measured(self.device) as selection:
                kept = checked_picks(self.strategy.select(context), context, exactly=False)
            timing = dataclasses.replace(timing, selection=selection)
            state.labeled = kept
            selected = kept.tolist()
        state.cycles.append(
            CycleResult(
                cycle,
                labeled_count,
                accuracy,
                loss,
                selected,
                by_class=by_class,
                steps=trainer.steps,
            )
        )
        state.timings.append(timing)
