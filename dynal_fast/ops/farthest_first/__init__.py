"""Exact farthest-first traversal (greedy k-center, core-set selection) of a pool of embeddings.

``reference.py`` is the definition; a backend may do anything that gives the same indices.
"""

from typing import Any

import torch

from dynal_fast._deprecated import renamed_argument
from dynal_fast.collective import Alone, as_collective
from dynal_fast.ops.backends import register
from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.assign import Assignment, assign_to_picks
from dynal_fast.ops.farthest_first.backends import BACKENDS, choose
from dynal_fast.ops.farthest_first.contract import Traversal
from dynal_fast.ops.farthest_first.cycles import FarthestFirst
from dynal_fast.ops.farthest_first.host import kernels_on_host
from dynal_fast.ops.farthest_first.labeled import as_labeled
from dynal_fast.ops.farthest_first.products import OuterProducts
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.request import as_request, as_traversal
from dynal_fast.ops.farthest_first.sharded.functions import (
    compress_shards,
    farthest_first_of_shards,
)
from dynal_fast.ops.farthest_first.verify import Certificate, verify_traversal

__all__ = [
    "Assignment",
    "Certificate",
    "FarthestFirst",
    "OuterProducts",
    "Traversal",
    "assign_to_picks",
    "farthest_first",
    "farthest_first_compress",
    "verify_traversal",
]


@kernels_on_host
def farthest_first(
    pool: Any,
    k: int,
    labeled: Any = None,
    *,
    metric: str = "euclidean",
    start: int | str | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    backend: str | None = None,
    group: Any = None,
) -> Traversal:
    """Pick ``k`` pool samples, each the farthest from the labeled and the already picked ones.

    The farthest-first traversal of Gonzalez (1985), eq. 1 of Geifman and El-Yaniv, "Deep Active
    Learning over the Long Tail"; known in active learning as greedy k-center or core-set
    selection. The result is exact and the same on every device, for any number of threads:
    distances are compared after rounding once to float32, ties go to the lowest index, whatever the
    scale of the values (see ``dynal_fast.ops.farthest_first.reference``); only distances below some
    1e-35 of the largest element lose digits and may tie at 0. Indices are always distinct; once
    only exact duplicates of labeled and picked samples remain they follow at distance 0, by index.

    Parameters
    ----------
    pool : (n, d) floats, integers or booleans, or OuterProducts
        Embeddings: a torch tensor, a NumPy array or memory map of any strides and byte order (on
        GPUs: contiguous rows), or a pandas DataFrame, by position. Read in tiles, never copied or
        converted as a whole, but for lists and for small DataFrames of columns that lie apart. Up
        to 2^32 samples. Integers are exact up to 2^53. :class:`OuterProducts` stand for the outer
        products of two vectors each, which are never formed; Euclidean metric only.
    k : int
        Samples to pick, 0 to the number of pool samples that are not labeled.
    labeled : (m, d) numbers, OuterProducts, (m,) integers or (n,) booleans, optional
        Embeddings of labeled samples outside the pool, of any dtype; or indices or a mask of pool
        samples that are already labeled, which are never picked. Indices may be a column (m, 1).
        Or both: a tuple of the two.
    metric : {"euclidean", "cosine"}
        Cosine distance is one minus the cosine similarity, in steps of 2^-23.
    start : int or "random", optional
        The first pick, whatever its distance; "random" draws it from ``generator``. By default the
        first pick is like every other: the farthest from the labeled samples, and index 0 when
        there are none (all distances are infinite, so all tie).
    generator : torch.Generator, optional
        A CPU generator for ``start="random"``; torch's default one if omitted.
    progress : bool, optional
        Show a progress bar on stderr; by default only on a terminal.
    backend : {"cpu", "triton", "reference"}, optional
        The implementation; by default the fastest one for the pool's device.
    group : torch.distributed.ProcessGroup, optional
        The processes that hold the pool together, such as ``torch.distributed.group.WORLD``; each
        of them calls this function. ``pool`` is then this rank's shard, which may be empty; the
        pool is the shards behind each other, in the order of the ranks. Indices (those returned,
        ``start`` and ``labeled``) count through all of it. What is labeled is all that any rank
        passes: each may pass the whole set, or its part; a mask has an entry for each row of the
        shard. The result is the same on every rank, and that of one process.

    Returns
    -------
    Traversal
        ``indices`` and ``distances`` are on the pool's device. Euclidean distances are the square
        roots of the float32 squared distances. Under ``torch.compile``, where the traversal is one
        operator that takes tensors and no random start, ``radius`` is a float64 tensor ().

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype, device or range; a NaN or an infinity in ``pool`` or
        ``labeled``; values so large or so small that distances leave the range of float32, or
        integers beyond 2^53; a zero row with the cosine metric. The message names the argument,
        the row, and the fix.
    ImportError
        The pool is on a CUDA device, and Triton is missing or too old.
    RankError
        With ``group``, on every rank that is left: a rank died, was interrupted, failed, or gave no
        sign of life for half a minute. The message names it. Errors of data and arguments are
        raised on all ranks alike, and name the rank that has them.

    Examples
    --------
    >>> import torch
    >>> pool = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    >>> farthest_first(pool, 2, labeled=torch.tensor([[0.0]]))
    Traversal(indices=tensor([3, 2]), distances=tensor([10.,  2.]), radius=1.0)
    >>> farthest_first(pool, 2, labeled=torch.tensor([3])).indices
    tensor([0, 2])
    """
    shards = contract.in_matrices(pool)
    if group is not None or len(shards) > 1:
        return farthest_first_of_shards(
            Alone() if group is None else as_collective(group),
            shards,
            k,
            labeled,
            metric=metric,
            start=start,
            generator=generator,
            progress=progress,
            backend=backend,
        )
    if torch.compiler.is_compiling() and isinstance(pool, torch.Tensor) and backend is None:
        operands = (pool.detach(), k, labeled, metric, start)
        return Traversal(*torch.ops.dynal_fast.farthest_first(*operands))
    rows = contract.as_rows(pool, "pool")
    contract.check_metric(metric, rows)
    labeled_rows, labeled_indices = as_labeled(labeled, rows)
    free = torch.ones(rows.size, dtype=torch.bool)
    if labeled_indices is not None:
        labeled_indices = labeled_indices.unique()
        free[labeled_indices] = False
    count, first = as_request(k, start, generator, free)
    with Progress(count, progress, "farthest-first", "pick") as bar:
        state = choose(backend, rows.device).open(rows, metric)(None)
        state.cover(labeled_rows, labeled_indices)
        return as_traversal(state.pick(count, first, bar.reach), metric)


