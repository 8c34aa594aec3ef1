"""Small data and settings that the experiment tests share."""

import torch

from dynal_fast.experiment import ExperimentData, Protocol, RunConfig, Training

PROTOCOL = Protocol(initial=12, budget=6, cycles=3)
TRAINING = Training(epochs=4, batch_size=16, learning_rate=0.01)


def blobs(samples: int = 150, test: int = 60, seed: int = 0) -> ExperimentData:
    """Three Gaussian classes in eight dimensions that overlap a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples + test) % 3
    centres = 1.5 * torch.randn(3, 8, generator=generator)
    inputs = centres[labels] + torch.randn(samples + test, 8, generator=generator)
    return ExperimentData.from_tensors(
        inputs[:samples], labels[:samples], inputs[samples:], labels[samples:], name="blobs"
    )


def grid_config(**changes: object) -> RunConfig:
    """Two strategies, two seeds, a few epochs: about a second."""
    settings: dict = {
        "model": "mlp",
        "strategies": ["random", "cod"],
        "seeds": [0, 1],
        "protocol": {"initial": 12, "budget": 6, "cycles": 2},
        "training": {"epochs": 3, "batch_size": 16},
    }
    return RunConfig.from_mapping(settings | changes)
