"""The implementations of an operation by name, and its registration with PyTorch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")

PLACES = {"cpu": "the CPU", "cuda": "a CUDA device"}


class Backends(Generic[T]):
    """The implementations of one operation: names, loaders, and the default of each device.

    Parameters
    ----------
    loaders
        Per name a function that imports the implementation and returns it. It may raise
        ``ImportError``, where Triton is missing or too old. It is called when first needed.
    defaults
        Per device type the backend that an operation takes by itself.
    devices
        Per name the device types whose tensors it takes. One that is not named checks by itself.
    takes
        What the error messages call the input.

    Examples
    --------
    >>> backends = Backends({"cpu": lambda: abs}, {"cpu": "cpu"}, {"cpu": ("cpu",)})
    >>> backends.load("cpu")(-2)
    2
    >>> backends.check("gpu", torch.device("cpu"))
    Traceback (most recent call last):
    ValueError: backend must be one of ['cpu'], got 'gpu'
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], T]],
        defaults: Mapping[str, str],
        devices: Mapping[str, tuple[str, ...]],
        takes: str = "tensors",
    ) -> None:
        self.loaders, self.defaults, self.devices, self.takes = loaders, defaults, devices, takes
        self._loaded: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaders)

    def load(self, name: str) -> T:
        """Return the implementation ``name``, which was checked."""
        if name not in self._loaded:
            self._loaded[name] = self.loaders[name]()
        return self._loaded[name]

    def check(self, name: str, device: torch.device) -> None:
        """Raise ``ValueError`` unless the backend exists and takes tensors on ``device``."""
        if name not in self.loaders:
            raise ValueError(f"backend must be one of {sorted(self.loaders)}, got {name!r}")
        taken = self.devices.get(name, (device.type,))
        if device.type not in taken:
            places = " or ".join(PLACES[kind] for kind in taken)
            raise ValueError(f'backend "{name}" needs {self.takes} on {places}, got {device}')


def register(
    name: str,
    schema: str,
    shapes: Callable[..., Any],
    implementations: Mapping[str, Callable[..., Any]],
) -> None:
    """Make ``torch.ops.dynal_fast.<name>``, which ``torch.compile`` sees as one operator.

    ``shapes`` computes what compilers want to know: empty results (PyTorch's fake kernel).
    ``implementations``: what runs, per device type.
    """
    operator = f"dynal_fast::{name}"
    torch.library.define(operator, schema)
    torch.library.register_fake(operator, shapes)
    for device, implementation in implementations.items():
        torch.library.impl(operator, device, implementation)
