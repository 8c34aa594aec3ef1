"""A traversal on disk: the picks, and each rank's bounds, written now and then.

Minimum distances only shrink, so an old bound is a valid one; and picks are a prefix of those to
come. So files may be of different times, as long as no bound knows of more picks than the file of
picks has: that one is written first.
"""

import io
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynal_fast.collective import Collective, agreed
from dynal_fast.files import remove_leftovers, write_atomically
from dynal_fast.ops.farthest_first.sharded.part import Part
from dynal_fast.ops.farthest_first.sharded.traversal import ShardedTraversal

EVERY = 60.0  # seconds
PICKS = "picks.npz"
BOUNDS = re.compile(r"bounds-(\d+)-(\d+)\.npy")


class Checkpoint:
    """The checkpoint of one traversal in a folder.

    Parameters
    ----------
    folder : Path
        It is made where it is missing; of all ranks the same one.
    identity : mapping of str to str
        What the traversal is of, by name, the same on every rank: another checkpoint is refused.
    every : float
        Seconds between two checkpoints.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str], every: float = EVERY) -> None:
        self.folder, self.identity, self.every = folder, dict(identity), every
        self.written = time.monotonic()

    def load(self, collective: Collective, traversal: ShardedTraversal[Any]) -> None:
        """Go on where the checkpoint ended, if there is one.

        Raises
        ------
        ValueError
            It is of another traversal, or damaged.
        """

        def read() -> tuple[list[int], list[float]]:
            if collective.rank == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(self.folder)
                if not (self.folder / PICKS).exists():  # bounds alone may know of other picks
                    for path in self.folder.iterdir():
                        if BOUNDS.fullmatch(path.name):
                            path.unlink(missing_ok=True)
            return self._picks() if (self.folder / PICKS).exists() else ([], [])

        told = collective.everyones(agreed(collective, read))
        if not told[0][0]:
            return
        traversal.go_on(*told[0])
        agreed(collective, lambda: self._bound(traversal))

    def _picks(self) -> tuple[list[int], list[float]]:
        path = self.folder / PICKS
        try:
            with np.load(path, allow_pickle=False) as saved:
                identity = json.loads(str(saved["identity"]))
                picks = saved["indices"].tolist(), saved["values"].tolist()
        except Exception as error:
            raise ValueError(f"checkpoint {path} cannot be read: {error}; delete it") from error
        for name, value in self.identity.items():
            if identity.get(name) != value:
                raise ValueError(
                    f"checkpoint {self.folder} is of another selection: its {name} is "
                    f"{identity.get(name)}, got {value}; choose another folder"
                )
        return picks

    def _bound(self, traversal: ShardedTraversal[Any]) -> None:
        for part in traversal.parts:
            self._bound_part(part)
            part.renew()

    def _bound_part(self, part: Part[Any]) -> None:
        for path in sorted(self.folder.iterdir()):
            named = BOUNDS.fullmatch(path.name)
            if not named:
                continue
            begin, end = int(named[1]), int(named[2])
            low, high = max(begin, part.first), min(end, part.first + part.size)
            if low >= high:
                continue
            try:
                saved = np.load(path, mmap_mode="r", allow_pickle=False)
                if saved.shape != (end - begin,) or saved.dtype != np.float32:
                    raise ValueError(f"it holds {saved.shape} of {saved.dtype}")
            except Exception as error:
                raise ValueError(f"checkpoint {path} cannot be read: {error}; delete it") from error
            bounds = torch.from_numpy(np.array(saved[low - begin : high - begin]))
            part.lower(slice(low - part.first, high - part.first), bounds)

    def after_round(self, collective: Collective, traversal: ShardedTraversal[Any]) -> None:
        """Write it, if it is time."""
        due = collective.rank == 0 and time.monotonic() - self.written >= self.every
        if collective.largest([int(due)])[0]:
            self.write(collective, traversal)
            self.written = time.monotonic()

    def write(self, collective: Collective, traversal: ShardedTraversal[Any]) -> None:
        """Write the picks, then the bounds of each rank, then delete those of other cuts."""

        def write_picks() -> None:
            if collective.rank == 0:
                content = io.BytesIO()
                indices = np.array(traversal.numbers, dtype=np.int64)
                values = np.array(traversal.values, dtype=np.float32)
                identity = np.array(json.dumps(self.identity))
                np.savez(content, indices=indices, values=values, identity=identity)
                write_atomically(self.folder / PICKS, content.getvalue())

        def write_bounds() -> list[str]:
            names = []
            for part in traversal.parts:
                if part.size == 0:
                    continue
                content = io.BytesIO()
                np.save(content, part.bound.cpu().numpy())
                names.append(f"bounds-{part.first}-{part.first + part.size}.npy")
                write_atomically(self.folder / names[-1], content.getvalue())
            return names

        agreed(collective, write_picks)
        names = collective.everyones(agreed(collective, write_bounds))
        if collective.rank == 0:
            current = {name for own in names for name in own}
            for path in self.folder.iterdir():
                if BOUNDS.fullmatch(path.name) and path.name not in current:
                    path.unlink(missing_ok=True)
