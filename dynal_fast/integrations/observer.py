"""What the trainers' callbacks share: passes over the pool, and what checkpoints keep of them."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dynal_fast.integrations.numbered import NumberedLoader
from dynal_fast.integrations.process_group import Processes, SharedPool, whole_state
from dynal_fast.integrations.random_states import random_states_kept
from dynal_fast.integrations.tracked import at_least
from dynal_fast.pool import (
    Accelerator,
    EMATeacher,
    PoolImages,
    PoolObservationError,
    PoolStats,
    observe_pool,
)
from dynal_fast.pool.accelerator import Mode
from dynal_fast.pool.batches import checked_where, id_batches
from dynal_fast.pool.forward import Forward
from dynal_fast.pool.observe import checked_passes
from dynal_fast.pool.scores import TRAINING_SCORES
from dynal_fast.pool.sharded.buffers import buffers_of_the_first

Teacher = nn.Module | EMATeacher


class PoolObserver:
    """Observes a pool at the epochs of a trainer, each epoch once, also over a resumed training.

    Attributes
    ----------
    epoch : int
        The last epoch that the statistics know of, 0 before the first.
    """

    def __init__(
        self,
        stats: PoolStats,
        every_n_epochs: int,
        teacher: Teacher | None,
        mc_passes: int,
        partial: bool,
        accelerate: Mode | Accelerator = "off",
    ) -> None:
        if not isinstance(stats, PoolStats):
            raise TypeError(f"stats must be a PoolStats, got {type(stats).__name__}")
        if teacher is not None and not isinstance(teacher, Teacher):
            raise TypeError(
                f"teacher must be a module or an EMATeacher, got {type(teacher).__name__}"
            )
        self.stats, self.teacher = stats, teacher
        self.every_n_epochs = at_least(1, "every_n_epochs", every_n_epochs)
        self.mc_passes, self.partial = checked_passes(mc_passes), partial
        self._counts = not isinstance(accelerate, Accelerator)
        self.accelerator = (
            accelerate if isinstance(accelerate, Accelerator) else Accelerator(accelerate)
        )
        self.epoch = 0
        self._broken = False  # an exception ended a pass, so only some samples have its outputs
        self._restored = False
        self._attached = False
        self._pool: NumberedLoader | None = None
        self._of_teacher: Mapping[str, Tensor] | None = None  # loaded when its model is in place

    # The training begins and ends

    def begin(self, epochs_done: int, optimizers: list[Any]) -> bool:
        """Get ready for a training that has ``epochs_done`` epochs behind it.

        Returns
        -------
        bool
            Whether the training goes on from a checkpoint that lacks the pass of its last epoch.
        """
        if self._broken:
            warnings.warn(
                "an exception ended a pass over the pool, so only some samples have its outputs: "
                "the statistics begin anew",
                stacklevel=2,
            )
            self.stats.begin_cycle()
            self.epoch, self._broken = 0, False
        elif not self._restored and epochs_done < self.epoch:
            self.epoch = 0  # another training
        if epochs_done > 0 and self.epoch == 0 and not self._restored:
            warnings.warn(
                f"the training goes on after epoch {epochs_done} from a checkpoint without pool "
                "statistics: they begin here, without the epochs before",
                stacklevel=2,
            )
        if epochs_done == 0 and not self._restored and self.stats._adds_to_a_training():
            warnings.warn(
                "a training begins, and the statistics over epochs still hold another one, to "
                "which they add: stats.begin_cycle() forgets it",
                stacklevel=2,
            )
        if isinstance(self.teacher, EMATeacher):
            self.teacher.match()
            if self._of_teacher is not None:
                self.teacher.load_state_dict(self._of_teacher)
                self._of_teacher = None
            self._attach(self.teacher, optimizers)
        return self._restored and self.epoch < epochs_done

    def _attach(self, teacher: EMATeacher, optimizers: list[Any]) -> None:
        if self._attached:  # to the optimizer of a training that an error ended
            teacher.detach()
        if teacher.attached:
            return
        if len(optimizers) != 1:
            raise ValueError(
                f"the training has {len(optimizers)} optimizers: attach the teacher to one of them "
                "with teacher.attach(optimizer)"
            )
        teacher.attach(optimizers[0])
        self._attached = True

    def end(self) -> None:
        """Let go of the loader's workers and of the optimizer."""
        self._pool, self._restored = None, False
        if self._attached and isinstance(self.teacher, EMATeacher):
            self.teacher.detach()
            self._attached = False

    # Passes

    def wants(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether ``epoch`` is to be observed."""
        due = self._is_due(epoch, num_epochs)
        return epoch > self.epoch and due and self.stats.observes(epoch, num_epochs)

    def _is_due(self, epoch: int, num_epochs: int | None) -> bool:
        return epoch % self.every_n_epochs == 0 or epoch == num_epochs

    def lacks_last(self, epoch: int, num_epochs: int | None, seen: bool = True) -> bool:
        """Return whether a training that ended after ``epoch`` lacks a pass of its last output.

        Something stopped it that the trainer does not tell of, so that it was to have
        ``num_epochs``; or nobody knew, and ``every_n_epochs`` left the last one out. Not ``seen``:
        the epoch had no pass, due or not.
        """
        had_pass = seen and self._is_due(epoch, num_epochs)
        return epoch > 0 and self.stats._lacks_last(epoch, num_epochs, had_pass)

    @contextmanager
    def training_stopped(self, epoch: int) -> Iterator[None]:
        """Let `observe` give the scores of a single output a pass of ``epoch``, had or not."""
        every, self.every_n_epochs, self.epoch = self.every_n_epochs, 1, epoch - 1
        try:
            with self.stats._training_stopped():
                yield
        finally:
            self.every_n_epochs, self.epoch = every, epoch

    def _passes(self, epoch: int, num_epochs: int | None) -> int:
        """Return how many passes a training has, those behind it included.

        So one that is resumed decides as the one that was cut off.
        """
        if num_epochs is None:
            return 1
        due = [e for e in range(1, num_epochs + 1) if e % self.every_n_epochs == 0]
        passes = sum(self.stats.observes(e, num_epochs) for e in {*due, num_epochs})
        self.stats.observes(epoch, num_epochs)  # the tracker remembers which it was asked last
        return max(1, passes)

    def observe(
        self,
        model: nn.Module,
        loader: Any,
        ids: str | int | None,
        epoch: int,
        num_epochs: int | None,
        forward: Forward,
        place: Callable[[Any], Any] | None = None,
        amp: torch.dtype | None = None,
        device: torch.device | None = None,
        progress: bool | None = False,
    ) -> bool:
        """Observe ``epoch``, unless the statistics have it or do not want it.

        Parameters
        ----------
        loader, ids
            The pool's ``DataLoader``, whose samples are numbered here, or with ``ids`` anything
            that `observe_pool` takes.
        forward
            ``forward(model, batch)`` returns the logits.
        place
            Brings a batch to where the model is; by default as `observe_pool` does.
        amp, device, progress
            As in `observe_pool`.
        """
        if not self.wants(epoch, num_epochs):
            self.epoch = max(epoch, self.epoch)
            return False
        if self._counts:
            self.accelerator.passes = self._passes(epoch, num_epochs)
        processes = Processes.of(self.stats)
        pool = SharedPool(self.stats, self.partial, processes)
        generators = _generators(loader)
        averaged = self.teacher.model if isinstance(self.teacher, EMATeacher) else self.teacher
        self._broken = True
        try:
            with (
                random_states_kept(*generators),
                processes.ranks.session(),
                buffers_of_the_first(processes.ranks, model, averaged),
            ):
                batches = self._batches(loader, ids, processes, place)
                observe_pool(
                    model,
                    batches,
                    pool,
                    epoch=epoch,
                    num_epochs=num_epochs,
                    teacher=self.teacher,
                    forward=forward,
                    mc_passes=self.mc_passes,
                    accelerate=self.accelerator,
                    partial=self.partial or processes.size > 1,
                    amp=amp,
                    device=device,
                    progress=progress if processes.rank == 0 else False,
                )
                while processes.size > 1 and pool.num_passes < max(1, self.mc_passes):
                    with pool.observe(epoch, num_epochs):  # fewer batches than processes
                        pass
        except PoolObservationError:
            self.epoch, self._broken = epoch, False  # raised when the pass has ended
            raise
        self.epoch, self._broken = epoch, False
        return True

    def _batches(
        self,
        loader: Any,
        ids: str | int | None,
        processes: Processes,
        place: Callable[[Any], Any] | None,
    ) -> "Batches":
        if ids is not None or isinstance(loader, PoolImages):
            return Batches(loader, checked_where(ids, loader), processes, place)
        if self._pool is None:
            self._pool = self.numbered(loader)
        wanted, own = torch.zeros(2, self.stats.num_samples, dtype=torch.bool)
        wanted[self.stats.remaining().cpu()] = True
        own[self.stats.owned().cpu()] = True
        self._pool.prepare(wanted, None if self.stats.shard.is_whole else own)
        return Batches(self._pool, None, Processes(), place)

    def numbered(self, loader: Any) -> NumberedLoader:
        """Return the loader with its samples numbered; raises where that is impossible."""
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f"the pool must come from a torch DataLoader, got {type(loader).__name__}; "
                "of other iterables say where a batch has its samples' ids, with ids="
            )
        return NumberedLoader(loader, self.stats.num_samples, Processes.of(self.stats))

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics, the last epoch that they know of, and the teacher's state.

        Of statistics with a group only the first rank's state is whole; all must call this.
        """
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "stats": {} if self._broken else whole_state(self.stats),
            "accelerated": self.accelerator.settled,
            "accelerated_teacher": self.accelerator.of_teacher().settled,
        }
        if isinstance(self.teacher, EMATeacher):
            state["teacher"] = self.teacher.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError if it is not whole."""
        if not state["stats"]:
            raise ValueError(
                f"this checkpoint was saved in the middle of a pass over the pool, after epoch "
                f"{state['epoch']}, and holds no statistics: resume from an earlier one"
            )
        self.stats.load_state_dict(state["stats"])
        self.accelerator.repeat(state.get("accelerated"))  # those of version 0.2 lack it
        self.accelerator.of_teacher().repeat(state.get("accelerated_teacher"))
        if isinstance(self.teacher, EMATeacher):
            if "teacher" not in state:
                raise ValueError("this checkpoint has no EMA teacher, and the callback has one")
            self._of_teacher = state["teacher"]
        self.epoch, self._broken, self._restored = state["epoch"], False, True


class Batches:
    """Batches ``(sample_ids, inputs)`` of a process, brought to the model's device."""

    def __init__(
        self,
        pool: Any,
        where: str | int | None,
        processes: Processes,
        place: Callable[[Any], Any] | None,
    ) -> None:
        self.pool, self.where, self.processes, self.place = pool, where, processes, place

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        for number, (ids, inputs) in enumerate(id_batches(self.pool, self.where, False)):
            if number % self.processes.size == self.processes.rank:
                yield ids, inputs if self.place is None else self.place(inputs)

    def __len__(self) -> int:
        rest = len(self.pool) - self.processes.rank
        return -(-rest // self.processes.size)


def check_pool_scores(stats: PoolStats, ids: str) -> None:
    """Raise if all that is tracked is of labeled samples, whose classes no pool has.

    ``ids`` is the name of the argument that says where a training batch has its samples' ids.
    """
    if stats.track and all(name in TRAINING_SCORES for name in stats.track):
        raise ValueError(
            f"stats tracks {', '.join(stats.track)}, of labeled samples, and a pool has no labels: "
            f"pass train=True and {ids}=, to observe the training batches"
        )


def check_function(name: str, value: Any) -> None:
    """Raise unless ``value`` can be called, or is None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function, got {type(value).__name__}")


def _generators(loader: Any) -> list[torch.Generator]:
    """Return the generators of a loader and its samplers, which a training may share."""
    batches = getattr(loader, "batch_sampler", None)
    parts = [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    found = [getattr(part, "generator", None) for part in parts]
    return [generator for generator in found if isinstance(generator, torch.Generator)]
