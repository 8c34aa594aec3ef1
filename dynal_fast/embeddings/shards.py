"""Files of embeddings as shards of several ranks."""

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynal_fast.embeddings.load import Embeddings, Paths, open_sources
from dynal_fast.embeddings.source import FileError, Source, Wanted

BLOCK = 4096  # rows; a file is cut between blocks only, so that its checksum is that of any cut
UNEVEN = 1.3  # times its part: a rank may have so many rows for whole files
Piece = tuple[int, int, int]  # the number of a file, its first row, and the one after the last


@dataclass(frozen=True, eq=False)
class Shards:
    """The pool of all ranks, of which ``arrays`` are this one's part, in order.

    ``pool`` tells files, sizes and shapes; its array holds no numbers.
    """

    pool: Embeddings
    arrays: tuple[Any, ...]
    pieces: tuple[Piece, ...]

    def checksums(self) -> list[int]:
        """One number for each file; its sum over the ranks does not depend on the cut."""
        sums = [0] * len(self.pool.files)
        for array, (file, begin, end) in zip(self.arrays, self.pieces, strict=True):
            for row in range(begin, end, BLOCK):
                block = array[row - begin : min(row + BLOCK, end) - begin]
                code = zlib.crc32(np.ascontiguousarray(_bits(block)).view(np.uint8).data)
                sums[file] = (sums[file] + code * (2 * (row // BLOCK) + 1)) % 2**40
        return sums


def _bits(block: Any) -> np.ndarray:
    """The same bits as a NumPy array, which has no bfloat16."""
    if isinstance(block, np.ndarray):
        return block
    import torch

    found: np.ndarray = block.contiguous().view(torch.uint8).numpy()
    return found


def load_shards(paths: Paths, wanted: Wanted, rank: int, ranks: int) -> Shards:
    """Open the files, and map or read those of this rank.

    Raises
    ------
    ValueError, ImportError
        As `load_embeddings`, of any file on every rank.
    """
    sources, others = open_sources(paths, wanted)
    first = sources[0]
    if len(first.shape) != 2 or first.shape[1] == 0:
        raise FileError(f"{first.path} must have shape (samples, features), got {first.shape}")
    sizes = [source.shape[0] for source in sources]
    pieces = pieces_of(sizes, ranks)[rank] or [(0, 0, 0)]
    arrays = tuple(_rows(sources[file], begin, end) for file, begin, end in pieces)
    left_out = tuple(dict.fromkeys(name for source in sources for name in source.left_out))
    shape = (sum(sizes), first.shape[1])
    stand_in = np.broadcast_to(np.zeros((), np.uint8), shape)
    files = tuple(source.path for source in sources)
    pool = Embeddings(stand_in, files, tuple(sizes), left_out + others)
    return Shards(pool, arrays, tuple(pieces))


def _rows(source: Source, begin: int, end: int) -> Any:
    return source.read()[begin:end]


def pieces_of(sizes: Sequence[int], ranks: int) -> list[list[Piece]]:
    """The pieces of each rank: whole files where these make even parts, else blocks of them.

    >>> pieces_of([10, 10, 30, 10], 2)
    [[(0, 0, 10), (1, 0, 10)], [(2, 0, 30), (3, 0, 10)]]
    >>> pieces_of([10_000], 2)
    [[(0, 0, 4096)], [(0, 4096, 10000)]]
    """
    ends = np.cumsum(sizes)
    begins = ends - sizes
    total = int(ends[-1])
    cuts = _cuts(np.append(begins, total), ranks)
    if max(np.diff(cuts)) > UNEVEN * total / ranks:
        blocks = [np.arange(begin, end, BLOCK) for begin, end in zip(begins, ends, strict=True)]
        cuts = _cuts(np.append(np.concatenate(blocks), total), ranks)
    found = []
    for low, high in itertools.pairwise(cuts):
        own = []
        for file, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            inside = max(low, begin), min(high, end)
            if inside[0] < inside[1]:
                own.append((file, inside[0] - begin, inside[1] - begin))
        found.append(own)
    return found


def _cuts(places: np.ndarray, ranks: int) -> list[int]:
    """Where the parts of the ranks begin and end, all at one of the places, which increase."""
    total = int(places[-1])
    cuts = [0]
    for rank in range(1, ranks):
        nearest = int(places[np.abs(places - total * rank / ranks).argmin()])
        cuts.append(max(nearest, cuts[-1]))
    return [*cuts, total]
