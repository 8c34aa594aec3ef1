"""Models in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*models: nn.Module | None) -> Iterator[None]:
    """Evaluation mode; afterwards every submodule's flag as it was, of new ones their model's."""
    given = [model for model in models if model is not None]
    flags = {module: module.training for model in given for module in model.modules()}
    roots = [(model, model.training) for model in given]
    try:
        for model in given:
            model.eval()
        yield
    finally:
        for model, flag in roots:
            for module in model.modules():
                flags.setdefault(module, flag)
        for module, flag in flags.items():
            module.training = flag
