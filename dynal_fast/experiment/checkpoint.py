"""The checkpoint of a run: one safetensors file, never a pickle."""

import json
import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.experiment.config import canonical_json
from dynal_fast.files import remove_leftovers, write_atomically


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Make ``folder``, keep other runs out of it, and delete what a killed one left half written.

    The folder itself is locked, so nothing stays behind: the system unlocks it when the process
    ends, however it ends. Windows and file systems that cannot lock a folder go without.

    Raises
    ------
    BlockingIOError
        Another run is writing to ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        remove_leftovers(folder)
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, f"another run is writing to {folder}") from error
        except OSError:  # as on some network file systems
            pass
        yield
    finally:
        os.close(descriptor)


@dataclass
class Checkpoint:
    """What a run needs in order to go on.

    ``facts`` holds plain values: the configuration, and the results and timings so far.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write to ``path`` atomically."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        metadata = {name: canonical_json(value) for name, value in self.facts.items()}
        write_atomically(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        ValueError
            The file is not a checkpoint.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
            facts = {name: json.loads(text) for name, text in metadata.items()}
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} is not a readable checkpoint: {error}") from error
        return cls(tensors, facts)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors called ``prefix.*``, without the prefix."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` under the names ``prefix.*``.

    >>> list(prefixed("model", {"bias": torch.zeros(1)}))
    ['model.bias']
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def first_difference(ours: Any, theirs: Any, name: str = "") -> str | None:
    """Say where two configurations differ first, or return None.

    >>> first_difference({"training": {"epochs": 3}}, {"training": {"epochs": 5}})
    'training.epochs is 5 there and 3 here'
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            nested = f"{name}.{key}" if name else key
            found = first_difference(ours.get(key), theirs.get(key), nested)
            if found:
                return found
        return None
    return None if ours == theirs else f"{name} is {theirs!r} there and {ours!r} here"


class RandomStreams:
    """Every generator of a run: its own two, and the global ones of torch, NumPy and Python.

    ``order`` draws the order of the training samples and ``selection`` belongs to the strategy, so
    that a strategy that draws numbers does not change how the model is trained.
    """

    def __init__(self, seed: int) -> None:
        self.order = torch.Generator().manual_seed(seed)
        self.selection = torch.Generator().manual_seed(seed + 1)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - users' strategies may draw from it
        random.seed(seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all states as tensors and plain values."""
        tensors, facts = global_random_state()
        tensors |= {"order": self.order.get_state(), "selection": self.selection.get_state()}
        return tensors, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Set all states to what :meth:`state` returned."""
        self.order.set_state(tensors["order"])
        self.selection.set_state(tensors["selection"])
        set_global_random_state(tensors, facts)


def global_random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of torch's, NumPy's and Python's global generators."""
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    version, words, gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "python": torch.tensor(words, dtype=torch.int64),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    facts = {
        "numpy": [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]],
        "python": [version, gauss],
    }
    return tensors, facts


def set_global_random_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Set the global generators to what :func:`global_random_state` returned."""
    position, has_gauss, gauss = facts["numpy"]
    np.random.set_state(  # noqa: NPY002
        {
            "bit_generator": "MT19937",
            "state": {"key": tensors["numpy"].numpy().astype(np.uint32), "pos": position},
            "has_gauss": has_gauss,
            "gauss": gauss,
        }
    )
    version, python_gauss = facts["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), python_gauss))
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{i}"], i)


@contextmanager
def own_random_state() -> Iterator[None]:
    """Give the block the global generators to seed, and the caller its own states back."""
    tensors, facts = global_random_state()
    try:
        yield
    finally:
        set_global_random_state(tensors, facts)
