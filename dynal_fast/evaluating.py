"""Models in evaluation mode for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*models: nn.Module | None) -> Iterator[None]:
    """Switch models to evaluation mode; afterwards restore every submodule's training flag.

    Submodules that were created in between get the flag that their model had.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     [layer.training for layer in model]
    [False, False]
    >>> [layer.training for layer in model]
    [True, False]
    """
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
