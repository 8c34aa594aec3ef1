"""What the pictures need of the recordings of one run, reduced to a few small arrays."""

from dataclasses import dataclass, field

import numpy as np

from dynal_fast.acquisition.scores import ALIASES
from dynal_fast.report.analyses import (
    Array,
    highest_losses_found,
    informativeness,
    loss_by_rank,
    sizes,
)
from dynal_fast.report.runs import Arrays, Run

PORTIONS = np.array([0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 70, 100]) / 100
FOUND_PORTIONS = np.arange(5, 101, 5) / 100
BINS = 20
# Strategies that rank by a score of another name.
SCORE_OF = ALIASES | {
    "mc_dropout_vote_entropy": "vote_entropy",
    "query_by_committee": "vote_entropy",
    "query_by_committee_kl": "bald",
}


@dataclass(frozen=True)
class Ranking:
    """How the score of a strategy ranks the pool of its first selection, and of every selection.

    Attributes
    ----------
    scores, correct
        ``(pool,)``: of the first selection.
    lowest_pick
        The lowest score that the first selection picked.
    accuracies
        ``(PORTIONS,)``: the model's accuracy on the highest scores of the first selection.
    losses
        cycle → ``(BINS,)``: mean real loss by rank, in nats.
    found
        ``(FOUND_PORTIONS,)``: share of the highest losses found, the mean over cycles.
    means
        cycle → mean score and mean real loss of the pool, in nats.
    """

    scores: Array
    correct: Array
    lowest_pick: float
    accuracies: Array
    losses: dict[int, Array]
    found: Array
    means: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class Recorded:
    """What one run recorded.

    Attributes
    ----------
    pool_accuracy, picks_accuracy, picks_share
        Of the first selection: the model's accuracy on the whole pool and on the picks, and how
        much of the pool these are.
    ranking
        None where the strategy ranks the pool by no score, as random and farthest-first do.
    trajectories, followed
        ``(epochs, samples)`` and ``(samples,)``: of the first training.
    """

    pool_accuracy: float
    picks_accuracy: float
    picks_share: float
    ranking: Ranking | None
    trajectories: Array
    followed: Array = field(repr=False)


def read_recorded(run: Run) -> Recorded | None:
    """Return what ``run`` recorded, or None if it recorded nothing.

    Raises
    ------
    ValueError
        A file is damaged, or is none that ``dynal-fast run --analysis`` writes.
    """
    cycles = run.recordings()
    if not cycles:
        return None
    try:
        first = cycles[min(cycles)]
        picked = np.isin(first["ids"], first["picks"])
        return Recorded(
            float(first["correct"].mean()),
            float(first["correct"][picked].mean()),
            float(picked.mean()),
            _ranking(run.result.strategy, cycles),
            first["trajectories"],
            first["followed_ids"],
        )
    except KeyError as error:
        raise ValueError(f"{run.folder}: the recordings lack {error}") from error


def _ranking(strategy: str, cycles: dict[int, Arrays]) -> Ranking | None:
    name = f"score.{SCORE_OF.get(strategy, strategy)}"
    if name not in cycles[min(cycles)]:
        return None
    losses, found, means = {}, [], {}
    for cycle, arrays in cycles.items():
        scored = np.isfinite(arrays[name])
        loss, scores = arrays["loss"][scored], arrays[name][scored]
        losses[cycle] = loss_by_rank(loss, scores, min(BINS, len(loss)))
        means[cycle] = float(scores.mean()), float(loss.mean())
        found.append(highest_losses_found(loss, scores, FOUND_PORTIONS))
    first = cycles[min(cycles)]
    scored = np.isfinite(first[name])
    scores, correct = first[name][scored], first["correct"][scored]
    return Ranking(
        scores,
        correct,
        float(first[name][np.isin(first["ids"], first["picks"])].min()),
        informativeness(correct, scores, PORTIONS),
        losses,
        np.mean(found, axis=0),
        means,
    )


def pool_portions(samples: int) -> Array:
    """Return which of ``PORTIONS`` are at least ten of so many samples, bool."""
    return sizes(PORTIONS, samples) >= min(10, samples)
