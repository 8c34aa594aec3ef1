"""The checkpoint of a run: one safetensors file, never a pickle."""

import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.experiment.tables import canonical_json
from dynal_fast.files import remove_leftovers, write_atomically
from dynal_fast.plain import Between, checked, shown, table

CHECKPOINT = "checkpoint.safetensors"
FORMAT = 2  # of checkpoints and recordings; the first had no checksum
_BLANK = "0" * 64  # stands for the checksum while the checksum is computed
_CHECKSUM = re.compile(rb'(?<=\\"checksum\\":\\")[0-9a-f]{64}(?=\\")')


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Make and lock ``folder``, and delete unfinished files that a killed run left there.

    The lock is on the folder itself, so no lock file can be left behind: the system releases it
    when the process ends. On Windows, and on file systems without such locks, nothing is locked.

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
    """What a run needs to resume.

    ``facts`` holds plain values: the configuration, and the results and timings so far. The file
    contains its own SHA-256, computed with zeros in its place, so any changed bit is noticed. Files
    of format 1, of earlier versions, have no checksum and are read without one.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write to ``path`` atomically."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        facts = self.facts | {"format": FORMAT, "checksum": _BLANK}
        # One entry: safetensors writes several in no fixed order.
        blank = save(tensors, {"dynal_fast": canonical_json(facts)})
        digest = hashlib.sha256(blank).hexdigest()
        write_atomically(path, _CHECKSUM.sub(digest.encode(), blank, count=1))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        ValueError
            The file is not a checkpoint, or was changed since it was written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        content = path.read_bytes()
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        found = _CHECKSUM.search(header)
        try:
            if found:
                _check_digest(content, 8 + found.start(), found.group().decode())
            tensors = load(content)  # checks the header, too
            metadata = json.loads(header).get("__metadata__") or {}
            facts = {name: json.loads(text) for name, text in metadata.items()}
            if "dynal_fast" in facts:
                facts = table(facts["dynal_fast"], "the metadata")
                if not found or facts.pop("checksum", None) != found.group().decode():
                    raise ValueError("it is damaged, its checksum is missing")
            written = facts.pop("format", 1)
            if written != (FORMAT if found else 1):
                raise ValueError(f"its format is {shown(written)}, not {FORMAT}")
        except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}" if not str(error) else str(error)
            raise ValueError(f"{path} is not a readable checkpoint: {reason}") from error
        return cls(tensors, facts)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors called ``prefix.*``, without the prefix."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def _check_digest(content: bytes, start: int, expected: str) -> None:
    blank = hashlib.sha256(content[:start])
    blank.update(_BLANK.encode())
    blank.update(content[start + 64 :])
    if blank.hexdigest() != expected:
        raise ValueError("it is damaged, its checksum is of other bytes")


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
    return None if ours == theirs else f"{name} is {shown(theirs)} there and {shown(ours)} here"


def check_layout(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], what: str) -> None:
    """Check that tensors have the names, shapes and dtypes that they should have.

    Raises
    ------
    ValueError
        A tensor is missing, unknown, or has another shape or dtype.

    >>> check_layout({"bias": torch.zeros(2)}, {"bias": torch.zeros(3)}, "model")
    Traceback (most recent call last):
        ...
    ValueError: model.bias must be torch.float32 (2,), got torch.float32 (3,)
    """
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            raise ValueError(f"{what}.{name} is missing")
        if name not in ours:
            raise ValueError(f"{what}.{name} is unknown")
        expected, received = (
            f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (ours[name], theirs[name])
        )
        if expected != received:
            raise ValueError(f"{what}.{name} must be {expected}, got {received}")


class RandomStreams:
    """All random generators of a run: its own two, and the global ones of torch, NumPy and Python.

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
        """Set all states to what :meth:`state` returned.

        Raises
        ------
        ValueError
            They are not states of generators.
        """
        _check_states(self.state()[0], tensors, facts)
        self.order.set_state(tensors["order"])
        self.selection.set_state(tensors["selection"])
        set_global_random_state(tensors, facts)


# The values, beside tensors, in the states of NumPy's and Python's generators.
_STATE_FACTS: dict[str, tuple[Any, ...]] = {
    "numpy": (Annotated[int, Between(0, 624)], Annotated[int, Between(0, 1)], float),
    "python": (Annotated[int, Between(3, 3)], float | None),
}


def _check_states(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    here, there = (  # another machine may have more devices
        {name: tensor for name, tensor in tensors.items() if not name.startswith("cuda")}
        for tensors in (ours, theirs)
    )
    check_layout(here, there, "random")
    for name, hints in _STATE_FACTS.items():
        values = checked(facts.get(name), list[Any], f"random.{name}")
        if len(values) != len(hints):
            raise ValueError(f"random.{name} must be {len(hints)} values, got {shown(values)}")
        for i, (value, hint) in enumerate(zip(values, hints, strict=True)):
            checked(value, hint, f"random.{name}[{i}]")
    for name, last in (("numpy", 2**32 - 1), ("python", 624)):
        words = theirs[name]
        if words.min() < 0 or words.max() >= 2**32 or words[-1] > last:
            raise ValueError(f"random.{name} must be words of 32 bits and a position")
    for name in ("torch", "order", "selection"):
        try:
            torch.Generator().set_state(theirs[name])
        except RuntimeError as error:
            raise ValueError(f"random.{name} must be the state of a generator") from error


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
    """Let the block seed the global generators, and restore the caller's states afterwards."""
    tensors, facts = global_random_state()
    try:
        yield
    finally:
        set_global_random_state(tensors, facts)