@renamed_argument("c", "k")
@kernels_on_host
def farthest_first_compress(
    embeddings: Any,
    labels: Any,
    k: int,
    *,
    metric: str = "euclidean",
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    backend: str | None = None,
    group: Any = None,
) -> torch.Tensor:
    """Compress a labeled set to at most ``k`` samples, stratified by class: FF-Comp.

    Algorithm 1 of Geifman and El-Yaniv, "Deep Active Learning over the Long Tail": in each of the
    classes that occur, a farthest-first traversal (eq. 1) of ``k // classes`` samples from a
    random first one. A class with fewer samples is taken whole. As printed, the minimum of eq. 1
    runs over all samples and line 4 adds ``k // classes`` to the seed. Here, as in any
    farthest-first traversal, it runs over the core-set of the class so far, and the seed is one
    of the ``k // classes``, so that no more than ``k`` are kept.

    Parameters
    ----------
    embeddings : (n, d) floats, integers or booleans
        As for :func:`farthest_first`.
    labels : (n,) integers
        The class of each sample.
    k : int
        The size to compress to, at least the number of classes and at most n.
    metric, generator, progress, backend, group
        As for :func:`farthest_first`. With a ``group``, ``labels`` are those of this rank's shard,
        the indices count through all shards, and the generator of rank 0 draws.

    Returns
    -------
    (at most k,) int64 tensor
        Indices of the samples kept: the classes in increasing order, each in pick order.

    Raises
    ------
    ValueError, TypeError
        As :func:`farthest_first`; labels that do not fit; fewer than one sample per class.

    Examples
    --------
    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [9.0], [5.0], [5.0]])
    >>> generator = torch.Generator().manual_seed(0)
    >>> labels = torch.tensor([0, 0, 0, 1, 1])
    >>> kept = farthest_first_compress(embeddings, labels, 4, generator=generator)
    >>> sorted(labels[kept].tolist())
    [0, 0, 1, 1]
    """
    if group is not None:
        return compress_shards(
            as_collective(group),
            embeddings,
            labels,
            k,
            metric=metric,
            generator=generator,
            progress=progress,
            backend=backend,
        )
    rows = contract.as_rows(embeddings, "embeddings")
    contract.check_metric(metric, rows)
    classes = contract.as_classes(labels, rows.size)
    count = contract.as_count(k, "k", rows.size, "samples")
    distinct = torch.unique(classes).tolist()
    if count < len(distinct):
        raise ValueError(f"k must be at least the number of classes, {len(distinct)}, got {count}")
    kept: list[torch.Tensor] = []
    begin = choose(backend, rows.device).open(rows, metric)
    share = count // max(len(distinct), 1)
    with Progress(len(distinct) * share, progress, "FF-Comp", "pick") as bar:
        for label in distinct:
            members = (classes == label).nonzero().squeeze(1)
            free = torch.zeros(rows.size, dtype=torch.bool)
            free[members] = True
            size, first = as_request(min(share, len(members)), "random", generator, free)
            kept.append(begin(members).pick(size, first, lambda picks: None).indices)
            bar.reach(sum(map(len, kept)))
    return torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64, device=rows.device)


def _operator(
    pool: torch.Tensor, k: int, labeled: torch.Tensor | None, metric: str, start: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    got = farthest_first(pool, k, labeled, metric=metric, start=start, progress=False)
    return got.indices, got.distances, torch.tensor(got.radius, dtype=torch.float64, device="cpu")


def _operator_shapes(
    pool: torch.Tensor, k: int, labeled: torch.Tensor | None, metric: str, start: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        pool.new_empty(k, dtype=torch.int64),
        pool.new_empty(k, dtype=torch.float32),
        torch.empty((), dtype=torch.float64, device="cpu"),
    )


register(
    "farthest_first",
    "(Tensor pool, SymInt k, Tensor? labeled, str metric, int? start) -> (Tensor, Tensor, Tensor)",
    _operator_shapes,
    dict.fromkeys(BACKENDS.defaults, _operator),
)
