"""Training batches observed as they go by: the outputs that training computes, once."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from dynal_fast.integrations.observer import PoolObserver
from dynal_fast.integrations.process_group import Processes, SharedPool
from dynal_fast.pool import PoolObservationError, PoolStats
from dynal_fast.pool.batch import as_ids
from dynal_fast.pool.scores import TRAINING_SCORES

TARGETS = ("labels", "label", "targets", "target", "y")


class TrainingObserver(PoolObserver):
    """Folds the batches of a training into the statistics; each epoch is a pass.

    A sample that comes twice in an epoch counts once, with its first row, and one that does not
    come is left as it is. Several processes exchange what they saw when an epoch ends.

    Parameters
    ----------
    stats
        The statistics, one row for each sample of the training set.
    targets
        Where a batch has its classes, or the classes of all samples, integers ``(samples,)``.
    """

    def __init__(self, stats: PoolStats, every_n_epochs: int, targets: Any) -> None:
        super().__init__(stats, every_n_epochs, None, 0, True)
        if not stats.shard.is_whole:
            raise ValueError(
                "with train=True stats must be whole in each process, which exchange what they "
                "saw; got PoolStats with a group"
            )
        self.needs_targets = any(name in TRAINING_SCORES for name in stats.track)
        if targets is not None and not isinstance(targets, (str, int)):
            if len(targets) != stats.num_samples:
                raise ValueError(
                    f"targets must have the {stats.num_samples} samples of stats, got "
                    f"{len(targets)}"
                )
            targets = torch.as_tensor(targets)
        self._targets = targets
        self._number: tuple[int, int | None] | None = None  # of the epoch that lasts
        # The samples that came in it; ids that are none of a sample have the last place.
        self._seen = torch.zeros(stats.num_samples + 1, dtype=torch.bool, device=stats.device)
        self._reopened = False  # whether it had a pass before the one that is open
        self._loaded: Mapping[str, Any] | None = None  # what came of the epoch to be resumed
        self._shared: SharedPool | None = None  # while a pass is open

    @property
    def observing(self) -> bool:
        """Whether an epoch that the statistics want lasts."""
        return self._shared is not None

    def begin(self, epochs_done: int, optimizers: list[Any]) -> bool:
        """Do what `PoolObserver.begin` does."""
        self.interrupted()  # the Trainer does not tell of exceptions
        return super().begin(epochs_done, optimizers)

    def begin_epoch(self, epoch: int, num_epochs: int | None) -> None:
        """Begin a pass, if the statistics want this epoch and have not got it."""
        self.interrupted()
        loaded, self._loaded = self._loaded, None
        if self.wants(epoch, num_epochs):
            self._number = epoch, num_epochs
            self._reopened = loaded is not None and loaded["epoch"] == epoch
            self._seen.zero_()
            if loaded is not None and self._reopened:
                self._seen.copy_(loaded["mask"])
            self._open_pass(epoch, num_epochs)

    def _open_pass(self, epoch: int, num_epochs: int | None) -> None:
        pool = SharedPool(self.stats, True, Processes.current())
        pool.begin(epoch, num_epochs)
        self._shared = pool

    def saw(self, sample_ids: Any, logits: Tensor, batch: Any) -> None:
        """Fold in the outputs ``(batch, classes)`` of a batch's samples."""
        ids = as_ids(sample_ids, self.stats.device)
        targets = self._targets_of(batch, sample_ids, ids) if self.needs_targets else None
        inside = (ids >= 0) & (ids < self.stats.num_samples)  # end_pass names the others
        places = ids.long().where(inside, self.stats.num_samples)
        others = [part for part in (logits, targets) if part is not None]
        if self._reopened and all(part.shape[:1] == ids.shape for part in others):
            new = ~(self._seen[places] & inside)
            ids, logits = ids[new], logits[new.to(logits.device)]
            targets = None if targets is None else targets[new]
        assert self._shared is not None
        with torch.no_grad():
            self._shared.update(ids, logits.detach(), targets=targets)
        self._seen[places] = True

    def _targets_of(self, batch: Any, sample_ids: Any, ids: Tensor) -> Tensor:
        where = self._targets
        if isinstance(where, Tensor):
            inside = (ids >= 0) & (ids < len(where))
            targets = where[ids.cpu().where(inside.cpu(), 0)]
        else:
            part = part_of(batch, where, "targets", TARGETS)
            if part is sample_ids:
                raise ValueError(
                    "the part of a training batch that has the ids was taken for the targets: "
                    "give targets=, the key or position of the classes"
                )
            targets = torch.as_tensor(part)
        if targets.ndim == 2:  # a column of classes, or one-hot rows, or probabilities
            one_hot = targets.byte() if targets.dtype == torch.bool else targets
            targets = one_hot[:, 0] if targets.shape[1] == 1 else one_hot.argmax(1)
        return targets.detach().to(self.stats.device)

    def end_epoch(self) -> None:
        """End the pass, where one lasts.

        Raises
        ------
        PoolObservationError
            A logit was not finite, a target no class, or an id not of the statistics.
        """
        if self._number is None:
            return
        self.epoch, self._number = self._number[0], None
        self._close_pass()

    def _close_pass(self) -> None:
        pool, self._shared = self._shared, None
        if pool is None:
            return
        try:
            pool.end()
        except PoolObservationError as error:
            if len(error.non_finite) or error.num_unknown:
                raise  # all else are samples that a sampler repeats

    def interrupted(self) -> None:
        """Close the pass of an epoch that an exception ended; what this process saw stays."""
        if self._shared is None:
            return
        self._broken = self._shared.processes.size > 1  # the others cannot be waited for
        self._shared = self._number = None
        with suppress(PoolObservationError):  # the exception is what is told
            self.stats.end_pass()

    def end(self) -> None:
        """Close what is open."""
        self.interrupted()
        self._loaded = None
        super().end()

    def state_dict(self) -> dict[str, Any]:
        """Return the state so far; every process must call this.

        In the middle of an epoch its pass is closed and another of the same epoch opened, so that a
        training that resumes here continues with the samples that were not seen yet. A sample
        that still comes again in it does not count again.
        """
        number = self._number
        if number is not None:
            self._close_pass()
        state = super().state_dict()
        if number is not None:
            seen = torch.stack(Processes.current().all(self._seen.cpu().clone())).any(0)
            state["seen"] = {"epoch": number[0], "mask": seen}
            self._seen.copy_(seen)
            self._open_pass(*number)
            self._reopened = True
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.interrupted()
        super().load_state_dict(state)
        self._loaded = state.get("seen")  # none between epochs


