"""Groups of rows and centers, cut into tiles for the programs of a Triton kernel."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dynal_fast.ops.farthest_first.kernels import Groups


def cut(groups: Groups, rows: int, columns: int, programs: int | None) -> Tensor:
    """Cut all groups into work: start and end of rows and of centers, (programs, 4) int32.

    A program takes up to ``rows`` rows, and a multiple of ``columns`` centers that gives about
    ``programs`` programs, or one for each tile of rows if that is more. None: one tile each.
    """
    row_ends, center_ends = groups.row_ends.numpy(), groups.center_ends.numpy()
    row_starts = np.concatenate([[0], row_ends[:-1]])
    center_starts = np.concatenate([[0], center_ends[:-1]])
    row_tiles = -(-(row_ends - row_starts) // rows)
    center_tiles = -(-(center_ends - center_starts) // columns)
    row_tiles[center_tiles == 0] = 0
    splits = center_tiles if programs is None else -(-programs // max(int(row_tiles.sum()), 1))
    run = -(-center_tiles // np.maximum(splits, 1)) * columns  # centers of one program
    runs = -(-(center_ends - center_starts) // np.maximum(run, 1))
    count = row_tiles * runs
    group = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    row = row_starts[group] + place // runs[group] * rows
    center = center_starts[group] + place % runs[group] * run[group]
    work = np.stack(
        [
            row,
            np.minimum(row + rows, row_ends[group]),
            center,
            np.minimum(center + run[group], center_ends[group]),
        ],
        axis=1,
    )
    return torch.from_numpy(work.astype(np.int32))


@lru_cache(maxsize=2)  # most heads of a traversal have one size; making this takes 1 ms
def upper_tiles(size: int, tile: tuple[int, int], device: torch.device) -> Tensor:
    """The work of a symmetric block: its tiles on and above the diagonal."""
    rows = torch.arange(size)
    work = cut(Groups.one(rows, rows), *tile, None)
    return work[work[:, 3] > work[:, 0]].to(device)
