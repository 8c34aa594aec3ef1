"""Segmentation in the loop: a class for every pixel, and a score for every image.

Semi-supervised active learning with temporal output discrepancy, section 5.3. The oracle labels
whole images, so each image has one score: the mean over its pixels.
"""

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynal_fast.data import LazyStack
from dynal_fast.data.cityscapes import IGNORED
from dynal_fast.evaluating import evaluating
from dynal_fast.experiment.config import Protocol, Training
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from dynal_fast.pool.scores import ALIASES
from dynal_fast.pool.top import top_k
from dynal_fast.strategies.registry import Strategy

VOID = -100  # what torch's cross-entropy ignores


class LabelMaps:
    """The label maps of images, decoded as they are indexed.

    ``maps[rows]`` with an int64 tensor ``(rows,)`` is int64 ``(rows, height, width)``, ``VOID``
    where a pixel counts neither for the loss nor for the metric.

    Parameters
    ----------
    maps
        uint8 ``(images, height, width)``, 255 where a pixel is void.
    ids
        The images to take, int64 ``(n,)``; by default all.
    """

    def __init__(self, maps: LazyStack, ids: Tensor | None = None) -> None:
        self.maps = maps
        self.ids = torch.arange(len(maps)) if ids is None else ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor) -> Tensor:
        decoded = torch.from_numpy(self.maps[self.ids[rows.cpu()].numpy()]).long()
        return decoded.masked_fill_(decoded == IGNORED, VOID)


