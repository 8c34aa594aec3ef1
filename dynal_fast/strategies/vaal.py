"""VAAL and TA-VAAL: pick the samples that look least like labeled ones to a discriminator.

S. Sinha, S. Ebrahimi, T. Darrell. "Variational Adversarial Active Learning", ICCV 2019; a baseline
of the label dispersion and output discrepancy papers. A variational autoencoder learns a latent
space of labeled and unlabeled samples, a discriminator learns to tell the two apart there, and the
encoder learns to fool it. Neither labels nor the model of the task are used.

K. Kim, D. Park, K. I. Kim, S. Y. Chun. "Task-Aware Variational Adversarial Active Learning", CVPR
2021: the decoder and the discriminator also see the rank of a sample's loss, which a
`LossPredictor` learns beside the task.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.pool.top import top_k
from dynal_fast.strategies.autoencoder import (
    Autoencoder,
    discriminator,
    endless,
    evidence_loss,
    sampled,
    train_adversaries,
)
from dynal_fast.strategies.learned_loss import predicted_losses
from dynal_fast.strategies.strategy import Select, SelectionContext

Batch = Callable[[Tensor], Tensor]
OPTIONS = {"latent": 32, "crop": 0}  # settings that a run may change


@dataclass(frozen=True)
class VAALSettings:
    """Hyperparameters, by default those of the authors' code (github.com/sinhasam/vaal).

    Attributes
    ----------
    latent
        Dimensions of the latent space.
    width
        Channels of the encoder's first convolution; each of the next has twice as many.
    beta
        Weight of the divergence from the prior.
    adversary
        Weight of fooling the discriminator: the λ2 of the paper's eq. 5; its λ1 is 1.
    autoencoder_steps
        Steps of the autoencoder to each of the discriminator.
    batch_size, learning_rate
        Of both, with Adam.
    crop
        Side of the squares that are learned from instead of whole images, at random places; 0 takes
        whole images. The score of an image is the mean over all such squares beside each other.
    """

    latent: int = 32
    width: int = 128
    beta: float = 1.0
    adversary: float = 1.0
    autoencoder_steps: int = 2
    batch_size: int = 128
    learning_rate: float = 5e-4
    crop: int = 0


def adversarial_loss(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """Return the encoder's loss: low if the discriminator takes all for labeled (eq. 3).

    ``-E log D(z_L) - E log D(z_U)``, of the discriminator's log-odds, each ``(batch,)``.
    """
    return functional.softplus(-labeled).mean() + functional.softplus(-unlabeled).mean()


def discriminator_loss(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """Return the discriminator's loss: low if it tells labeled from unlabeled (eq. 4).

    ``-E log D(z_L) - E log (1 - D(z_U))``, of its log-odds, each ``(batch,)``.
    """
    return functional.softplus(-labeled).mean() + functional.softplus(unlabeled).mean()


def train_vaal(
    inputs: Batch,
    labeled: Tensor,
    unlabeled: Tensor,
    steps: int,
    settings: VAALSettings,
    device: torch.device,
    ranks: Tensor | None = None,
) -> tuple[Autoencoder, nn.Module]:
    """Return an autoencoder and a discriminator, trained from scratch, in evaluation mode.

    Random numbers come from torch's global generator.

    Parameters
    ----------
    inputs
        ``inputs(ids)`` gives the samples ``ids``, ``(ids, ...)``.
    labeled, unlabeled
        int64 ids; neither may be empty.
    steps
        Training steps of the discriminator.
    ranks
        ``(samples,)`` by id, for TA-VAAL: the discriminator sees them beside the mean, the decoder
        their sigmoid beside the latent vector.
    """
    seen = settings.latent + (ranks is not None)
    shape = inputs(labeled[:1]).shape[1:]
    autoencoder = Autoencoder(shape, settings.latent, settings.width, seen).to(device)
    critic = discriminator(seen).to(device)
    known, unknown = (endless(ids, settings.batch_size) for ids in (labeled, unlabeled))

    def draw() -> list[tuple[Tensor, Tensor]]:
        drawn = [next(ids) for ids in (known, unknown)]
        return [(inputs(ids).to(device), _column(ranks, ids, device)) for ids in drawn]

    def autoencoder_loss(pair: list[tuple[Tensor, Tensor]]) -> Tensor:
        loss, odds = torch.zeros((), device=device), []
        for batch, rank in pair:
            mean, log_variance = autoencoder.encode(batch)
            latent = torch.cat([sampled(mean, log_variance), rank.sigmoid()], 1)
            loss = loss + evidence_loss(
                batch, autoencoder.decoder(latent), mean, log_variance, settings.beta
            )
            odds.append(critic(torch.cat([mean, rank], 1)))
        return loss + settings.adversary * adversarial_loss(*odds)

    def critic_loss(pair: list[tuple[Tensor, Tensor]]) -> Tensor:
        with torch.no_grad():
            seen = [torch.cat([autoencoder.encode(batch)[0], rank], 1) for batch, rank in pair]
        return discriminator_loss(*map(critic, seen))

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


def _column(ranks: Tensor | None, ids: Tensor, device: torch.device) -> Tensor:
    """The ranks of ``ids`` (ids, 1), or (ids, 0) without ranks."""
    if ranks is None:
        return torch.empty(len(ids), 0, device=device)
    return ranks[ids][:, None].to(device)


def vaal(settings: VAALSettings | None = None) -> Select:
    """Return the strategy: train both networks, then pick the samples least likely labeled.

    As in the authors' code, there is one step for each step of the task's training:
    ``epochs × all samples / batch size``.
    """
    return _least_like_labeled("vaal", settings or VAALSettings())


def ta_vaal(settings: VAALSettings | None = None) -> Select:
    """Return TA-VAAL's strategy, by default with one step of either network in turn.

    The ranks are the predicted losses of the model as it was trained; the authors draw them at
    random in their first iteration.
    """
    return _least_like_labeled("ta_vaal", settings or replace(VAALSettings(), autoencoder_steps=1))


def random_crops(images: Tensor, side: int) -> Tensor:
    """Return a square of each image ``(batch, channels, height, width)``, at random places.

    Smaller where the image is smaller; with ``side`` 0 the images themselves. The places come from
    torch's global generator.

    >>> random_crops(torch.zeros(2, 3, 9, 5), 6).shape
    torch.Size([2, 3, 6, 5])
    """
    if side == 0:
        return images
    height, width = (min(side, size) for size in images.shape[2:])
    tops = torch.randint(images.shape[2] - height + 1, (len(images),)).tolist()
    lefts = torch.randint(images.shape[3] - width + 1, (len(images),)).tolist()
    crops = zip(images, tops, lefts, strict=True)
    return torch.stack(
        [image[:, top : top + height, left : left + width] for image, top, left in crops]
    )


def tiles(images: Tensor, side: int) -> Iterator[Tensor]:
    """Yield the squares of images that cover them, spread evenly; they overlap where they must.

    >>> [float(tile[0, 0, 0, 0]) for tile in tiles(torch.arange(5.0).reshape(1, 1, 1, 5), 2)]
    [0.0, 2.0, 3.0]
    """
    if side == 0:
        yield images
        return
    height, width = (min(side, size) for size in images.shape[2:])
    for top in _starts(images.shape[2], height):
        for left in _starts(images.shape[3], width):
            yield images[:, :, top : top + height, left : left + width]


def _starts(size: int, side: int) -> list[int]:
    count = -(-size // side)
    return [round(i * (size - side) / max(1, count - 1)) for i in range(count)]


def _least_like_labeled(name: str, settings: VAALSettings) -> Select:
    def select(context: SelectionContext) -> Tensor:
        options = context.strategy.options
        changed = {
            key: int(options[key])
            for key, usual in OPTIONS.items()
            if options.get(key, usual) != usual
        }
        chosen = replace(settings, **changed)
        if chosen.latent < 1 or chosen.crop < 0:
            raise ValueError(
                f"{context.strategy.name}: latent must be at least 1 and crop at least 0, got "
                f"{chosen.latent} and {chosen.crop}"
            )
        device = next(context.model.parameters()).device
        labeled, unlabeled = context.labeled, context.candidates
        steps = -(-context.epochs * (len(labeled) + len(unlabeled)) // chosen.batch_size)

        def inputs(ids: Tensor) -> Tensor:
            return torch.cat(
                [random_crops(batch, chosen.crop) for _, batch in context.batches(ids)]
            )

        ranks = None
        if name == "ta_vaal":
            everyone = torch.cat([labeled, unlabeled])
            ranks = torch.zeros(int(everyone.max()) + 1)
            ranks[everyone] = predicted_losses(context, everyone)
        seed = int(torch.randint(2**62, (), generator=context.generator))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            trained = train_vaal(inputs, labeled, unlabeled, steps, chosen, device, ranks)
            autoencoder, critic = trained
            odds = []
            with torch.no_grad():
                for ids, batch in context.batches(unlabeled):
                    of_crops = []
                    for part in tiles(batch, chosen.crop):
                        mean = autoencoder.encode(part.to(device))[0]
                        seen = torch.cat([mean, _column(ranks, ids.cpu(), device)], 1)
                        of_crops.append(critic(seen).cpu())
                    odds.append(torch.stack(of_crops).mean(0))
        scores = context.scores[name] = -torch.cat(odds)
        least = top_k(scores, context.budget, generator=context.generator)
        return unlabeled[least]

    return select
