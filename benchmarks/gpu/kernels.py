"""Every kernel of the run, how it is checked, and its fall-back when it is refused.

This module does not import torch: the process that starts the parts reads it too.
"""

import importlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from unittest import mock

_POOL_STATS = "dynal_fast.ops.pool_stats.triton"
CUDA = "head_kernel (CUDA C++)"


class Patch(NamedTuple):
    """An attribute of a module that chooses the kernel, and the value that chooses another."""

    module: str
    attribute: str
    value: object


class Kernel(NamedTuple):
    """``check`` is ``module:function`` in `benchmarks.gpu.gate`; ``function`` is what must run."""

    check: str
    function: str
    fallback: Patch | None = None
    only_hopper: bool = False


def _never(*arguments: object) -> bool:
    return False


KERNELS = {
    "update-whole": Kernel(
        "pool_stats:whole_rows", "update_whole_rows", Patch(_POOL_STATS, "WHOLE_ROW", 1)
    ),
    "update-long": Kernel("pool_stats:long_rows", "update_long_rows"),
    "head-whole": Kernel(
        "pool_stats:head_whole_rows", "update_whole_rows", Patch(_POOL_STATS, "WHOLE_HEAD_ROW", 1)
    ),
    "head-long": Kernel("pool_stats:head_long_rows", "update_long_rows"),
    "head-split": Kernel(
        "pool_stats:head_split_rows", "update_split_rows", Patch(_POOL_STATS, "_splits", _never),
        only_hopper=True,
    ),
    "head-cuda": Kernel(
        "pool_stats:head_cuda", CUDA, Patch("dynal_fast.ops.pool_stats.cuda", "fits", _never),
        only_hopper=True,
    ),
    "ff-measure": Kernel("farthest_first:measure", "measure"),
    "ff-filter": Kernel(
        "farthest_first:aligned_filter", "compare",
        Patch("dynal_fast.ops.farthest_first.triton", "_aligned", _never),
    ),
    "ff-masked": Kernel("farthest_first:masked_filter", "compare"),
    "ff-pairs": Kernel("farthest_first:decide_pairs", "decide_pairs"),
    "ff-tiles": Kernel("farthest_first:decide_tiles", "decide_tiles"),
    "ff-traverse": Kernel("farthest_first:traverse", "traverse"),
    "ff-whole": Kernel("farthest_first:whole", "traverse"),
    "ff-products": Kernel("kmeans_plusplus:products", "compare"),
    "race": Kernel("kmeans_plusplus:race", "walk"),
    "dense-whole": Kernel(
        "dense:whole_columns", "whole_columns",
        Patch("dynal_fast.ops.dense_discrepancy.triton", "WHOLE_COLUMN", 1),
    ),
    "dense-long": Kernel("dense:long_columns", "long_columns"),
}  # fmt: skip

# What an operation needs: of each row, one kernel is enough.
Needs = tuple[tuple[str, ...], ...]
UPDATE: Needs = (("update-whole", "update-long"),)
UPDATE_LONG: Needs = (("update-long",),)
HEAD_ROW: Needs = (("head-whole", "head-split", "head-long"),)
HEAD: Needs = (("head-split", "head-long"),)
HEAD_CUDA: Needs = (("head-cuda",),)
FARTHEST_FIRST: Needs = (
    ("ff-measure",), ("ff-filter", "ff-masked"), ("ff-pairs",), ("ff-tiles",), ("ff-traverse",),
    ("ff-whole",),
)  # fmt: skip
RACE: Needs = (*FARTHEST_FIRST[:4], ("race",))
PRODUCTS: Needs = (*RACE, ("ff-products",))
DENSE: Needs = (("dense-whole", "dense-long"),)


@contextmanager
def left_out(names: Collection[str]) -> Iterator[None]:
    """Within the block, use the fall-backs of these kernels, where they have one."""
    with ExitStack() as stack:
        for name in names:
            if patch := KERNELS[name].fallback:
                module = importlib.import_module(patch.module)
                stack.enter_context(mock.patch.object(module, patch.attribute, patch.value))
        yield


def missing(needs: Needs, without: Collection[str]) -> str:
    """Name the missing kernels that an operation which ``needs`` them cannot run without."""
    for alternatives in needs:
        if all(name in without for name in alternatives):
            return " and ".join(alternatives)
    return ""
