"""Which models ended near chance: their accuracies do not compare strategies."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynal_fast.experiment.runs import Grid

ABOVE_CHANCE = 0.1  # of the way from chance to no mistake, or twice chance where that is less


def near_chance(grid: "Grid") -> list[str]:
    """Return the strategies and seeds whose last model does little more than name one class.

    Segmentation is left out: its mean IoU has no such level. So are results of earlier versions,
    which do not say what chance is, and runs without a test set.
    """
    if grid.chance is None or grid.segments or not grid.evaluated:
        return []
    least = least_meaningful(grid.chance, grid.test_samples or 0)
    return [f"{run.strategy}, seed {run.seed}" for run in grid.runs if run.accuracies[-1] < least]


def least_meaningful(chance: float, test_samples: int) -> float:
    """Return the accuracy below which a model is near chance.

    Twice chance, or a tenth of the way from there to 1 where that is less, as for few classes; at
    least three standard errors above chance, which say that the difference is not the test set's.

    >>> round(least_meaningful(0.1, 10_000), 3), round(least_meaningful(0.5, 10_000), 3)
    (0.19, 0.55)
    >>> round(least_meaningful(0.01, 10_000), 3), round(least_meaningful(0.5, 100), 3)
    (0.02, 0.65)
    """
    above = min(2 * chance, chance + ABOVE_CHANCE * (1 - chance))
    error = math.sqrt(chance * (1 - chance) / test_samples) if test_samples else 0.0
    return max(above, chance + 3 * error)


def chance_note(grid: "Grid") -> str:
    """Return a warning that names the models near chance, or nothing where there are none."""
    ended = near_chance(grid)
    if not ended:
        return ""
    named = "; ".join([*ended[:4], *([f"and {len(ended) - 4} more"] if len(ended) > 4 else [])])
    return (
        f"Warning: {len(ended)} of {len(grid.runs)} runs ended near chance "
        f"({100 * (grid.chance or 0):.3g} %), so their accuracies say little about the "
        f"strategies: {named}. More optimizer steps may help: more epochs, or smaller batches."
    )
