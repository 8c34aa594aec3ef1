"""PyTorch Lightning: a callback that observes a pool while a ``Trainer`` trains.

For both names of the library, ``lightning.pytorch`` and ``pytorch_lightning``.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from dynal_fast.integrations.observer import (
    PoolObserver,
    Teacher,
    check_function,
    check_pool_scores,
)
from dynal_fast.integrations.training_batches import TrainingObserver, logits_in, part_of
from dynal_fast.pool import Accelerator, PoolImages, PoolStats
from dynal_fast.pool.accelerator import Mode
from dynal_fast.pool.batches import checked_where
from dynal_fast.pool.forward import Forward, model_call
from dynal_fast.pool.sizes import are_texts

try:
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback
    else:
        from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError as error:
        raise ImportError(
            "dynal_fast.integrations.lightning needs PyTorch Lightning: "
            "pip install 'dynal_fast[lightning]'"
        ) from error

__all__ = ["PoolStatsCallback"]

# Others keep a part of the weights in each process, and need all of them for every batch.
STRATEGIES = ("SingleDeviceStrategy", "DDPStrategy")
SHARDED = ("DeepSpeedStrategy",)


class PoolStatsCallback(Callback):
    """Observe a pool at the end of training epochs, as `observe_pool` does.

    The pool goes through the module in evaluation mode, with the trainer's precision, on its device
    and through the module's hooks for batches, while ``trainer.predicting`` is true. Training is
    what it would be without the callback, bit for bit: weights, buffers, training flags and random
    states are as they were.

    The statistics are in the trainer's checkpoints, and a resumed training goes on with them. With
    the DDP strategy each process observes its share of the batches, and afterwards all hold the
    statistics of one process that saw them all.

    The trainer's ``max_epochs`` is the number of epochs that schedules count back from. It is
    unknown where ``max_steps``, ``max_time`` or early stopping may end the training: see
    `PoolStats.begin_pass`. Where something else ends it, scores of a single output get a pass then.

    Parameters
    ----------
    stats
        The statistics, one row for each sample of the pool.
    pool_dataloader
        Your ``DataLoader`` of the pool. A sample's id is its index in the data set: the samples
        come in the order of the data set, in batches of your size, made by your ``collate_fn`` and
        workers, without those that were dropped from ``stats``. With ``ids``, anything that
        `observe_pool` takes.
    get_logits
        ``get_logits(module, batch)`` returns the logits ``(batch, classes)`` for a batch of the
        loader. By default ``module(batch)``, of a tuple or list ``module(batch[0])``, and of a dict
        whose keys are arguments of ``forward`` ``module(**batch)``; an output may have ``.logits``.
    every_n_epochs
        Of the epochs that ``stats`` observes, only each n-th, and the last where it is known.
    teacher
        A second module, or an `EMATeacher`, for ``emaod``. A teacher that follows no optimizer is
        attached to the trainer's for the training; its state is in the checkpoints, too.
    ids
        Where a batch has its samples' ids, as in `observe_pool`; needed where positions in the data
        set are not known: ``batch_size=None``, several workers that share an ``IterableDataset``.
    mc_passes, partial
        As in `observe_pool`.
    accelerate
        As in `observe_pool`; ``"auto"`` knows how many passes the training has. What the last pass
        used is ``callback.accelerator.used``, and a training that resumes uses the same.
    train
        Observe the training batches as they go by instead of a pool, without a second forward pass:
        ``stats`` has a row for each sample of the training set, and ``ids`` says where a batch has
        its samples'. Logits are what the module returned when ``training_step`` called it, or
        ``training_step`` returns them, ``{"loss": loss, "logits": logits}``. Of several calls in a
        step, and of several rows of a sample in an epoch, the first counts.
    targets
        With ``train``: where a batch has its classes, a key or a position; or the classes of all
        samples by id. By default the key ``labels``, ``label``, ``targets``, ``target`` or ``y``,
        or position 1, which must then not be that of the ids. Of rows ``(batch, classes)``, such as
        one-hot ones, the largest is taken; a column ``(batch, 1)`` has the classes themselves.
    name
        Tells the callbacks of one trainer apart in its checkpoints, where there are several.

    Raises
    ------
    TypeError, ValueError
        An argument is not one of the above, or the pool's samples cannot be numbered.

    Examples
    --------
    >>> import lightning, torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from dynal_fast import PoolStats
    >>> class Classifier(lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(4, 3)
    ...     def forward(self, x):
    ...         return self.layer(x)
    ...     def training_step(self, batch, index):
    ...         return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    >>> labeled = TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    >>> pool = TensorDataset(torch.randn(20, 4))
    >>> stats = PoolStats(20, 3, track=("margin",))
    >>> callback = PoolStatsCallback(stats, DataLoader(pool, batch_size=8))
    >>> trainer = lightning.Trainer(
    ...     max_epochs=2, callbacks=[callback], accelerator="cpu", logger=False, barebones=True
    ... )
    >>> trainer.fit(Classifier(), DataLoader(labeled, batch_size=4))
    >>> stats.select("margin", 3).shape
    torch.Size([3])
    """

    def __init__(
        self,
        stats: PoolStats,
        pool_dataloader: Any = None,
        get_logits: Forward | None = None,
        every_n_epochs: int = 1,
        teacher: Teacher | None = None,
        *,
        ids: str | int | None = None,
        mc_passes: int = 0,
        partial: bool = False,
        accelerate: Mode | Accelerator = "off",
        train: bool = False,
        targets: Any = None,
        name: str = "",
    ) -> None:
        super().__init__()
        check_function("get_logits", get_logits)
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, got {name!r}")
        self._observer: PoolObserver
        self._training: TrainingObserver | None = None
        self._loader, self._ids, self._name = pool_dataloader, ids, name
        if train:
            given = [pool_dataloader, get_logits, teacher, mc_passes or None, partial or None]
            given += [None if accelerate == "off" else accelerate]
            if ids is None or any(value is not None for value in given):
                raise ValueError(
                    "with train=True give ids=, where a training batch has its samples' ids, and "
                    "no pool_dataloader, get_logits, teacher, mc_passes, partial or accelerate"
                )
            self._observer = self._training = TrainingObserver(stats, every_n_epochs, targets)
            if ids == 1 and targets is None and self._training.needs_targets:
                raise ValueError(
                    "targets are taken from position 1 of a training batch by default, and ids=1 "
                    "says that the ids are there: give targets=, the position of the classes"
                )
            self._hook: Any = None
            self._logits: Any = None
            return
        if targets is not None:
            raise ValueError("targets are of training batches: pass train=True")
        self._observer = PoolObserver(
            stats, every_n_epochs, teacher, mc_passes, partial, accelerate
        )
        has_ids = ids is not None or isinstance(pool_dataloader, PoolImages)
        self._forward = get_logits or (model_call() if has_ids else first_part_call())
        check_pool_scores(stats, "ids")
        if has_ids:
            checked_where(ids, pool_dataloader)  # raises here rather than after an epoch
        else:
            self._observer.numbered(pool_dataloader)

    @property
    def stats(self) -> PoolStats:
        """The statistics."""
        return self._observer.stats

    @property
    def accelerator(self) -> Accelerator:
        """What ran the passes; its ``used`` says how."""
        return self._observer.accelerator

    @property
    def state_key(self) -> str:
        """The key of the statistics among the callbacks of a checkpoint."""
        return f"PoolStatsCallback{self._name and ':' + self._name}"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that every process has the whole model."""
        if stage != "fit":
            return
        kinds = {kind.__name__ for kind in type(trainer.strategy).__mro__}
        if not kinds.intersection(STRATEGIES) or kinds.intersection(SHARDED):
            raise ValueError(
                "PoolStatsCallback observes with the strategies of one device and DDP, and "
                f"{type(trainer.strategy).__name__} spreads the model itself over processes"
            )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the teacher, and tell a new training from one that goes on.

        A checkpoint that was saved between the last batch of an epoch and its end lacks the pass of
        that epoch, which is made up for here.
        """
        lacks_pass = self._observer.begin(trainer.current_epoch, trainer.optimizers)
        if self._training is not None:
            self._hook = pl_module.register_forward_hook(self._keep_logits)
        elif lacks_pass:
            self._observe(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Observe the pool, if the statistics want this epoch.

        Raises
        ------
        PoolObservationError
            Of the tracker: bad rows, or samples that were not seen.
        """
        if self._training is not None:
            self._training.end_epoch()
        else:
            self._observe(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Observe the last output of a training that ended before its last epoch.

        A callback of yours may have stopped it. The scores of a single output then get that of the
        last epoch there was; statistics over epochs are left as they are.
        """
        epoch, num_epochs = trainer.current_epoch, num_epochs_of(trainer)
        if self._training is None and self._observer.lacks_last(epoch, num_epochs):
            with self._observer.training_stopped(epoch):
                self._observe(trainer, pl_module, epoch, stopped=True)

    # Training batches

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin the pass of an epoch at its first batch, with ``train``.

        A training that resumes within an epoch does not tell that the epoch starts.
        """
        self._logits = None
        if self._training is not None and not self._training.observing:
            self._training.begin_epoch(trainer.current_epoch + 1, num_epochs_of(trainer))

    def _keep_logits(self, module: Any, inputs: Any, output: Any) -> None:
        training = self._training
        wanted = training is not None and training.observing and module.training
        if wanted and self._logits is None:  # of several calls the first
            self._logits = logits_in(output, self.stats.num_classes)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fold in the outputs that ``training_step`` computed, with ``train``.

        Raises
        ------
        ValueError
            There are none, or no ids or targets.
        """
        if self._training is None or not self._training.observing:
            return
        returned = outputs.get("logits") if isinstance(outputs, Mapping) else None
        logits, self._logits = self._logits if returned is None else returned, None
        if logits is None:
            raise ValueError(
                "training_step gave no logits (batch, "
                f"{self.stats.num_classes}): it must call the module itself, as self(inputs), or "
                'return {"loss": loss, "logits": logits}'
            )
        self._training.saw(part_of(batch, self._ids, "ids"), logits, batch)
        if trainer.is_last_batch:  # before a validation that saves a checkpoint
            self._training.end_epoch()

    # A pass over the pool

    def _observe(self, trainer: Any, pl_module: Any, epoch: int, stopped: bool = False) -> None:
        precision, num_epochs = trainer.precision_plugin, num_epochs_of(trainer)

        def place(batch: Any) -> Any:
            batch = pl_module._on_before_batch_transfer(precision.convert_input(batch))
            return trainer.strategy.batch_to_device(batch)

        def forward(module: nn.Module, batch: Any) -> Any:
            with precision.forward_context():
                return self._forward(module, batch)

        shows_progress = trainer.progress_bar_callback is not None
        trainer.predicting = True
        try:
            self._observer.observe(
                pl_module,
                self._loader,
                self._ids,
                epoch,
                epoch if stopped and num_epochs is not None else num_epochs,
                forward,
                place,
                # A twin's graph holds no context, so autocast has to be around all of the pass.
                amp=None if self.accelerator.mode == "off" else mixed_precision_of(precision),
                device=trainer.strategy.root_device,
                progress=None if shows_progress else False,
            )
        finally:
            trainer.training = True

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Detach the teacher and end the workers."""
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach the teacher and end the workers."""
        self._end()

    def _end(self) -> None:
        self._observer.end()
        if self._training is not None and self._hook is not None:
            self._hook.remove()
            self._hook = self._logits = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: plain tensors, numbers and names."""
        return self._observer.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises
        ------
        ValueError
            The statistics are not like those of this callback, or were saved in the middle of a
            pass.
        """
        self._observer.load_state_dict(state_dict)


def num_epochs_of(trainer: Any) -> int | None:
    """Return how many epochs a trainer will train, or None where something else may end it."""
    if trainer.max_epochs is None or trainer.max_epochs < 1 or trainer.max_steps != -1:
        return None
    names = {kind.__name__ for callback in trainer.callbacks for kind in type(callback).__mro__}
    return None if names & {"EarlyStopping", "Timer"} else trainer.max_epochs


def mixed_precision_of(plugin: Any) -> torch.dtype | None:
    """Return the dtype to which a precision plugin autocasts, None if it does not."""
    named = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
    return named.get(getattr(plugin, "precision", ""))


def first_part_call() -> Forward:
    """Return a function that calls a module with the inputs among the parts of a batch.

    >>> import torch
    >>> first_part_call()(nn.Flatten(), [torch.zeros(2, 3, 1), torch.tensor([0, 1])]).shape
    torch.Size([2, 3])
    """
    call = model_call()

    def forward(module: nn.Module, batch: Any) -> Any:
        in_parts = isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence)
        return call(module, batch[0] if in_parts and batch and not are_texts(batch) else batch)

    return forward
