"""Random states put back, so that what runs in between leaves no trace in a training."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_states_kept(*generators: torch.Generator) -> Iterator[None]:
    """Put back the states of Python's, NumPy's and torch's generators, and of those given.

    A training that draws its samples, augmentations, dropout masks or the seeds of its loader's
    workers from them goes on as if the block had not run.

    >>> with random_states_kept():
    ...     inside = torch.rand(2)
    >>> torch.equal(inside, torch.rand(2))
    True
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
