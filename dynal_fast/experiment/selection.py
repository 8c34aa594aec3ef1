"""The context that the loop gives to a strategy: candidates, model, and passes on demand."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast.experiment.checkpoint import own_random_state
from dynal_fast.experiment.determinism import derived_seed
from dynal_fast.experiment.image_ensembles import committee_images, mc_dropout_images
from dynal_fast.experiment.models import embed_samples
from dynal_fast.experiment.observation import OBSERVATION_BATCH, PoolObserver, mc_dropout_stats
from dynal_fast.experiment.runs import Request
from dynal_fast.experiment.state import RunSetup, RunState
from dynal_fast.experiment.training import Trainer, predict
from dynal_fast.pool import PoolStats
from dynal_fast.pool.accelerator import Accelerator
from dynal_fast.strategies.committee import committee_stats
from dynal_fast.strategies.strategy import SelectionContext

MC_DROPOUT_PASSES = 10


def selection_context(
    setup: RunSetup,
    state: RunState,
    pool: Tensor,
    budget: int,
    observed: list[PoolStats],
) -> SelectionContext:
    """Return the context of the selection that follows a training of this run.

    Parameters
    ----------
    pool
        int64: the samples to select from, or, with ``protocol.subset``, to draw the candidates
        from.
    budget
        The number of picks.
    observed
        Gets the statistics over MC-dropout passes or a committee that the strategy asks for.
    """
    data, model, device = setup.data, state.model, setup.device
    needs, subset = setup.strategy.needs, setup.protocol.subset
    candidates = pool
    if subset and subset < len(pool):
        order = torch.randperm(len(pool), generator=state.streams.selection)
        candidates = pool[order[:subset]].sort().values

    def batches(ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(data.samples.loader(ids, setup.batch))

    def embeddings(ids: Tensor) -> Tensor:
        observed = state.observer.embedded(ids)
        if observed is not None:
            return observed
        loader = data.samples.loader(ids, setup.batch)
        if setup.accelerate == "off" or not isinstance(state.observer, PoolObserver):
            return embed_samples(model, loader, len(ids), device, setup.head)
        embedder = state.observer.embedder
        features = embed_samples(model, loader, len(ids), device, setup.head, embedder)
        state.observer.used.append(embedder.used)
        return features

    def mc_dropout(track: tuple[str, ...]) -> Any:
        if data.segments:
            seed = int(torch.randint(2**62, (), generator=state.streams.selection))
            of_images = batches(candidates), len(data.samples), track
            return mc_dropout_images(model, *of_images, MC_DROPOUT_PASSES, seed, device)
        accelerator = Accelerator(setup.accelerate)
        stats = mc_dropout_stats(
            model,
            data.samples,
            candidates,
            data.num_classes,
            track,
            MC_DROPOUT_PASSES,
            state.streams.selection,
            device,
            accelerator,
        )
        state.observer.used.append(accelerator.used)
        observed.append(stats)
        return stats

    def committee(members: int, track: tuple[str, ...]) -> Any:
        others = (trained_member(setup, state, member) for member in range(1, members))
        if data.segments:
            of_images = batches(candidates), len(data.samples), track
            return committee_images([model, *others], *of_images, device)
        stats = committee_stats(
            itertools.chain([model], others),
            lambda: data.samples.loader(candidates, OBSERVATION_BATCH),
            len(data.samples),
            data.num_classes,
            track=track,
            device=device,
        )
        observed.append(stats)
        return stats

    return SelectionContext(
        candidates=candidates,
        labeled=state.labeled,
        labeled_targets=state.targets,
        budget=budget,
        generator=state.streams.selection,
        cycle=len(state.cycles),
        model=model,
        strategy=setup.strategy,
        batches=batches,
        tracked=state.observer.stats,
        embedder=embeddings if "embeddings" in needs else None,
        mc_dropout_observer=mc_dropout if "mc_dropout" in needs else None,
        committee_observer=committee if "committee" in needs else None,
        oracle=data.oracle.label if "oracle" in needs else None,
        head=setup.head,
        epochs=setup.training.epochs,
    )


def ranked_scores(context: SelectionContext, observed: list[PoolStats]) -> dict[str, Tensor]:
    """Return the scores of the candidates by name, float ``(candidates,)``, on the CPU."""
    scores = dict(context.scores)
    for stats in ([context.tracked] if context.tracked is not None else []) + observed:
        for name in stats.track:
            scores[name] = stats.score(name).cpu()[context.candidates]
    return {name: given.float().cpu() for name, given in scores.items()}


def request_of(
    setup: RunSetup, context: SelectionContext, picks: Tensor, observed: list[PoolStats]
) -> Request:
    """Return what a person is asked for: the picks, with their scores and predicted classes."""
    strategy = context.strategy
    every = ranked_scores(context, observed)
    only = next(iter(every.values())) if len(every) == 1 else None
    ranked = every.get(strategy.ranks_by or strategy.name, only)
    scores: list[float] = []
    if ranked is not None:
        of_picks = ranked[torch.searchsorted(context.candidates, picks)]
        scores = of_picks.tolist() if bool(of_picks.isfinite().all()) else []
    predicted: list[int] = []
    probabilities: list[float] = []
    samples, batch = setup.data.samples, setup.batch
    for _, logits in predict(context.model, samples, picks, batch, setup.device):
        highest = logits.float().softmax(1).max(1)
        predicted += highest.indices.tolist()
        probabilities += highest.values.clamp(max=1).tolist()
    return Request(context.cycle + 1, picks.tolist(), scores, predicted, probabilities)


def trained_member(setup: RunSetup, state: RunState, member: int) -> nn.Module:
    """Return a further model of the cycle, trained on the labeled samples alone.

    Its initial weights, the order of its batches and its dropout depend on the seed of the run, the
    cycle and the number of the member alone, so a resumed run trains the same members.

    Raises
    ------
    FloatingPointError
        Its training diverged.
    """
    name = f"committee member {member} of cycle {len(state.cycles)}"
    model = setup.initial_model(name)
    trainer = Trainer(model, setup.training, setup.device)
    order = torch.Generator().manual_seed(derived_seed(setup.seed, f"{name}, order"))
    with own_random_state():
        torch.manual_seed(derived_seed(setup.seed, f"{name}, training"))
        for _ in range(setup.training.epochs):
            loss = trainer.run_epoch(setup.data.samples, state.labeled, state.targets, order)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the training loss of {name} is {loss}; a lower learning_rate may help"
                )
    return model
