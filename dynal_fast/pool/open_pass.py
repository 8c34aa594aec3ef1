"""A pass over the pool while it lasts: batches are folded in, and its end finds what went wrong."""

from dataclasses import dataclass
from typing import Any

import torch

from dynal_fast.ops.pool_stats import (
    DROPPED,
    DUPLICATE,
    LOGIT_LIMIT,
    MAX_UNKNOWN_IDS,
    NON_FINITE,
    STAMP_STEP,
    Dropout,
    pool_stats_update_checked,
    pool_stats_update_from_features,
)
from dynal_fast.ops.pool_stats.contract import Tracker, check_batch, is_ready
from dynal_fast.pool.batch import as_floats, as_ids, as_store, as_targets
from dynal_fast.pool.errors import PoolObservationError


@dataclass
class OpenPass:
    """One pass that has begun and not ended.

    Attributes
    ----------
    due
        What observes this pass, each with its stamps and tensors; at least one.
    number
        How many passes there were, this one included.
    partial
        Whether samples may stay unseen.
    labeled
        Whether a batch had targets.
    """

    due: list[Tracker]
    number: int
    partial: bool
    num_classes: int
    device: torch.device
    backend: str | None
    labeled: bool = False

    def update(self, sample_ids: Any, logits: Any, teacher_logits: Any, targets: Any) -> None:
        """Do what `PoolStats.update` says."""
        if not is_ready(sample_ids, logits, teacher_logits, self.num_classes, self.device):
            sample_ids = as_ids(sample_ids, self.device)
            logits = as_floats("logits", logits)
            if teacher_logits is not None:
                teacher_logits = as_floats("teacher_logits", teacher_logits)
            check_batch(
                sample_ids,
                logits,
                teacher_logits,
                self.num_classes,
                self.device,
                self.due[0].activation,
            )
        if targets is not None:
            targets = as_targets(targets, len(sample_ids), self.device)
            self.labeled = True
        for tracker in self.due:
            pool_stats_update_checked(
                sample_ids, logits, teacher_logits, tracker, targets=targets, backend=self.backend
            )

    def update_from_features(
        self,
        sample_ids: Any,
        features: Any,
        weight: Any,
        bias: Any,
        teacher_features: Any,
        teacher_weight: Any,
        teacher_bias: Any,
        targets: Any,
        by_id: bool,
        dropout: Dropout,
    ) -> None:
        """Do what `PoolStats.update_from_features` says."""
        sample_ids = as_ids(sample_ids, self.device)
        as_features = as_store if by_id else as_floats
        features, weight = as_features("features", features), as_floats("weight", weight)
        bias = None if bias is None else as_floats("bias", bias)
        if teacher_features is not None:
            teacher_features = as_features("teacher_features", teacher_features)
        if teacher_weight is not None:
            teacher_weight = as_floats("teacher_weight", teacher_weight)
        if teacher_bias is not None:
            teacher_bias = as_floats("teacher_bias", teacher_bias)
        if weight.shape[:1] != (self.num_classes,):
            raise ValueError(
                f"weight must be (classes, d) with classes = {self.num_classes}, "
                f"got {tuple(weight.shape)}"
            )
        if targets is not None:
            targets = as_targets(targets, len(sample_ids), self.device)
            self.labeled = True
        for tracker in self.due:
            pool_stats_update_from_features(
                sample_ids,
                features,
                weight,
                bias,
                teacher_features,
                teacher_weight,
                teacher_bias,
                *tracker,
                targets=targets,
                by_id=by_id,
                dropout=dropout,
                backend=self.backend,
            )

    def end(self) -> None:
        """Raise `PoolObservationError` if rows were bad or samples not seen."""
        error = self.found()
        if error is not None:
            raise error

    def found(self) -> PoolObservationError | None:
        """Return what rows were bad and samples not seen, None if all is well.

        This is the only point of a pass that waits for the device.
        """
        _, stamp, unknown_ids, tensors, _ = self.due[0]
        current = STAMP_STEP * self.number
        wrong = (stamp > current) if self.partial else (stamp != current)
        wrong &= stamp != DROPPED
        any_wrong, num_unknown = torch.stack([wrong.any().long(), unknown_ids[0]]).tolist()
        if not any_wrong and not num_unknown:
            return None
        wrong_ids = wrong.nonzero().squeeze(1).cpu()
        stamps = stamp.cpu()[wrong_ids]
        seen = stamps >= current
        return PoolObservationError(
            wrong_ids[seen & (stamps & NON_FINITE > 0)],
            wrong_ids[seen & (stamps & DUPLICATE > 0)],
            wrong_ids[~seen],
            unknown_ids[1 : 1 + min(num_unknown, MAX_UNKNOWN_IDS)].cpu(),
            num_unknown,
            LOGIT_LIMIT if "logit_count" in tensors else None,
            self.num_classes if self.labeled else None,
        )
