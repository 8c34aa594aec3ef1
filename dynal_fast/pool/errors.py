"""What a pass over the pool can find wrong."""

from torch import Tensor

from dynal_fast.pool.top import first_ids


class PoolObservationError(ValueError):
    """A pass met bad rows or did not see every sample; raised when it ends.

    All other samples were updated, and the bad rows changed nothing.

    Attributes
    ----------
    non_finite, duplicate, unseen
        Sample ids, sorted int64 tensors: seen with a NaN or infinite logit (or one beyond what
        ``prediction_stability_logits`` can square, where that observes), seen more than once (the
        first sight counted), not seen.
    unknown
        The first ids that were out of range or belong to dropped samples.
    num_unknown
        How many such rows there were.
    """

    def __init__(
        self,
        non_finite: Tensor,
        duplicate: Tensor,
        unseen: Tensor,
        unknown: Tensor,
        num_unknown: int,
        logit_limit: float | None = None,
    ) -> None:
        self.non_finite, self.duplicate, self.unseen = non_finite, duplicate, unseen
        self.unknown, self.num_unknown = unknown, num_unknown
        beyond = "" if logit_limit is None else (
            f" (or one beyond {logit_limit:.3g}, too large for prediction_stability_logits)"
        )  # fmt: skip
        problems = [
            f"{len(ids)} samples {what}: {first_ids(ids)}"
            for ids, what in (
                (non_finite, f"with a non-finite logit{beyond}"),
                (duplicate, "seen more than once"),
                (unseen, "not seen (pass partial=True if that is meant)"),
            )
            if len(ids)
        ]
        if num_unknown:
            problems.append(
                f"{num_unknown} rows with an id that is out of range or was dropped: "
                f"{', '.join(map(str, unknown.tolist()))}"
            )
        super().__init__("; ".join(problems))