class MapOracle:
    """Holds the label maps of all images and gives those of the images asked for."""

    asks = False

    def __init__(self, maps: LazyStack, num_classes: int) -> None:
        self.maps = maps
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self.maps)

    def missing(self, ids: Tensor) -> Tensor:
        """Return those of ``ids`` whose maps are not known: none."""
        return ids[:0]

    def label(self, ids: Tensor) -> LabelMaps:
        """Return the label maps of the images ``ids``, which decode as they are indexed."""
        return LabelMaps(self.maps, ids)

    def initial_set(self, size: int, balanced: bool, generator: torch.Generator) -> Tensor:
        """Draw the images that are labeled before the first training, int64 ``(size,)``.

        Raises
        ------
        ValueError
            There are fewer images, or the set is to be balanced: an image has no class.
        """
        if balanced:
            raise ValueError("balanced needs one class for each sample, got label maps")
        if size > len(self):
            raise ValueError(f"initial must be at most the {len(self)} samples, got {size}")
        return torch.randperm(len(self), generator=generator)[:size]

    def digest(self) -> str:
        """Return the SHA-256 of the maps' names and file sizes, which needs no decoding."""
        listed = [f"{path.name} {path.stat().st_size}" for path in self.maps.paths]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def class_ious(
    model: nn.Module,
    samples: Any,
    labels: LabelMaps,
    num_classes: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Return the intersection over union of each class, void pixels left out.

    float64 ``(classes,)``. Both are counted over all pixels of all images, as on the Cityscapes
    benchmark, whose metric is the mean; a class that occurs neither in the labels nor in the
    predictions has NaN.

    Parameters
    ----------
    samples
        A :class:`~dynal_fast.experiment.samples.SampleSet`; its sample i has the label map i.
    """
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    with evaluating(model), torch.no_grad():
        for ids, inputs in samples.loader(torch.arange(len(labels)), batch_size):
            predicted = model(inputs.to(device)).argmax(1).cpu()
            confusion += confusion_matrix(predicted, labels[ids.cpu()], num_classes)
    return iou_of(confusion)


def confusion_matrix(predicted: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Return the counts of pixels, int64 ``(true class, predicted class)``, void ones left out.

    >>> confusion_matrix(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, VOID]]), 2)
    tensor([[1, 1],
            [0, 0]])
    """
    counted = targets != VOID
    pairs = targets[counted] * num_classes + predicted[counted]
    return pairs.bincount(minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_of(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class of a :func:`confusion_matrix`.

    >>> iou_of(torch.tensor([[2, 1, 0], [0, 1, 0], [0, 0, 0]]))
    tensor([0.6667, 0.5000,    nan], dtype=torch.float64)
    """
    intersection = confusion.diag().double()
    union = (confusion.sum(0) + confusion.sum(1)).double() - intersection
    return intersection / union


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum(1)


def _least_confidence(probabilities: Tensor) -> Tensor:
    return 1 - probabilities.amax(1)


def _margin(probabilities: Tensor) -> Tensor:
    top = probabilities.topk(2, dim=1).values
    return top[:, 1] - top[:, 0]


# (batch, classes, height, width) probabilities -> (batch, height, width), higher selects.
PIXEL_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "entropy": _entropy,
    "least_confidence": _least_confidence,
    "margin": _margin,
}
IMAGE_SCORES = ("cod", *PIXEL_SCORES)
# Over several outputs of an image: `dynal_fast.experiment.image_ensembles` has their formulas.
ENSEMBLE_SCORES = ("bald", "consensus_kl", "predictive_entropy", "vote_entropy")


class ImageScores:
    """Scores of whole images, as :class:`~dynal_fast.pool.PoolStats` has them of samples."""

    def __init__(self, num_samples: int, track: tuple[str, ...]) -> None:
        self.track = track
        self._scores = {name: torch.full((num_samples,), torch.nan) for name in track}

    def update(self, sample_ids: Tensor, logits: Tensor, earlier_logits: Tensor | None) -> None:
        """Score a batch.

        Parameters
        ----------
        logits, earlier_logits
            ``(batch, classes, height, width)`` of the model and, for ``cod``, of the model at the
            end of the last cycle.
        """
        ids = sample_ids.cpu()
        if earlier_logits is not None:
            self._scores["cod"][ids] = dense_discrepancy(logits, earlier_logits).cpu()
        if set(self.track) & PIXEL_SCORES.keys():
            probabilities = logits.float().softmax(1)
            for name in set(self.track) & PIXEL_SCORES.keys():
                self._scores[name][ids] = PIXEL_SCORES[name](probabilities).mean((1, 2)).cpu()

    def set(self, name: str, sample_ids: Tensor, values: Tensor) -> None:
        """Set a tracked score of some images, ``(batch,)``."""
        self._scores[name][sample_ids.cpu()] = values.float().cpu()

    def score(self, name: str) -> Tensor:
        """Return the scores of all images, float32 ``(images,)``, NaN where none was observed.

        Raises
        ------
        LookupError
            The score is not tracked.
        """
        name = ALIASES.get(name, name)
        if name not in self._scores:
            raise LookupError(f"{name!r} is not tracked; tracked are {', '.join(self.track)}")
        return self._scores[name]

    def select(
        self,
        name: str,
        k: int,
        candidates: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the ids of the ``k`` candidates with the highest score, best first."""
        return top_k(self.score(name), k, candidates, generator)


class ImageObserver:
    """Observes images in the loop, as ``PoolObserver`` does samples.

    It observes only after the last epoch of a training, as no score of images is over epochs. For
    ``cod`` (eq. 5) it keeps the model at the end of the last cycle and not its outputs, which for
    2,975 images of 1,024 x 2,048 pixels and 19 classes would take 474 GB.

    Raises
    ------
    ValueError
        A score is tracked that images do not have.
    """

    def __init__(self, samples: Any, tracks: tuple[str, ...], batch_size: int) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.tracks = tuple(ALIASES.get(name, name) for name in tracks)
        unknown = [name for name in self.tracks if name not in IMAGE_SCORES]
        if unknown:
            raise ValueError(
                f"segmentation has the scores {', '.join(IMAGE_SCORES)}, not {unknown[0]!r}"
            )
        self.used: list[str] = []
        self.stats: Any = None  # ImageScores, with the methods of PoolStats that select
        self.earlier: nn.Module | None = None

    @property
    def accelerated(self) -> str | None:
        """What the passes used: the model as it is."""
        return None

    def drop(self, ids: Tensor) -> None:
        """Do nothing: the next pass leaves out the images that became labeled."""

    def begin_cycle(self, model: nn.Module, pool: Tensor, first: bool) -> float:
        """Keep ``model``, that of the end of the last cycle or the initial one, to compare with."""
        if self.tracks:
            self.stats = ImageScores(len(self.samples), self.tracks)
        if "cod" in self.tracks:
            self.earlier = copy.deepcopy(model).requires_grad_(False)
        return 0.0

    def observe(
        self,
        model: nn.Module,
        pool: Tensor,
        epoch: int,
        num_epochs: int,
        teacher: nn.Module | None = None,
    ) -> float:
        """Score the images ``pool`` after the last epoch; return the seconds it took."""
        if self.stats is None or epoch < num_epochs:
            return 0.0
        start = time.perf_counter()
        device = next(model.parameters()).device
        with evaluating(model, self.earlier), torch.no_grad():
            for ids, inputs in self.samples.loader(pool, self.batch_size):
                inputs = inputs.to(device)
                earlier = None if self.earlier is None else self.earlier(inputs).contiguous()
                self.stats.update(ids, model(inputs).contiguous(), earlier)
        return time.perf_counter() - start

    def embedded(self, ids: Tensor) -> Tensor | None:
        """Return None: a pass keeps no embeddings of images."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Return nothing: the next cycle needs only the model of this one."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Set nothing, as :meth:`state` returned nothing."""


def check_segmentation(
    strategy: Strategy, protocol: Protocol, training: Training, analysis: bool
) -> None:
    """Check that no setting needs one label for each sample.

    Raises
    ------
    ValueError
        Something does; the message names it.
    """
    refused = {
        "analysis": analysis,
        "pool_flips and pool_factor": protocol.inflates,
        "crop_padding and horizontal_flip": training.crop_padding or training.horizontal_flip,
        "unsupervised tod-code": training.unsupervised == "tod-code",
        f"strategy {strategy.name!r}": set(strategy.needs) - {"embeddings"}
        and not scored_by_ensemble(strategy),
    }
    for what, asked in refused.items():
        if asked:
            raise ValueError(f"{what} needs one label for each sample, got label maps")


def scored_by_ensemble(strategy: Strategy) -> bool:
    """Return whether the strategy's passes or committee are scored by an ensemble score."""
    alone = set(strategy.needs) <= {"mc_dropout", "committee"}
    return alone and strategy.ranks_by in ENSEMBLE_SCORES


def check_label_maps(what: str, maps: LazyStack, images: Any) -> None:
    """Check that label maps fit the images.

    Raises
    ------
    ValueError
        They are not uint8 ``(images, height, width)`` of the images' size.
    """
    expected = (len(images), *images.shape[2:])
    if maps.shape != expected or maps.dtype != np.uint8:
        raise ValueError(f"{what} must be uint8 {expected}, got {maps.dtype} {maps.shape}")
