"""SRAAL: VAAL whose discriminator knows how sure the model is of an unlabeled sample.

B. Zhang, L. Li, S. Yang, S. Wang, Z.-J. Zha, Q. Huang. "State-Relabeling Adversarial Active
Learning", CVPR 2020; a baseline of the output discrepancy paper. The latent vector has two halves:
from one the input is reconstructed, from the other the label of a labeled sample is predicted (the
unified representation). The discriminator learns the state of a sample from both: 0 if it is
labeled, else the uncertainty of the model's output. The samples of the highest state are picked.

Here the uncertainty is that of the model as it was trained in the cycle; the authors' code trains a
network for it. Where their encoder is trained towards state 1, which is that of an uncertain
unlabeled sample, it is trained here towards state 0, so that it fools the discriminator.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.evaluating import evaluating
from dynal_fast.pool.top import top_k
from dynal_fast.strategies.autoencoder import (
    Autoencoder,
    discriminator,
    endless,
    evidence_loss,
    sampled,
    train_adversaries,
)
from dynal_fast.strategies.strategy import Select, SelectionContext


@dataclass(frozen=True)
class SRAALSettings:
    """Hyperparameters, by default those of the authors' code (github.com/Beichen1996/SRAAL).

    Attributes
    ----------
    latent
        Dimensions of each half of the latent space.
    width
        Channels of the encoder's first convolution; each of the next has twice as many.
    reconstruction, classification, adversary
        Weights of the autoencoder's losses: the squared error, cross-entropy, and fooling the
        discriminator; that of the divergence from the prior is 1.
    autoencoder_steps
        Steps of the autoencoder to each of the discriminator.
    batch_size, learning_rate
        Of both, with Adam.
    """

    latent: int = 100
    width: int = 128
    reconstruction: float = 5.0
    classification: float = 5.0
    adversary: float = 1.0
    autoencoder_steps: int = 2
    batch_size: int = 128
    learning_rate: float = 5e-4


def uncertainty(probabilities: Tensor) -> Tensor:
    """Return the uncertainty indicator of softmax outputs (section 3.2), ``(batch,)`` in [0, 1].

    ``1 - max(p) * MINVar(p) / Var(p)``, where MINVar is the smallest variance over the classes
    among outputs with the same maximum, that with all others equal. For the uniform output both are
    0, and their ratio counts as 1, which it is close by.

    Parameters
    ----------
    probabilities
        ``(batch, classes)``.

    >>> p = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.2, 0.2]], dtype=torch.float64)
    >>> uncertainty(p).round(decimals=6).tolist()
    [0.494737, 0.4]
    """
    classes = probabilities.shape[1]
    highest = probabilities.amax(1)
    variance = probabilities.var(1, correction=0)
    rest = (1 - highest) / (classes - 1)
    squares = (highest - 1 / classes).square() + (classes - 1) * (1 / classes - rest).square()
    smallest = squares / classes
    ratio = torch.where(variance > 0, smallest / variance, 1.0).clamp(max=1.0)
    return 1 - highest * ratio


def state_loss(labeled: Tensor, unlabeled: Tensor, uncertain: Tensor) -> Tensor:
    """Return the discriminator's loss: cross-entropy with 0 for labeled, else the uncertainty.

    Parameters
    ----------
    labeled, unlabeled
        ``(batch,)``: its log-odds.
    uncertain
        ``(unlabeled,)``: the indicator of the unlabeled.

    >>> odds = torch.tensor([0.3]).logit()
    >>> round(state_loss(odds, odds, torch.tensor([0.5])).item(), 6)
    1.136999
    """
    told = functional.binary_cross_entropy_with_logits(unlabeled, uncertain)
    return functional.softplus(labeled).mean() + told


class UnifiedAutoencoder(Autoencoder):
    """An autoencoder: one half of the latent vector is decoded, the other gives the label."""

    def __init__(
        self, input_shape: tuple[int, ...], latent: int, width: int, num_classes: int
    ) -> None:
        super().__init__(input_shape, 2 * latent, width, decoded=latent)
        self.classifier = nn.Sequential(
            nn.Linear(latent, 1024),
            nn.ReLU(),
            nn.Linear(1024, 256),
            nn.ReLU(),
            nn.Linear(256, num_classes),
        )

    def unify(self, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return a reconstruction and logits of the label from sampled latent vectors."""
        decoded, labeling = sampled(mean, log_variance).chunk(2, dim=1)
        return self.decoder(decoded), self.classifier(labeling)


