"""Hugging Face Transformers: a callback that observes a pool while a ``Trainer`` trains."""

import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dynal_fast.files import atomic_file
from dynal_fast.integrations.observer import (
    PoolObserver,
    Teacher,
    check_function,
    check_pool_scores,
)
from dynal_fast.integrations.tracked import at_least
from dynal_fast.integrations.training_batches import TrainingObserver, logits_in
from dynal_fast.pool import Accelerator, PoolStats
from dynal_fast.pool.accelerator import Mode
from dynal_fast.pool.forward import Forward

try:
    from accelerate.state import AcceleratorState
    from transformers import TrainerCallback, default_data_collator
    from transformers.utils import find_labels
except ImportError as error:
    raise ImportError(
        "dynal_fast.integrations.transformers needs Transformers and Accelerate: "
        "pip install 'dynal_fast[transformers]'"
    ) from error

__all__ = ["PoolStatsCallback"]

FILE = "pool_stats.pt"  # in checkpoint-N, beside the Trainer's own files
LABELS = ("label", "labels", "label_ids")


class PoolStatsCallback(TrainerCallback):
    """Observe a pool at the end of training epochs, as `observe_pool` does.

    The pool goes through the model in evaluation mode, in batches of
    ``per_device_eval_batch_size``, with the Trainer's collator, loader options, device and mixed
    precision. Training is what it would be without the callback, bit for bit.

    The statistics are saved into each ``checkpoint-N`` as ``pool_stats.pt``, and a training that
    resumes from there goes on with them. Where several processes train data-parallel, each observes
    its share of the batches, and afterwards all hold the statistics of one process that saw all.

    Schedules count back from the Trainer's last epoch, which it knows unless the training set is a
    stream or training may stop early: see `PoolStats.begin_pass`. Where a callback of yours ends
    it, scores of a single output get a pass then.

    Parameters
    ----------
    stats
        The statistics, one row for each sample of the pool.
    pool_dataset
        The pool: a ``datasets.Dataset``, a torch ``Dataset`` or a list of dicts. Labels in it do
        not reach the model. Samples that were dropped from ``stats`` are left out.
    data_collator
        Makes a batch of samples; by default the Trainer's, with its padding.
    id_column
        The column with each sample's id in ``stats``; by default its position in the data set.
        A pool with ids of its own must not hold samples that were dropped from ``stats``.
    every_n_epochs
        Of the epochs that ``stats`` observes, only each n-th, and the last where it is known.
    every_n_steps
        Observe after every so many optimizer steps, and after the last one, instead of at the end
        of epochs: each of these then counts as an epoch. For training sets that are streams.
    teacher
        A second model, or an `EMATeacher`, for ``emaod``. A teacher that follows no optimizer is
        attached to the Trainer's for the training; its state is in the checkpoints, too.
    get_logits
        ``get_logits(model, batch)`` returns the logits ``(batch, classes)``; by default
        ``model(**batch).logits``.
    mc_passes, partial
        As in `observe_pool`.
    accelerate
        As in `observe_pool`; ``"auto"`` knows how many passes the training has. What the last pass
        used is ``callback.accelerator.used``, and a training that resumes uses the same.
    train
        Observe the training batches as they go by instead of a pool, without a second forward pass:
        ``stats`` has a row for each sample of the training set, and ``id_column`` names the column
        with their ids, which the batches must keep (``remove_unused_columns=False``) and which does
        not reach the model. Of several rows of a sample in an epoch the first counts.
    targets
        With ``train``: the key of a batch's classes, or the classes of all samples by id (needed
        where the Trainer keeps labels from the model, as label smoothing does). By default
        ``labels`` or ``label``. Of rows ``(batch, classes)`` the largest is taken; a column
        ``(batch, 1)`` has the classes themselves.
    resume_from
        The checkpoint folder, where training resumes from one that is not in ``output_dir``.
        ``False`` to resume from a checkpoint without statistics, which then begin there.

    Raises
    ------
    TypeError, ValueError
        An argument is not one of the above, or the pool's samples cannot be numbered.
    """

    def __init__(
        self,
        stats: PoolStats,
        pool_dataset: Any = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        id_column: str | None = None,
        *,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        teacher: Teacher | None = None,
        get_logits: Forward | None = None,
        mc_passes: int = 0,
        partial: bool = False,
        accelerate: Mode | Accelerator = "off",
        train: bool = False,
        targets: Any = None,
        resume_from: str | Path | bool | None = None,
    ) -> None:
        check_function("get_logits", get_logits)
        check_function("data_collator", data_collator)
        if every_n_steps is not None:
            every_n_steps = at_least(1, "every_n_steps", every_n_steps)
            if every_n_epochs != 1:
                raise ValueError("give every_n_epochs or every_n_steps, got both")
        if resume_from is True:
            raise ValueError("resume_from must be a checkpoint folder or False, got True")
        self._observer: PoolObserver
        self._training: TrainingObserver | None = None
        self._hooks: list[Any] = []
        if train:
            given = [pool_dataset, data_collator, every_n_steps, teacher, get_logits]
            given += [mc_passes or None, partial or None]
            given += [None if accelerate == "off" else accelerate]
            if id_column is None or any(value is not None for value in given):
                raise ValueError(
                    "with train=True give id_column=, the training batches' samples' ids, and no "
                    "pool_dataset, data_collator, every_n_steps, teacher, get_logits, mc_passes, "
                    "partial or accelerate"
                )
            self._observer = self._training = TrainingObserver(stats, every_n_epochs, targets)
        elif targets is not None:
            raise ValueError("targets are of training batches: pass train=True")
        else:
            self._observer = PoolObserver(
                stats, every_n_epochs, teacher, mc_passes, partial, accelerate
            )
            check_pool_scores(stats, "id_column")
        self._pool, self._collator, self._id_column = pool_dataset, data_collator, id_column
        self._every_n_steps = every_n_steps
        self._forward = get_logits or logits_without_labels
        self._resume_from = resume_from
        self._loader: DataLoader[Any] | None = None
        self._batch: tuple[Any, dict[str, Any]] | None = None
        if id_column is None:
            self._observer.numbered(DataLoader(as_dataset(pool_dataset)))  # raises here, not later

    @property
    def stats(self) -> PoolStats:
        """The statistics."""
        return self._observer.stats

    @property
    def accelerator(self) -> Accelerator:
        """What ran the passes; its ``used`` says how."""
        return self._observer.accelerator

    # Events of the Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Load the statistics where training resumes; tell a new training from one that goes on.

        A checkpoint that was saved at the last step of an epoch, before its end, lacks the pass of
        that epoch, which is made up for here.

        Raises
        ------
        ValueError
            The checkpoint has no statistics, or those of another pool.
        """
        kind = AcceleratorState().distributed_type.name
        if kind != "NO" and not kind.startswith("MULTI_"):
            raise ValueError(
                "PoolStatsCallback observes on one device and with data-parallel processes, and "
                f"{kind} spreads the model itself over processes"
            )
        self._loader = None
        if state.global_step and self._resume_from is not False:
            self._load(args, state)
        optimizer = parts.get("optimizer")
        optimizer = getattr(optimizer, "optimizer", optimizer)  # inside Accelerate's
        done = self._epochs_done(state)
        lacks_pass = self._observer.begin(done, [] if optimizer is None else [optimizer])
        if self._training is not None:
            self._remove_hooks()
            model: nn.Module = parts["model"]
            self._hooks = [
                model.register_forward_pre_hook(self._take_ids, with_kwargs=True),
                model.register_forward_hook(self._keep_logits),
            ]
        elif lacks_pass:
            self._observe(args, state, done, parts)

    # Training batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Begin the pass of an epoch, with ``train``."""
        if self._training is not None:
            self._training.begin_epoch(int(state.epoch or 0) + 1, self._num_epochs(state))

    def _take_ids(
        self, model: nn.Module, inputs: Any, batch: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """Take the ids out of a batch before it reaches the model."""
        assert self._id_column is not None
        rest = dict(batch)
        ids = rest.pop(self._id_column, None)
        self._batch = None
        if self._training is not None and self._training.observing and model.training:
            if ids is None:
                raise ValueError(
                    f"the training batches have no id_column {self._id_column!r}, but "
                    f"{', '.join(batch)}: give TrainingArguments remove_unused_columns=False, and "
                    "a collator that keeps it"
                )
            self._batch = ids, rest
        return None if ids is None else (inputs, rest)

    def _keep_logits(self, model: nn.Module, inputs: Any, output: Any) -> None:
        if self._training is None or self._batch is None:
            return
        (ids, batch), self._batch = self._batch, None
        logits = logits_in(output, self.stats.num_classes)
        if logits is None:
            raise ValueError(f"the model gave no logits (batch, {self.stats.num_classes})")
        self._training.saw(ids, logits, batch)

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._batch = [], None

    # Passes over the pool

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Observe the pool, with ``every_n_steps``."""
        steps = self._every_n_steps
        last = state.global_step >= state.max_steps or control.should_training_stop
        if steps and (state.global_step % steps == 0 or last):
            self._observe(args, state, -(-state.global_step // steps), parts)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Observe the pool, if the statistics want this epoch.

        Raises
        ------
        PoolObservationError
            Of the tracker: bad rows, or samples that were not seen.
        """
        if self._training is not None:
            self._training.end_epoch()
        elif not self._every_n_steps and state.epoch:
            self._observe(args, state, self._epoch_of(state), parts)

    def on_save(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Write the statistics into the checkpoint that was just saved."""
        saved = self._observer.state_dict()  # in which all processes may have a part
        if not args.should_save:
            return
        folder = _checkpoint_of(args.output_dir, state)
        if not folder.is_dir():
            warnings.warn(f"no pool statistics are saved: there is no {folder}", stacklevel=2)
            return
        with atomic_file(folder / FILE) as file:
            torch.save(saved, file)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Observe the last output where training ended early; detach the teacher.

        A callback of yours may have stopped it. The scores of a single output then get that of the
        model as the training leaves it; statistics over epochs are left as they are.
        """
        if self._training is None:
            self._observe_the_end(args, state, parts)
        self._observer.end()
        self._remove_hooks()
        self._loader = None

    # Inside

    def _epoch_of(self, state: Any) -> int:
        return math.ceil(state.epoch or 0)

    def _epochs_done(self, state: Any) -> int:
        if self._every_n_steps:
            return state.global_step // self._every_n_steps
        return int(state.epoch or 0)

    def _num_epochs(self, state: Any) -> int | None:
        """Return how many epochs there will be, or None where training may end early."""
        if any("EarlyStopping" in name for name in state.stateful_callbacks or ()):
            return None
        if self._every_n_steps:
            return -(-state.max_steps // self._every_n_steps)
        known = state.num_train_epochs
        return known if 0 < known < 2**31 else None  # sys.maxsize stands for a stream

    def _observe_the_end(self, args: Any, state: Any, parts: Mapping[str, Any]) -> None:
        steps = self._every_n_steps
        epoch = -(-state.global_step // steps) if steps else self._epoch_of(state)
        seen = not steps or epoch <= self._observer.epoch
        # The best model, once it is loaded, is none of this step.
        if not seen and not (args.load_best_model_at_end and state.best_model_checkpoint):
            self._observe(args, state, epoch, parts)
            seen = True
        if self._observer.lacks_last(epoch, self._num_epochs(state), seen):
            with self._observer.training_stopped(epoch):
                self._observe(args, state, epoch, parts, stopped=True)

    def _observe(
        self,
        args: Any,
        state: Any,
        epoch: int,
        parts: Mapping[str, Any],
        stopped: bool = False,
    ) -> None:
        model: nn.Module = parts["model"]
        num_epochs = self._num_epochs(state)
        if stopped and num_epochs is not None:
            num_epochs = epoch
        if self._loader is None and self._observer.wants(epoch, num_epochs):
            self._loader = self._new_loader(args, model, parts)
        labels = {*LABELS, *(args.label_names or find_labels(type(_base(model))))}

        def forward(observed: nn.Module, batch: Any) -> Any:
            if isinstance(batch, Mapping):
                batch = {name: part for name, part in batch.items() if name not in labels}
            return self._forward(observed, batch)

        self._observer.observe(
            model,
            self._loader,
            None if self._id_column is None else 0,
            epoch,
            num_epochs,
            forward,
            amp=torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None,
            device=args.device,
            progress=False if args.disable_tqdm else None,
        )

    def _new_loader(self, args: Any, model: nn.Module, parts: Mapping[str, Any]) -> DataLoader[Any]:
        collate = self._collator or getattr(parts.get("train_dataloader"), "collate_fn", None)
        collate = getattr(collate, "data_collator", collate) or default_data_collator
        columns = None
        if args.remove_unused_columns:
            columns = (*inspect.signature(_base(model).forward).parameters, *LABELS)
            columns = (*columns, *(args.label_names or ()))
        return DataLoader(
            as_dataset(self._pool),
            batch_size=args.eval_batch_size,
            collate_fn=Collate(collate, columns, self._id_column),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def _load(self, args: Any, state: Any) -> None:
        given = [self._resume_from, args.resume_from_checkpoint]
        folders = [Path(folder) for folder in given if isinstance(folder, str | Path)]
        folders.append(_checkpoint_of(args.output_dir, state))
        for folder in folders:
            if (folder / FILE).is_file() and _is_checkpoint_of(folder, state):
                saved = torch.load(folder / FILE, map_location="cpu", weights_only=True)
                self._observer.load_state_dict(saved)
                return
        looked = ", ".join(str(folder) for folder in folders)
        raise ValueError(
            f"training resumes at step {state.global_step}, and no {FILE} of that checkpoint is in "
            f"{looked}: give PoolStatsCallback its folder as resume_from=, or resume_from=False to "
            "begin the statistics here"
        )


@dataclass
class Collate:
    """The Trainer's collator, given the columns that it gives to it; ids are kept apart.

    With an ``id_column`` a batch is ``(ids, what the collator makes)``.
    """

    collate: Callable[[list[Any]], Any]
    columns: tuple[str, ...] | None
    id_column: str | None

    def __call__(self, samples: list[Any]) -> Any:
        first = samples[0]
        if self.id_column is not None and self.id_column not in first:
            columns = ", ".join(map(str, first)) if isinstance(first, Mapping) else "no columns"
            raise ValueError(f"the pool has no id_column {self.id_column!r}; it has {columns}")
        left_out = {self.id_column}
        left_out.update(name for name in LABELS if any(_is_unknown(s, name) for s in samples))
        batch = self.collate([self._features(sample, left_out) for sample in samples])
        if self.id_column is None:
            return batch
        return [sample[self.id_column] for sample in samples], batch

    def _features(self, sample: Any, left_out: set[str | None]) -> Any:
        if not isinstance(sample, Mapping):
            return sample
        kept = (name for name in sample if self.columns is None or name in self.columns)
        return {name: sample[name] for name in kept if name not in left_out}


def _is_unknown(sample: Any, label: str) -> bool:
    """Whether a label is None, or a text, such as an empty one, of which no tensor is made."""
    given = sample.get(label, 0) if isinstance(sample, Mapping) else 0
    return given is None or isinstance(given, str)


def as_dataset(pool: Any) -> Dataset[Any]:
    """Return the pool if it can be given to a ``DataLoader``; raises TypeError if not."""
    if isinstance(pool, IterableDataset) or (
        hasattr(pool, "__getitem__") and hasattr(pool, "__len__")
    ):
        return pool
    raise TypeError(
        "pool_dataset must be a data set with an index or a torch IterableDataset, got "
        f"{type(pool).__name__}"
    )


def logits_without_labels(model: nn.Module, batch: Any) -> Any:
    """Return ``model(**batch)``, of a plain tuple its first part that is no scalar.

    A loss, or None in its place, may stand before it.
    """
    output = model(**batch) if isinstance(batch, Mapping) else model(batch)
    if not isinstance(output, tuple) or hasattr(output, "logits"):
        return output
    parts = (part for part in output if isinstance(part, Tensor) and part.ndim >= 1)
    return next(parts, output)


def _base(model: nn.Module) -> nn.Module:
    """Return the model inside an adapter of PEFT, whose own ``forward`` takes anything."""
    inner: Any = getattr(model, "get_base_model", None)
    return inner() if inner is not None else model


def _checkpoint_of(folder: str | Path, state: Any) -> Path:
    return Path(folder) / f"checkpoint-{state.global_step}"


def _is_checkpoint_of(folder: Path, state: Any) -> bool:
    """Whether a folder holds the checkpoint that training resumes from, by its log."""
    try:
        saved = json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    log = json.dumps(state.log_history)
    return saved["global_step"] == state.global_step and json.dumps(saved["log_history"]) == log
