"""Farthest-first over many cycles: what is known of a pool stays from one pick to the next."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.backends import State, choose
from dynal_fast.ops.farthest_first.contract import (
    Answer,
    Reached,
    Rows,
    Traversal,
    as_distances,
)
from dynal_fast.ops.farthest_first.host import kernels_on_host
from dynal_fast.ops.farthest_first.labeled import as_labeled, as_pool_indices
from dynal_fast.ops.farthest_first.progress import Progress
from dynal_fast.ops.farthest_first.request import as_request, as_traversal
from dynal_fast.ops.farthest_first.watch import Watch, as_saved, copied, same_bits


class FarthestFirst:
    """Farthest-first traversal of one pool in many cycles, for the work of one.

    Each :meth:`pick` returns what :func:`farthest_first` returns for the same pool with everything
    labeled or picked so far as ``labeled``: the same indices, distances and radius. But what it
    learns of distances is kept, so that five cycles of 100 cost about as much as one of 500.

    It is for embeddings that stay: of a frozen backbone, of self-supervision, of texts. After the
    model has changed, and the embeddings with it, make a new one.

    Parameters
    ----------
    pool : (n, d) floats, integers or booleans
        Embeddings, as for :func:`farthest_first`. They are not copied, and must not change: this is
        checked with a few rows, and of whole torch tensors by their count of changes in place.
    labeled : optional
        As for :func:`farthest_first`: indices or a mask of pool samples, embeddings of samples
        outside the pool, which are copied, or a tuple of both. More may be added later.
    metric, backend
        As for :func:`farthest_first`.

    Attributes
    ----------
    covered : (m,) int64 tensor on the CPU
        The pool samples labeled or picked so far, in that order.
    available : int
        How many pool samples may be picked.

    Raises
    ------
    ValueError, TypeError, ImportError
        As :func:`farthest_first`, of each method for its own arguments; also if the pool has
        changed. A method that raises, or is interrupted by Ctrl-C, leaves everything as it was.

    Notes
    -----
    It can be copied and pickled, with its pool. What is saved is what covers the pool; distances
    are found again by the first pick after that.

    Examples
    --------
    >>> import torch
    >>> pool = torch.tensor([[0.0], [1.0], [2.0], [10.0], [20.0]])
    >>> selection = FarthestFirst(pool, labeled=[0])
    >>> selection.pick(1)
    Traversal(indices=tensor([4]), distances=tensor([20.]), radius=10.0)
    >>> selection.add_labeled([3])  # labeled for another reason
    >>> selection.pick(1).indices
    tensor([2])
    >>> selection.covered
    tensor([0, 4, 3, 2])
    """

    @kernels_on_host
    def __init__(
        self,
        pool: Any,
        labeled: Any = None,
        *,
        metric: str = "euclidean",
        backend: str | None = None,
    ) -> None:
        self._rows = contract.as_rows(pool, "pool")
        contract.check_metric(metric, self._rows)
        if self._rows.right is not None:
            raise TypeError(
                "pool must be a matrix, got OuterProducts: gradients change with the model; "
                "farthest_first takes them"
            )
        self._metric, self._backend = metric, backend
        self._known = self._nothing()
        self._watch = Watch(pool, self._rows)
        self.add_labeled(labeled)

    def _nothing(self) -> "_Known":
        state = choose(self._backend, self._rows.device).open(self._rows, self._metric)(None)
        nobody = torch.empty(0, dtype=torch.int64)
        return _Known(state, torch.ones(self._rows.size, dtype=torch.bool), nobody, ())

    def __repr__(self) -> str:
        n, d = self._rows.array.shape
        return (
            f"FarthestFirst({n} x {d}, {self._metric}, {len(self.covered)} covered, "
            f"{self.available} available)"
        )

    @property
    def covered(self) -> torch.Tensor:
        """The pool samples labeled or picked so far, in that order: (m,) int64 on the CPU."""
        return self._known.covered.clone()

    @property
    def available(self) -> int:
        """How many pool samples may be picked."""
        return int(self._known.free.sum())

    @kernels_on_host
    def add_labeled(self, labeled: Any) -> None:
        """Take in samples that were labeled meanwhile.

        Parameters
        ----------
        labeled : as for :func:`farthest_first`
            Pool samples that are covered already are left out. Embeddings of samples outside the
            pool are copied.
        """
        if labeled is None:
            return
        outside, indices = as_labeled(labeled, self._rows)
        self._watch.check()
        if outside is not None:
            outside = contract.as_rows(copied(outside.array), "labeled")
        if indices is not None:
            known = torch.zeros(self._rows.size, dtype=torch.bool)
            known[self._known.covered] = True
            indices = indices.unique()
            indices = indices[~known[indices]]
        self._known = self._known.cover(outside, indices)

    @kernels_on_host
    def exclude(self, samples: Any) -> None:
        """Never pick these samples, which cover nothing: broken files, say.

        Parameters
        ----------
        samples : (m,) integers or (n,) booleans
            Pool indices or a mask. The radius counts only samples that may be picked, so these are
            left out of it. They may be labeled later.
        """
        indices = as_pool_indices(samples, self._rows.size, "samples")
        self._known = self._known.exclude(indices)

    @kernels_on_host
    def pick(
        self,
        k: int,
        *,
        start: int | str | None = None,
        generator: torch.Generator | None = None,
        progress: bool | None = None,
    ) -> Traversal:
        """Pick ``k`` samples, each the farthest from all that are labeled or picked.

        Parameters
        ----------
        k : int
            0 to ``available``.
        start, generator, progress
            As for :func:`farthest_first`.

        Returns
        -------
        Traversal
            The picks, which are covered from now on.
        """
        self._watch.check()
        count, first = as_request(k, start, generator, self._known.free)
        with Progress(count, progress, "farthest-first", "pick") as bar:
            self._known, answer = self._known.pick(count, first, bar.reach)
        return as_traversal(answer, self._metric)

    @kernels_on_host
    def steps(
        self,
        k: int,
        *,
        start: int | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Pick one sample at a time, each with the distances of the whole pool after it.

        The picks are those of :meth:`pick`. A step costs a comparison of the pool with the pick;
        memory for picks times samples is never needed. A sample is covered once it was yielded, so
        that the loop may end at any time, and samples may be labeled in between.

        Parameters
        ----------
        k, start, generator
            As for :meth:`pick`.

        Yields
        ------
        pick : int
            The pool index picked.
        distances : (n,) float32 tensor
            As :meth:`distances` returns after this pick; a new tensor each time.

        Examples
        --------
        >>> import torch
        >>> selection = FarthestFirst(torch.tensor([[0.0], [1.0], [5.0]]), labeled=[0])
        >>> selection.distances()
        tensor([0., 1., 5.])
        >>> for pick, distances in selection.steps(2):
        ...     print(pick, distances)
        2 tensor([0., 1., 0.])
        1 tensor([0., 0., 0.])
        """
        count, first = as_request(k, start, generator, self._known.free)
        return self._steps(count, first)

    def _steps(self, count: int, first: int | None) -> Iterator[tuple[int, torch.Tensor]]:
        for step in range(count):
            traversal = self.pick(1, start=first if step == 0 else None, progress=False)
            yield int(traversal.indices[0]), self.distances()

    @kernels_on_host
    def distances(self) -> torch.Tensor:
        """Return the distance of each pool sample to the nearest labeled or picked one.

        Returns
        -------
        (n,) float32 tensor
            On the pool's device: 0 for the labeled and the picked ones themselves, ``inf`` where
            nothing is covered. Exact, as those of :class:`Traversal`.
        """
        self._watch.check()
        state = self._known.state.copy()
        values = state.minima()
        self._known = self._known._replace(state=state)
        return values if self._metric == "cosine" else as_distances(values, state.exponent or 0)

    def state_dict(self) -> dict[str, Any]:
        """Return what covers the pool and what is excluded, to save it without the pool.

        Returns
        -------
        dict
            ``covered`` (m,) and ``excluded`` int64 tensors of pool indices; ``outside``, a list of
            tensors (m, d): embeddings of labeled samples outside the pool; ``watched``: a few rows
            of the pool, to recognize it.
        """
        free, covered = self._known.free, self._known.covered
        excluded = ~free
        excluded[covered] = False
        return {
            "covered": covered.clone(),
            "excluded": excluded.nonzero().squeeze(1),
            "outside": [as_saved(rows.array) for rows in self._known.outside],
            "watched": as_saved(self._watch.rows),
        }

    @kernels_on_host
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cover and exclude what a saved :meth:`state_dict` says, and nothing else.

        Raises
        ------
        ValueError
            The state is that of another pool, or does not fit this one.
        """
        self._watch.check()
        if not same_bits(state["watched"], as_saved(self._watch.rows)):
            raise ValueError(
                "state must be that of the same pool, got one of a pool with other rows: make a "
                "new FarthestFirst with labeled="
            )
        known, n = self._nothing(), self._rows.size
        for array in state["outside"]:
            outside, _ = as_labeled(array.to(self._rows.device), self._rows)
            known = known.cover(outside, None)
        known = known.cover(None, as_pool_indices(state["covered"], n, "covered"))
        self._known = known.exclude(as_pool_indices(state["excluded"], n, "excluded"))

    def __getstate__(self) -> dict[str, Any]:
        return {
            "pool": self._rows.array,
            "metric": self._metric,
            "backend": self._backend,
            "state": self.state_dict(),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        FarthestFirst.__init__(
            self, saved["pool"], metric=saved["metric"], backend=saved["backend"]
        )
        self.load_state_dict(saved["state"])


class _Known(NamedTuple):
    """All that changes. A method makes the next one, so that it changes all of it or nothing."""

    state: State
    free: torch.Tensor  # (n,) bool: what may be picked
    covered: torch.Tensor  # (m,) int64, in order
    outside: tuple[Rows, ...]  # labeled samples outside the pool

    def cover(self, outside: Rows | None, indices: torch.Tensor | None) -> "_Known":
        state, covered, others = self.state.copy(), self.covered, self.outside
        state.cover(outside, indices)
        if indices is not None:
            covered = torch.cat([covered, indices])
        if outside is not None:
            others = (*others, outside)
        return _Known(state, self._without(indices), covered, others)

    def exclude(self, indices: torch.Tensor) -> "_Known":
        state = self.state.copy()
        state.exclude(indices)
        return self._replace(state=state, free=self._without(indices))

    def pick(self, k: int, start: int | None, reached: Reached) -> tuple["_Known", Answer]:
        state = self.state.copy()
        answer = state.pick(k, start, reached)
        picks = answer.indices.cpu()
        covered = torch.cat([self.covered, picks])
        return _Known(state, self._without(picks), covered, self.outside), answer

    def _without(self, indices: torch.Tensor | None) -> torch.Tensor:
        free = self.free.clone()
        if indices is not None:
            free[indices] = False
        return free