def part_of(batch: Any, where: str | int | None, name: str, usual: tuple[str, ...] = ()) -> Any:
    """Return a part of a batch: of a mapping by its key, of a tuple or list by its position.

    Without ``where`` it is the first of the ``usual`` keys, or the second part of a tuple.

    Raises
    ------
    ValueError
        The batch has no such part.

    >>> part_of({"x": 0, "label": 5}, None, "targets", TARGETS), part_of((4, 5, 6), 2, "ids")
    (5, 6)
    """
    in_parts = isinstance(batch, (tuple, list))
    if where is None:
        found = [key for key in usual if isinstance(batch, Mapping) and key in batch]
        where = found[0] if found else 1 if in_parts else None
    try:
        if isinstance(batch, Mapping) or (in_parts and isinstance(where, int)):
            return batch[where]
    except (KeyError, IndexError):
        pass
    has = f"a {type(batch).__name__}"
    has += f" of {len(batch)} parts" if in_parts else ""
    has += f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
    raise ValueError(
        f"{name} must say where a training batch has them, a key or a position; got {name}="
        f"{where!r} for {has}"
    )


def logits_in(output: Any, num_classes: int) -> Tensor | None:
    """Return the logits ``(batch, classes)`` in what a model returned, None if there are none.

    >>> logits_in((torch.zeros(()), torch.zeros(4, 3)), 3).shape
    torch.Size([4, 3])
    """
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    parts = output if isinstance(output, (tuple, list)) else (found, output)
    for part in parts:
        if isinstance(part, Tensor) and part.ndim == 2 and part.shape[1] == num_classes:
            return part
    return None
