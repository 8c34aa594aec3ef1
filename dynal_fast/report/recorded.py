"""The recordings of one run, reduced to the small arrays that the pictures need."""

from dataclasses import dataclass, field

import numpy as np

from dynal_fast.report.analyses import (
    Array,
    highest_losses_found,
    informativeness,
    loss_by_rank,
    sizes,
)
from dynal_fast.report.runs import Arrays, Run
from dynal_fast.strategies import get_strategy

PORTIONS = np.array([0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 70, 100]) / 100
FOUND_PORTIONS = np.arange(5, 101, 5) / 100
BINS = 20


@dataclass(frozen=True)
class Ranking:
    """How the score of a strategy ranks the pool of its first selection, and of every selection.

    Attributes
    ----------
    scores, correct
        ``(pool,)``: of the first selection; the highest scores are picked.
    negated
        Whether ``scores`` are the negative of the strategy's score, of which it took the lowest.
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
    negated: bool
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
    gradients
        cycle → ``(samples,)`` squared norms of the output's gradient; empty in older recordings.
    """

    pool_accuracy: float
    picks_accuracy: float
    picks_share: float
    ranking: Ranking | None
    trajectories: Array
    followed: Array = field(repr=False)
    gradients: dict[int, Array] = field(default_factory=dict, repr=False)


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
    first = cycles[min(cycles)]
    picked = np.isin(first["ids"], first["picks"])
    try:
        ranking = _ranking(run.result.strategy, cycles)
    except ValueError as error:
        raise ValueError(f"{run.folder}: {error}") from error
    return Recorded(
        float(first["correct"].mean()),
        float(first["correct"][picked].mean()),
        float(picked.mean()),
        ranking,
        first["trajectories"],
        first["followed_ids"],
        {
            cycle: arrays["gradient_norms"].astype(np.float64)
            for cycle, arrays in cycles.items()
            if "gradient_norms" in arrays
        },
    )


def _ranking(strategy: str, cycles: dict[int, Arrays]) -> Ranking | None:
    losses, found, means, rankings = {}, [], {}, []
    for cycle, arrays in cycles.items():
        ranked = scores_of(strategy, cycle, arrays)
        if ranked is None:
            return None
        rankings.append(ranked)
        scored = np.isfinite(ranked)
        if not scored[np.isin(arrays["ids"], arrays["picks"])].all():
            raise ValueError(f"the recorded scores of cycle {cycle} lack one of a pick")
        loss, scores = arrays["loss"][scored], ranked[scored]
        losses[cycle] = loss_by_rank(loss, scores, min(BINS, len(loss)))
        sign = -1 if takes_lowest(strategy, cycle) else 1
        means[cycle] = sign * float(scores.mean()), float(loss.mean())
        found.append(highest_losses_found(loss, scores, FOUND_PORTIONS))
    start, ranked = min(cycles), rankings[0]
    first, scored = cycles[start], np.isfinite(ranked)
    return Ranking(
        ranked[scored],
        first["correct"][scored],
        takes_lowest(strategy, start),
        float(ranked[np.isin(first["ids"], first["picks"])].min()),
        informativeness(first["correct"][scored], ranked[scored], PORTIONS),
        losses,
        np.mean(found, axis=0),
        means,
    )


def scores_of(strategy: str, cycle: int, arrays: Arrays) -> Array | None:
    """Return what a strategy ranked the pool by, ``(pool,)``, or None where it is not recorded.

    The highest are picked: a score of which the strategy takes the lowest comes negated. NaN are
    samples that it could not pick.
    """
    try:
        name = get_strategy(strategy).ranks_by or strategy
    except ValueError:  # a strategy of the user's own, in another process
        name = strategy
    scores = arrays.get(f"score.{name}")
    return -scores if scores is not None and takes_lowest(strategy, cycle) else scores


def takes_lowest(strategy: str, cycle: int) -> bool:
    """Whether a strategy picks the lowest of its scores in a cycle, as the code of TOD does."""
    return strategy == "tod_code" and cycle == 0


def pool_portions(samples: int) -> Array:
    """Return which of ``PORTIONS`` are at least ten of so many samples, bool."""
    return sizes(PORTIONS, samples) >= min(10, samples)
