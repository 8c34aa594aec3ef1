"""The networks of the adversarial strategies: a variational autoencoder and a discriminator."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A variational autoencoder of images ``(channels, height, width)`` or of vectors.

    Convolutions halve images up to four times, as in VAAL's code, and the decoder mirrors the
    encoder, so that any size fits. Other inputs go through two linear layers.

    Parameters
    ----------
    input_shape
        Of one sample.
    latent
        Dimensions of the latent vector.
    width
        Channels of the first convolution; each of the next has twice as many.
    decoded
        Numbers that the decoder takes, by default as many as the latent vector has.

    >>> reconstruction, mean, log_variance = Autoencoder((3, 9, 12), 5, 4)(torch.zeros(2, 3, 9, 12))
    >>> reconstruction.shape, mean.shape, log_variance.shape
    (torch.Size([2, 3, 9, 12]), torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def __init__(
        self, input_shape: tuple[int, ...], latent: int, width: int, decoded: int | None = None
    ) -> None:
        super().__init__()
        decoded = latent if decoded is None else decoded
        if len(input_shape) == 3:
            self.encoder, self.decoder, features = _convolutional(input_shape, decoded, width)
        else:
            self.encoder, self.decoder, features = _linear(input_shape, decoded)
        self.mean = nn.Linear(features, latent)
        self.log_variance = nn.Linear(features, latent)

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the latent vector, each ``(batch, latent)``."""
        features = self.encoder(inputs)
        return self.mean(features), self.log_variance(features)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction from a sampled latent vector, its mean and log-variance."""
        mean, log_variance = self.encode(inputs)
        return self.decoder(sampled(mean, log_variance)), mean, log_variance


def sampled(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return latent vectors ``(batch, latent)`` drawn from their normal distributions."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


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


def endless(ids: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield shuffled batches of ``ids`` forever; the incomplete last one of a pass is dropped."""
    while True:
        whole = max(len(ids) // batch_size, 1)
        yield from ids[torch.randperm(len(ids))].split(batch_size)[:whole]


def train_adversaries(
    autoencoder: nn.Module,
    autoencoder_loss: Callable[[Any], Tensor],
    critic: nn.Module,
    critic_loss: Callable[[Any], Tensor],
    draw: Callable[[], Any],
    *,
    steps: int,
    autoencoder_steps: int,
    learning_rate: float,
) -> None:
    """Train an autoencoder and a discriminator in turn with Adam, each by its own loss.

    Parameters
    ----------
    autoencoder_loss, critic_loss
        Of what ``draw()`` returns: a batch of labeled and one of unlabeled samples.
    steps
        Of the discriminator, each on the last batches of the autoencoder's steps before it.
    autoencoder_steps
        To each of the discriminator, each on new batches.
    """
    of_autoencoder = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate)
    of_critic = torch.optim.Adam(critic.parameters(), lr=learning_rate)
    for _ in range(steps):
        for _ in range(autoencoder_steps):
            batches = draw()
            _descend(of_autoencoder, autoencoder_loss(batches))
        _descend(of_critic, critic_loss(batches))


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