def sraal(settings: SRAALSettings | None = None) -> Select:
    """Return the strategy: train the networks, then pick the samples of the highest state.

    There are as many steps as `vaal` takes: ``epochs × all samples / batch size``.
    """
    chosen = settings or SRAALSettings()

    def select(context: SelectionContext) -> Tensor:
        device = next(context.model.parameters()).device
        labeled, unlabeled = context.labeled, context.candidates
        steps = -(-context.epochs * (len(labeled) + len(unlabeled)) // chosen.batch_size)
        uncertain, num_classes = _uncertain(context, unlabeled)
        seed = int(torch.randint(2**62, (), generator=context.generator))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            autoencoder, critic = _train(context, uncertain, num_classes, steps, chosen, device)
            with torch.no_grad():
                odds = [
                    critic(autoencoder.encode(batch.to(device))[0]).cpu()
                    for _, batch in context.batches(unlabeled)
                ]
        scores = context.scores["sraal"] = torch.cat(odds)
        return unlabeled[top_k(scores, context.budget, generator=context.generator)]

    return select


def _uncertain(context: SelectionContext, ids: Tensor) -> tuple[Tensor, int]:
    """The indicator of the samples ``ids`` (ids,), and the number of classes."""
    found, classes = [], 0
    device = next(context.model.parameters()).device
    with evaluating(context.model), torch.no_grad():
        for _, inputs in context.batches(ids):
            logits = context.model(inputs.to(device)).float()
            classes = logits.shape[1]
            found.append(uncertainty(logits.softmax(1)).cpu())
    return torch.cat(found), classes


def _train(
    context: SelectionContext,
    uncertain: Tensor,
    num_classes: int,
    steps: int,
    settings: SRAALSettings,
    device: torch.device,
) -> tuple[UnifiedAutoencoder, nn.Module]:
    labeled, unlabeled = context.labeled, context.candidates

    def inputs(ids: Tensor) -> Tensor:
        return torch.cat([batch for _, batch in context.batches(ids)]).to(device)

    shape = inputs(labeled[:1]).shape[1:]
    autoencoder = UnifiedAutoencoder(shape, settings.latent, settings.width, num_classes).to(device)
    critic = discriminator(2 * settings.latent).to(device)
    known = endless(torch.arange(len(labeled)), settings.batch_size)
    unknown = endless(torch.arange(len(unlabeled)), settings.batch_size)

    def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ours, theirs = next(known), next(unknown)
        targets = context.labeled_targets[ours].to(device)
        return (
            inputs(labeled[ours]),
            targets,
            inputs(unlabeled[theirs]),
            uncertain[theirs].to(device),
        )

    def autoencoder_loss(batches: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        loss = torch.zeros((), device=device)
        ours, targets, theirs, _ = batches
        for batch in (ours, theirs):
            mean, log_variance = autoencoder.encode(batch)
            reconstruction, logits = autoencoder.unify(mean, log_variance)
            squares = settings.reconstruction
            evidence = evidence_loss(batch, reconstruction, mean, log_variance, 1 / squares)
            fooled = functional.softplus(critic(mean)).mean()  # towards the state of the labeled
            loss = loss + squares * evidence + settings.adversary * fooled
            if batch is ours:
                entropy = functional.cross_entropy(logits, targets)
                loss = loss + settings.classification * entropy
        return loss

    def critic_loss(batches: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        ours, _, theirs, indicator = batches
        with torch.no_grad():
            means = [autoencoder.encode(batch)[0] for batch in (ours, theirs)]
        return state_loss(critic(means[0]), critic(means[1]), indicator)

    train_adversaries(
        autoencoder,
        autoencoder_loss,
        critic,
        critic_loss,
        draw,
        steps=steps,
        autoencoder_steps=settings.autoencoder_steps,
        learning_rate=settings.learning_rate,
    )
    return autoencoder.eval(), critic.eval()
