"""The 2-D example of the long-tail paper (section 5): what each method labels, round by round."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynal_fast.experiment.config import Protocol, Training
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.loop import ActiveLearningExperiment
from dynal_fast.strategies.registry import SelectionContext, Strategy, get_strategy

METHODS = ("least_confidence", "farthest_first", "random")
SAMPLES, TEST_SAMPLES, LABELED = 200, 2000, 30
START = 2  # labeled samples at the beginning, one of each class
# Chosen here: the paper only shows three on a line. The middle one is the negative class.
CENTRES, DEVIATION = ((-3.0, 0.0), (0.0, 0.0), (3.0, 0.0)), 0.7
TRAINING = Training(epochs=40, batch_size=LABELED, optimizer="adam", learning_rate=0.1)
HIDDEN = 16
SHOWN = (START, 6, 15, 30)  # labeled samples in the pictures, as in Fig. 5
GRID = (125, 65)  # points at which a classifier is drawn
EXTENT = ((-6.2, 6.2), (-3.2, 3.2))


@dataclass(frozen=True)
class Course:
    """One method from one start.

    Attributes
    ----------
    picks
        Ids in the order of labeling, the two that it started from first.
    labeled, accuracies, gaussians, radii
        For each round: labeled samples, test accuracy, how many of the three Gaussians have a
        labeled sample, and the largest distance in the plane of a sample from a labeled one.
    regions
        Labeled samples → bool ``GRID``: where the classifier says positive, at ``SHOWN``.
    """

    method: str
    seed: int
    picks: list[int]
    labeled: list[int]
    accuracies: list[float]
    gaussians: list[int]
    radii: list[float]
    regions: dict[int, Tensor] = dataclasses.field(repr=False)


def three_gaussians(seed: int) -> tuple[ExperimentData, Tensor, Tensor]:
    """Return the data, the 200 points float32 ``(samples, 2)``, and which Gaussian each is of.

    The middle Gaussian is class 0, the two around it are class 1.

    >>> data, points, gaussian = three_gaussians(seed=0)
    >>> points.shape, gaussian[:4].tolist(), data.oracle.label(torch.arange(4)).tolist()
    (torch.Size([200, 2]), [0, 1, 2, 0], [1, 0, 1, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.arange(SAMPLES + TEST_SAMPLES) % 3
    noise = DEVIATION * torch.randn(len(gaussian), 2, generator=generator)
    points, labels = torch.tensor(CENTRES)[gaussian] + noise, (gaussian != 1).long()
    pool, test = slice(0, SAMPLES), slice(SAMPLES, None)
    data = ExperimentData.from_tensors(
        points[pool], labels[pool], points[test], labels[test], name="three Gaussians"
    )
    return data, points[pool], gaussian[pool]


def run_course(method: str, seed: int) -> Course:
    """Label up to 30 samples one at a time, starting with one of each class, as section 5 does.

    The classifier, with one hidden layer, is trained anew after each label; farthest-first
    measures distances in that layer. Every method starts from the same two samples and weights.
    """
    data, points, gaussian = three_gaussians(seed)
    strategy = get_strategy(method)
    regions: dict[int, Tensor] = {}

    def select(context: SelectionContext) -> Tensor:
        count = len(context.labeled)
        if count in SHOWN:
            with torch.no_grad():
                regions[count] = context.model.eval()(grid_points()).argmax(1).bool().view(GRID)
        return strategy.select(context)

    # One cycle more than there are labels, so that a selection sees the last model, too.
    result = ActiveLearningExperiment(
        data,
        _classifier,
        Strategy(method, select, tracks=strategy.tracks, needs=strategy.needs),
        protocol=Protocol(initial=START, balanced=True, budget=1, cycles=LABELED - START + 1),
        training=TRAINING,
        seed=seed,
    ).run()
    picks = result.initial + [i for cycle in result.cycles for i in cycle.selected]
    labeled = [count for count in result.labeled if count <= LABELED]
    return Course(
        method,
        seed,
        picks[:LABELED],
        labeled,
        result.accuracies[: len(labeled)],
        [len(gaussian[picks[:count]].unique()) for count in labeled],
        [float(torch.cdist(points, points[picks[:n]]).amin(1).max()) for n in labeled],
        regions,
    )


def run_courses(seeds: Sequence[int], methods: Sequence[str] = METHODS) -> list[Course]:
    """Return the courses of all methods from all starts; on one thread, as the work is small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [run_course(method, seed) for seed in seeds for method in methods]
    finally:
        torch.set_num_threads(threads)


def grid_points() -> Tensor:
    """Return the points of the grid, float32 ``(GRID[0] * GRID[1], 2)``."""
    xs, ys = (torch.linspace(*ends, count) for ends, count in zip(EXTENT, GRID, strict=True))
    return torch.cartesian_prod(xs, ys)


def _classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2))
