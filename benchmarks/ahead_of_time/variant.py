"""One kernel variant that must compile."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A call, on CPU tensors, that launches the kernels of one variant."""

    name: str
    call: Callable[[], Any]
