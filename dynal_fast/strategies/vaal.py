"""VAAL: picks the samples that look least like labeled ones to a discriminator.

S. Sinha, S. Ebrahimi, T. Darrell. "Variational Adversarial Active Learning", ICCV 2019; a baseline
of the label dispersion and output discrepancy papers. A variational autoencoder learns a latent
space of labeled and unlabeled samples, a discriminator learns to tell the two apart there, and the
encoder learns to fool it. Neither labels nor the model of the task are used.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.pool.top import top_k
from dynal_fast.strategies.strategy import Select, SelectionContext

Batch = Callable[[Tensor], Tensor]


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
    """

    latent: int = 32
    width: int = 128
    beta: float = 1.0
    adversary: float = 1.0
    autoencoder_steps: int = 2
    batch_size: int = 128
    learning_rate: float = 5e-4


class Autoencoder(nn.Module):
    """A variational autoencoder of images ``(channels, height, width)`` or of vectors.

    Convolutions halve images up to four times, as in the authors' code, and the decoder mirrors the
    encoder, so that any size fits. Other inputs go through two linear layers.

    >>> reconstruction, mean, log_variance = Autoencoder((3, 9, 12), 5, 4)(torch.zeros(2, 3, 9, 12))
    >>> reconstruction.shape, mean.shape, log_variance.shape
    (torch.Size([2, 3, 9, 12]), torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def __init__(self, input_shape: tuple[int, ...], latent: int, width: int) -> None:
        super().__init__()
        if len(input_shape) == 3:
            self.encoder, self.decoder, features = _convolutional(input_shape, latent, width)
        else:
            self.encoder, self.decoder, features = _linear(input_shape, latent)
        self.mean = nn.Linear(features, latent)
        self.log_variance = nn.Linear(features, latent)

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the latent vector, each ``(batch, latent)``."""
        features = self.encoder(inputs)
        return self.mean(features), self.log_variance(features)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction from a sampled latent vector, its mean and log-variance."""
        mean, log_variance = self.encode(inputs)
        sampled = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(sampled), mean, log_variance


def _linear(input_shape: tuple[int, ...], latent: int) -> tuple[nn.Module, nn.Module, int]:
    size = math.prod(input_shape)
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(size, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, size)
    )
    return encoder, nn.Sequential(decoder, nn.Unflatten(1, input_shape)), 256


def _convolutional(
    input_shape: tuple[int, ...], latent: int, width: int
) -> tuple[nn.Module, nn.Module, int]:
    channels, height, breadth = input_shape
    halvings = min(4, int(math.log2(min(height, breadth))))
    sizes = [(height >> i, breadth >> i) for i in range(halvings + 1)]
    counts = [channels, *(width << i for i in range(halvings))]
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for before, after in itertools.pairwise(counts):
        convolution = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
        down += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    for i in reversed(range(halvings)):
        odd = (sizes[i][0] % 2, sizes[i][1] % 2)
        up.append(nn.ConvTranspose2d(counts[i + 1], counts[i], 4, 2, 1, odd, bias=i == 0))
        if i > 0:
            up += [nn.BatchNorm2d(counts[i]), nn.ReLU()]
    smallest = (counts[-1], *sizes[-1])
    features = math.prod(smallest)
    encoder = nn.Sequential(*down, nn.Flatten())
    first = nn.Sequential(nn.Linear(latent, features), nn.Unflatten(1, smallest))
    return encoder, nn.Sequential(first, *up), features


def discriminator(latent: int) -> nn.Module:
    """Return a network from latent vectors to the log-odds that they are of labeled samples."""
    layers: list[nn.Module] = [nn.Linear(latent, 512), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, 1), nn.Flatten(0))


def evidence_loss(
    inputs: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, beta: float
) -> Tensor:
    """Return the mean over the batch of minus the evidence lower bound (eq. 1), up to a constant.

    ``1/2 ||x - x'||^2 + beta * KL(N(mean, variance) || N(0, 1))``: the likelihood is a Gaussian
    with unit variance. (The authors' code takes the mean of the squares over pixels, but the sum of
    the divergences over the batch, which gives the divergence thousands of times the weight.)

    >>> one = torch.ones(1, 2)
    >>> evidence_loss(one, 0 * one, one, 0 * one, beta=2.0)
    tensor(3.)
    """
    squares = 0.5 * (inputs - reconstruction).square().flatten(1).sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return (squares + beta * divergence).mean()


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
    """
    autoencoder = Autoencoder(inputs(labeled[:1]).shape[1:], settings.latent, settings.width)
    autoencoder, critic = autoencoder.to(device), discriminator(settings.latent).to(device)
    rate = settings.learning_rate
    of_autoencoder = torch.optim.Adam(autoencoder.parameters(), lr=rate)
    of_critic = torch.optim.Adam(critic.parameters(), lr=rate)
    known, unknown = (_endless(ids, settings.batch_size) for ids in (labeled, unlabeled))
    for _ in range(steps):
        for _ in range(settings.autoencoder_steps):
            batches = [inputs(next(ids)).to(device) for ids in (known, unknown)]
            loss = torch.zeros((), device=device)
            odds = []
            for batch in batches:
                reconstruction, mean, log_variance = autoencoder(batch)
                loss = loss + evidence_loss(
                    batch, reconstruction, mean, log_variance, settings.beta
                )
                odds.append(critic(mean))
            loss = loss + settings.adversary * adversarial_loss(*odds)
            of_autoencoder.zero_grad(set_to_none=True)
            loss.backward()
            of_autoencoder.step()
        with torch.no_grad():
            means = [autoencoder.encode(batch)[0] for batch in batches]
        loss = discriminator_loss(*(critic(mean) for mean in means))
        of_critic.zero_grad(set_to_none=True)
        loss.backward()
        of_critic.step()
    return autoencoder.eval(), critic.eval()


def _endless(ids: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield shuffled batches of ``ids`` forever; the incomplete last one of a pass is dropped."""
    while True:
        whole = max(len(ids) // batch_size, 1)
        yield from ids[torch.randperm(len(ids))].split(batch_size)[:whole]


def vaal(settings: VAALSettings | None = None) -> Select:
    """Return the strategy: train both networks, then pick the samples least likely labeled.

    As in the authors' code, there is one step for each step of the task's training:
    ``epochs × all samples / batch size``.
    """
    chosen = settings or VAALSettings()

    def select(context: SelectionContext) -> Tensor:
        device = next(context.model.parameters()).device
        labeled, unlabeled = context.labeled, context.candidates
        steps = -(-context.epochs * (len(labeled) + len(unlabeled)) // chosen.batch_size)

        def inputs(ids: Tensor) -> Tensor:
            return torch.cat([batch for _, batch in context.batches(ids)])

        seed = int(torch.randint(2**62, (), generator=context.generator))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            trained = train_vaal(inputs, labeled, unlabeled, steps, chosen, device)
            autoencoder, critic = trained
            with torch.no_grad():
                odds = [
                    critic(autoencoder.encode(batch.to(device))[0]).cpu()
                    for _, batch in context.batches(unlabeled)
                ]
        scores = context.scores["vaal"] = -torch.cat(odds)
        least = top_k(scores, context.budget, generator=context.generator)
        return unlabeled[least]

    return select
