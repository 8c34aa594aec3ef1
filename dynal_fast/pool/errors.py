"""`PoolObservationError`: what was wrong in a pass over the pool."""

from collections.abc import Mapping

from torch import Tensor

from dynal_fast.pool.candidates import first_ids

MOST = 10  # ids in a message


class PoolObservationError(ValueError):
    """A pass met bad rows or did not see every sample; raised when the pass ends.

    All other samples were updated, and the bad rows changed nothing.

    Attributes
    ----------
    non_finite
        int64, ascending: ids of samples with a NaN or infinite logit (or, where
        ``prediction_stability_logits`` observes, one that is too large for it), or with a target
        that is no class.
    duplicate
        int64, ascending: ids of samples seen more than once; only their first rows count.
    unseen
        int64, ascending: ids of samples not seen.
    unknown
        int64: the first few ids that were out of range or of dropped samples.
    num_unknown
        How many such rows there were.
    ranks
        Of statistics with a ``group``: by these names, the rank of each id, int64. It is the one
        that gave the row, of an unseen sample the one that owns it. Empty without a group.

    Examples
    --------
    >>> import torch
    >>> from dynal_fast import PoolStats
    >>> stats = PoolStats(3, 2, track=("margin",))
    >>> try:
    ...     with stats.observe(1, 1):
    ...         stats.update([0, 1], torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]))
    ... except PoolObservationError as error:
    ...     print(error.non_finite.tolist(), error.unseen.tolist())
    [1] [2]
    """

    def __init__(
        self,
        non_finite: Tensor,
        duplicate: Tensor,
        unseen: Tensor,
        unknown: Tensor,
        num_unknown: int,
        logit_limit: float | None = None,
        num_targets: int | None = None,
        ranks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.ranks = dict(ranks or {})
        self.non_finite, self.duplicate, self.unseen = non_finite, duplicate, unseen
        self.unknown, self.num_unknown = unknown, num_unknown
        beyond = "" if logit_limit is None else (
            f" (or one beyond {logit_limit:.3g}, too large for prediction_stability_logits)"
        )  # fmt: skip
        if num_targets is not None:
            beyond += f" or a target of {num_targets} or more"
        problems = [
            f"{len(ids)} samples {what}: {self._named(name, ids)}"
            for name, ids, what in (
                ("non_finite", non_finite, f"with a non-finite logit{beyond}"),
                ("duplicate", duplicate, "seen more than once"),
                ("unseen", unseen, "not seen (pass partial=True if that is meant)"),
            )
            if len(ids)
        ]
        if num_unknown:
            problems.append(
                f"{num_unknown} rows with an id that is out of range or was dropped: "
                f"{self._named('unknown', unknown, most=len(unknown))}"
            )
        super().__init__("; ".join(problems))

    def _named(self, name: str, ids: Tensor, most: int = MOST) -> str:
        """Return the first ids as text, those of a rank together."""
        if name not in self.ranks:
            return first_ids(ids, most)
        by: dict[int, list[str]] = {}
        for i, rank in zip(ids[:most].tolist(), self.ranks[name].tolist(), strict=False):
            by.setdefault(rank, []).append(str(i))
        shown = ", ".join(f"{', '.join(own)} (rank {rank})" for rank, own in by.items())
        return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"
