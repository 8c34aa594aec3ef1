"""Scores of whole images over several outputs of each: MC-dropout passes, or a committee.

The rows of Fig. 8 of "Semi-Supervised Active Learning with Temporal Output Discrepancy": MC-Dropout
(Gal and Ghahramani 2016) and query by committee (Kuo et al. 2018, who measure the members'
disagreement by the Jensen-Shannon divergence) on the pixels of an image. An image's score is the
mean over its pixels, as that of its other scores.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.experiment.checkpoint import own_random_state
from dynal_fast.experiment.segmentation import ImageScores
from dynal_fast.pool.mc_dropout import dropout_layers
from dynal_fast.pool.scores import ALIASES


class PixelSums:
    """What several outputs of a batch of images add up to, pixel by pixel.

    ``probabilities`` and ``votes`` are ``(batch, classes, height, width)``, ``entropies``
    ``(batch, height, width)``; ``count`` is how many outputs there were.
    """

    def __init__(self, outputs: Iterable[Tensor]) -> None:
        self.count = 0
        for logits in outputs:
            softmax = logits.float().softmax(1)
            votes = torch.zeros_like(softmax).scatter_(1, softmax.argmax(1, keepdim=True), 1.0)
            if self.count == 0:
                self.probabilities, self.votes = (
                    torch.zeros_like(softmax),
                    torch.zeros_like(softmax),
                )
                self.entropies = torch.zeros_like(softmax[:, 0])
            self.probabilities += softmax
            self.votes += votes
            self.entropies += _entropy(softmax)
            self.count += 1
        if self.count == 0:
            raise ValueError("outputs must be at least one, got none")


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum(1)


def _predictive_entropy(sums: PixelSums) -> Tensor:
    return _entropy(sums.probabilities / sums.count)


def _mutual_information(sums: PixelSums) -> Tensor:
    return _predictive_entropy(sums) - sums.entropies / sums.count


def _vote_entropy(sums: PixelSums) -> Tensor:
    return _entropy(sums.votes / sums.count)


# (batch, height, width), higher selects. The mean divergence from the consensus, the Jensen-Shannon
# divergence and the mutual information of BALD are one formula.
FORMULAS: Mapping[str, Callable[[PixelSums], Tensor]] = {
    "bald": _mutual_information,
    "consensus_kl": _mutual_information,
    "predictive_entropy": _predictive_entropy,
    "vote_entropy": _vote_entropy,
}


def ensemble_scores(
    outputs: Callable[[Tensor], Iterable[Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    num_samples: int,
    track: Sequence[str],
) -> ImageScores:
    """Return the scores of the images in ``batches``, NaN of others.

    All outputs of one batch are made before the next batch is read, so that no array of all images
    and pixels exists.

    Parameters
    ----------
    outputs
        ``outputs(inputs)`` yields logits ``(batch, classes, height, width)``, one for each pass or
        member.
    batches
        ``(sample_ids, inputs)``.
    track
        Names of ``ENSEMBLE_SCORES``.
    """
    names = tuple(ALIASES.get(name, name) for name in track)
    scores = ImageScores(num_samples, names)
    with torch.no_grad():
        for ids, inputs in batches:
            sums = PixelSums(outputs(inputs))
            for name in names:
                scores.set(name, ids, FORMULAS[name](sums).mean((1, 2)))
    return scores


def mc_dropout_images(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_samples: int,
    track: Sequence[str],
    passes: int,
    seed: int,
    device: torch.device,
) -> ImageScores:
    """Return scores over ``passes`` MC-dropout passes; the masks are drawn from ``seed``.

    Batch normalisation stays in evaluation mode. The global generators are left as they were.
    """
    layers = dropout_layers(model)

    def outputs(inputs: Tensor) -> Iterable[Tensor]:
        inputs = inputs.to(device)
        return (model(inputs) for _ in range(passes))

    with evaluating(model), own_random_state():
        torch.manual_seed(seed)
        for layer in layers.values():
            layer.training = True
        return ensemble_scores(outputs, batches, num_samples, track)


def committee_images(
    members: Sequence[nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    num_samples: int,
    track: Sequence[str],
    device: torch.device,
) -> ImageScores:
    """Return scores over the outputs of the members, which are all in memory."""

    def outputs(inputs: Tensor) -> Iterable[Tensor]:
        inputs = inputs.to(device)
        return (member(inputs) for member in members)

    with evaluating(*members):
        return ensemble_scores(outputs, batches, num_samples, track)
