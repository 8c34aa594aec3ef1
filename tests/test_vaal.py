"""VAAL: its objectives against NumPy, and that it picks what looks least labeled."""

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training, load_data
from dynal_fast.strategies.registry import SelectionContext, get_strategy
from dynal_fast.strategies.vaal import (
    Autoencoder,
    VAALSettings,
    adversarial_loss,
    discriminator,
    discriminator_loss,
    evidence_loss,
    train_vaal,
    vaal,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = VAALSettings(latent=4, width=4, batch_size=16)


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def test_the_objectives_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    x, reconstruction = rng.normal(size=(2, 5, 3, 4, 4))
    mean, log_variance = rng.normal(size=(2, 5, 6))
    beta, expected = 0.7, 0.0
    for i in range(5):
        expected += ((x[i] - reconstruction[i]) ** 2).sum() / 2
        for m, v in zip(mean[i], np.exp(log_variance[i]), strict=True):
            expected += beta * (m**2 + v - np.log(v) - 1) / 2
    tensors = map(torch.tensor, (x, reconstruction, mean, log_variance))
    assert evidence_loss(*tensors, beta).item() == pytest.approx(expected / 5, rel=1e-12)

    labeled, unlabeled = rng.normal(size=(2, 7))
    fooled = -np.log(sigmoid(labeled)).mean() - np.log(sigmoid(unlabeled)).mean()
    told_apart = -np.log(sigmoid(labeled)).mean() - np.log(1 - sigmoid(unlabeled)).mean()
    odds = torch.tensor(labeled), torch.tensor(unlabeled)
    assert adversarial_loss(*odds).item() == pytest.approx(fooled, rel=1e-12)
    assert discriminator_loss(*odds).item() == pytest.approx(told_apart, rel=1e-12)


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 17, 35), (2, 1, 5), (6,)]
)
def test_reconstructions_have_the_inputs_shape(shape):
    reconstruction, mean, _ = Autoencoder(shape, 3, 2)(torch.zeros(2, *shape))
    assert reconstruction.shape == (2, *shape)
    assert mean.shape == (2, 3)
    assert discriminator(3)(mean).shape == (2,)


def test_the_authors_encoder_for_32_pixels():
    """Four convolutions of 128 to 1,024 channels down to 2 x 2, then 32 latent dimensions."""
    convolutions = [m for m in Autoencoder((3, 32, 32), 32, 128).encoder if type(m) is nn.Conv2d]
    assert [m.out_channels for m in convolutions] == [128, 256, 512, 1024]
    settings = VAALSettings()
    assert Autoencoder((3, 32, 32), settings.latent, settings.width).mean.in_features == 1024 * 4


def scattered(seed=0):
    """Labeled and unlabeled samples around one centre, and some unlabeled far from it: 100-119."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(120, 6, generator=generator)
    inputs[100:] += 4
    return inputs


def context_of(inputs, budget, epochs, seed=1):
    return SelectionContext(
        candidates=torch.arange(40, 120),
        labeled=torch.arange(40),
        labeled_targets=torch.zeros(40, dtype=torch.int64),
        budget=budget,
        generator=torch.Generator().manual_seed(seed),
        cycle=0,
        model=nn.Linear(6, 2),
        strategy=get_strategy("vaal"),
        batches=lambda ids: ((part, inputs[part]) for part in ids.split(32)),
        epochs=epochs,
    )


def test_what_is_unlike_the_labeled_is_picked():
    picks = vaal(VAALSettings(latent=4, batch_size=32))(context_of(scattered(), 15, epochs=12))
    assert (picks >= 100).all()


def test_the_picks_are_those_with_the_lowest_odds_of_being_labeled():
    inputs, context = scattered(), context_of(scattered(), 5, epochs=2)
    picks = vaal(SMALL)(context)
    with torch.random.fork_rng([]):
        torch.manual_seed(
            int(torch.randint(2**62, (), generator=context_of(inputs, 5, 2).generator))
        )
        trained = train_vaal(
            lambda ids: inputs[ids], context.labeled, context.candidates, 15, SMALL,
            torch.device("cpu"),
        )  # fmt: skip
    autoencoder, critic = trained
    with torch.no_grad():
        odds = critic(autoencoder.encode(inputs[context.candidates])[0])
    assert picks.tolist() == (40 + odds.argsort()[:5]).tolist()


def test_each_network_is_trained_by_its_own_loss():
    torch.manual_seed(3)
    inputs = scattered()
    autoencoder, critic = train_vaal(
        lambda ids: inputs[ids], torch.arange(40), torch.arange(40, 120), 80,
        VAALSettings(latent=4, batch_size=16, adversary=0.0), torch.device("cpu"),
    )  # fmt: skip
    with torch.no_grad():
        odds = critic(autoencoder.encode(inputs)[0])
        reconstruction, _, _ = autoencoder(inputs)
    assert odds[:40].mean() > odds[100:].mean() + 1
    assert (reconstruction - inputs).square().mean() < inputs.square().mean() / 2
    assert not autoencoder.training
    assert not critic.training


def test_global_random_numbers_are_left_alone():
    context = context_of(scattered(), 5, epochs=1)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    vaal(SMALL)(context)
    assert torch.equal(torch.rand(3), expected)


def test_it_runs_on_images():
    run = ActiveLearningExperiment(
        load_data("digits"), "mlp", vaal(VAALSettings(width=4)),
        protocol=Protocol(initial=40, budget=10, cycles=1), training=Training(epochs=1),
    ).run()  # fmt: skip
    assert run.labeled == [40, 50]
