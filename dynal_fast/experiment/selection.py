"""What the loop shows a strategy: the candidates, the model, and passes over them on demand."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dynal_fast.acquisition.registry import SelectionContext
from dynal_fast.experiment.analysis import AnalysisRecorder
from dynal_fast.experiment.models import embed_samples
from dynal_fast.experiment.observation import mc_dropout_stats
from dynal_fast.pool import PoolStats

if TYPE_CHECKING:
    from dynal_fast.experiment.loop import ActiveLearningExperiment, RunState

MC_DROPOUT_PASSES = 10


def selection_context(
    experiment: "ActiveLearningExperiment",
    state: "RunState",
    pool: Tensor,
    budget: int,
    recorder: AnalysisRecorder | None = None,
) -> SelectionContext:
    """Return the context of the selection that follows a training of ``experiment``.

    Parameters
    ----------
    pool
        int64: the samples to select from, or, with ``protocol.subset``, to draw the candidates
        from.
    budget
        The number of picks.
    recorder
        Gets the statistics that the strategy asks for.
    """
    data, model, device = experiment.data, state.model, experiment.device
    needs, subset = experiment.strategy.needs, experiment.protocol.subset

    def batches(ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(data.samples.loader(ids, experiment.batch))

    def embeddings(ids: Tensor) -> Tensor:
        return embed_samples(model, batches(ids), len(ids), device, experiment.head)

    def mc_dropout(track: tuple[str, ...]) -> PoolStats:
        stats = mc_dropout_stats(
            model,
            data.samples,
            pool,
            data.num_classes,
            track,
            MC_DROPOUT_PASSES,
            state.streams.selection,
            device,
        )
        if recorder is not None:
            recorder.observed.append(stats)
        return stats

    candidates = pool
    if subset and subset < len(pool):
        order = torch.randperm(len(pool), generator=state.streams.selection)
        candidates = pool[order[:subset]].sort().values
    return SelectionContext(
        candidates=candidates,
        labeled=state.labeled,
        labeled_targets=state.targets,
        budget=budget,
        generator=state.streams.selection,
        cycle=len(state.cycles),
        model=model,
        strategy=experiment.strategy,
        batches=batches,
        tracked=state.observer.stats,
        embedder=embeddings if "embeddings" in needs else None,
        mc_dropout_observer=mc_dropout if "mc_dropout" in needs else None,
        oracle=data.oracle.label if "oracle" in needs else None,
        epochs=experiment.training.epochs,
    )
