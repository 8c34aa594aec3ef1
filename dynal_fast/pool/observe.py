"""`observe_pool`: one pass of a model over the pool, folded into pool statistics."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dynal_fast.evaluating import evaluating
from dynal_fast.pool.accelerator import Accelerator, accelerator_of
from dynal_fast.pool.batches import checked_where, id_batches, is_one_shot
from dynal_fast.pool.candidates import integer
from dynal_fast.pool.ema import EMATeacher
from dynal_fast.pool.forward import Forward, model_call
from dynal_fast.pool.images import PoolImages
from dynal_fast.pool.mc_dropout import without_fast_path
from dynal_fast.pool.mc_passes import MCPasses, put_back
from dynal_fast.pool.multi_label import check_labels, check_model
from dynal_fast.pool.sharded.buffers import buffers_of_the_first
from dynal_fast.pool.sharded.shard import Shard
from dynal_fast.pool.store import checked_store, write_rows
from dynal_fast.pool.transfer import on_device
from dynal_fast.pool.twin import Bare

__all__ = ["PoolImages", "Tracker", "observe_pool"]


class Tracker(Protocol):
    """The methods of `PoolStats` that `observe_pool` calls."""

    def observes(self, epoch: int, num_epochs: int | None) -> bool:
        """Return whether this epoch is observed."""
        ...

    def observe(
        self, epoch: int, num_epochs: int | None, partial: bool = False
    ) -> AbstractContextManager[Any]:
        """Return a context that is one pass over the pool."""
        ...

    def update(
        self, sample_ids: Tensor, logits: Tensor, teacher_logits: Tensor | None = None
    ) -> Any:
        """Fold in a batch."""
        ...


def observe_pool(
    model: nn.Module,
    pool: Iterable[Any],
    stats: Tracker,
    *,
    epoch: int,
    num_epochs: int | None = None,
    ids: str | int | None = None,
    teacher: nn.Module | EMATeacher | None = None,
    forward: Forward | None = None,
    mc_passes: int = 0,
    embeddings: Any = None,
    head: str | None = None,
    accelerate: str | Accelerator = "off",
    partial: bool = False,
    amp: torch.dtype | None = None,
    channels_last: bool | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> bool:
    """Run ``model`` over ``pool`` once and fold its outputs into ``stats``.

    The pass runs in evaluation mode and without gradients. Afterwards, also after an exception,
    every submodule's training flag is restored, and so is torch's CPU random state (except with
    ``mc_passes``), so that observing does not change the training. If no tracked statistic observes
    the epoch, the pool is not read.

    If ``stats`` has a ``group``, every rank calls this with its part of the pool, which may be
    empty (`PoolShardSampler`), and the model has rank 0's buffers for the pass. The module inside a
    ``DistributedDataParallel`` is run, as the wrapper would wait for ranks with more batches.

    On a CUDA device the next batch is copied, from pinned memory on a stream of its own, while the
    model computes; bad rows are reported by the tracker when the pass ends.

    Parameters
    ----------
    model
        Maps inputs to logits ``(batch, classes)``, or to an output that has them as ``.logits``.
    pool
        A ``DataLoader`` or any iterable of batches ``(sample_ids, inputs)``, or a `PoolImages`. Ids
        are ``(batch,)`` integers of any type, as a tensor, an array or a list; inputs are a tensor
        or containers of tensors, which keep their types. Anything else in them, such as texts and
        ``None``, reaches the model as it is.
    stats
        The tracker, a ``PoolStats``, on the model's device. For a multi-label head it must have
        ``activation="sigmoid"``. A model whose ``config.problem_type`` is the other kind is
        refused, and so are dicts with multi-hot ``labels``; of other models nothing tells it.
    epoch, num_epochs
        The epoch just trained, from 1, and how many the cycle has (N_e of eq. 4 in the prediction
        stability paper). ``None`` if that is unknown: the default schedules then observe every
        epoch, a pass over the pool each (see `PoolStats.begin_pass`).
    ids
        Where a batch has its ids, if not first: the key of a dict, such as ``"idx"``, or the
        position in a tuple, such as 1 or -1. The inputs are the first other part of a tuple (more
        parts, such as targets, are ignored), or a dict without the ids. Labels in the dict reach
        the model, too, and Hugging Face models compute a loss from them. With ``"position"`` the
        samples are numbered by their positions in the pool, which must be a list or a
        ``DataLoader`` that does not shuffle; the inputs are the first part of a batch.
    teacher
        A second model, or an `EMATeacher`, that is given the same batches; its logits become the
        ``teacher_logits`` of `PoolStats.update`.
    forward
        ``forward(model, inputs)`` that returns logits, for models that return something else or
        take several arguments. By default ``model(inputs)``, and ``model(**inputs)`` of a dict
        whose keys are arguments of the model's ``forward``.
    mc_passes
        MC dropout: this many passes instead of one, with the dropout layers active and everything
        else in evaluation mode. Dropout layers are those of torch.nn, also inside attention and
        between recurrent layers, and layers of other libraries whose class is named like dropout,
        DropPath or stochastic depth. Functions such as ``torch.nn.functional.dropout`` cannot be
        switched on: a warning names the modules that call them, and ``forward`` may set their
        ``training`` flags, which are restored afterwards. To find these modules, the model is given
        the first batch a few more times. The teacher's dropout stays off.
    embeddings
        Where to write the embeddings of the same forward passes, ``(num_samples, d)``: what
        `embedding_store` returned, or another tensor or array like it. Row i is that of sample i;
        rows of samples that the pass does not see stay as they are. A model in ``torch.compile``'s
        wrapper then runs uncompiled, as hooks do not run in compiled code.
    head
        The name of the submodule whose input is the embedding, if not the last ``nn.Linear``;
        spatial inputs are averaged over the image.
    accelerate
        Run the pass through a twin of the model that is made for inference, at a lower price:
        ``"fold"``, ``"compile"`` or ``"auto"``, see `Accelerator`. The scores then differ from
        those of the model's own forward, ``"off"``, by rounding. Of a mode's name the twin is kept
        with the model; an `Accelerator` of your own says what was used, and serves a new model of
        the same kind, too. With ``mc_passes`` ... the passes of MC dropout.
    partial
        The pool holds only some of the tracker's samples: the others are not reported as unseen.
    amp
        Autocast to this dtype, such as ``torch.bfloat16``. By default there is no autocast, even if
        one is active around the call.
    channels_last
        Whether 4-D inputs get the channels-last layout; by default if the model's weights have it
        (convert them once with ``model.to(memory_format=torch.channels_last)``).
    device
        Where the inputs go; by default where the model's parameters are.
    progress
        Whether to show a progress bar on stderr; by default if that is a terminal.

    Returns
    -------
    bool
        Whether this epoch was observed. False also if the pool has no samples: nothing is recorded
        then, and without ``partial`` the tracker reports its samples as unseen. With a ``group``
        it is the same on all ranks.

    Raises
    ------
    TypeError
        A batch has no ids where they should be, the output has no logits, ``mc_passes`` is not an
        integer, or ``embeddings`` not a tensor or an array.
    ValueError
        Ids are not ``(batch,)`` integers or not as many as samples; logits are not
        ``(batch, classes)``; model and tracker are not of the same activation; ``mc_passes`` is
        negative, or nothing in the model is random; the pool is an iterator that is used up or
        cannot give several passes; or ``embeddings`` does not fit the model and the tracker, the
        model has no ``head``, or there are ``mc_passes``.
    PoolObservationError
        Of the tracker, when the pass ends: bad rows, or samples that were not seen.

    Warns
    -----
    UserWarning
        With ``mc_passes``, some of the model's dropout stays off.

    Examples
    --------
    >>> from dynal_fast import PoolStats
    >>> stats = PoolStats(5, 10, track=("margin",))  # observes the last epoch
    >>> model = nn.Linear(64, 10)
    >>> inputs = torch.randn(5, 64)
    >>> pool = [(torch.tensor([0, 1, 2]), inputs[:3]), (torch.tensor([3, 4]), inputs[3:])]
    >>> for epoch in (1, 2):
    ...     print(observe_pool(model, pool, stats, epoch=epoch, num_epochs=2))
    False
    True
    >>> stats.select("margin", 2).shape
    torch.Size([2])
    """
    model = _inside(model)
    passes = checked_passes(mc_passes)
    store = checked_store(embeddings, getattr(stats, "num_samples", None), passes)
    where = checked_where(ids, pool)
    check_model(model, stats)
    if not stats.observes(epoch, num_epochs):
        return False
    if passes > 1 and is_one_shot(pool):
        raise ValueError(
            f"the pool must be iterable {passes} times for mc_passes={passes}, and "
            f"{type(pool).__name__} is used up after one: pass a DataLoader or a list"
        )
    teacher_model = teacher.model if isinstance(teacher, EMATeacher) else teacher
    teacher_model = None if teacher_model is None else _inside(teacher_model)
    shard = _shard_of(stats)
    target = torch.empty(0, device=device or _device_of(model)).device
    if channels_last is None:
        channels_last = _is_channels_last(model)
    if store is not None:
        model = getattr(model, "_orig_mod", model)
    call = forward or model_call()
    accelerator = accelerator_of(accelerate, model, forward, bool(passes))
    batches = _Batches(pool, stats, where, forward is None, target, channels_last, progress)

    with ExitStack() as stack:
        if shard is not None:
            stack.enter_context(shard.session())
            stack.enter_context(buffers_of_the_first(shard.ranks, model, teacher_model))
        stack.enter_context(evaluating(model, teacher_model))
        if passes:
            stack.enter_context(without_fast_path())
        else:
            stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.callback(torch.clear_autocast_cache)
        # Not inference_mode: tensors that a model creates and keeps could not be trained with.
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(target.type, dtype=amp, enabled=amp is not None))
        if passes:
            mc = MCPasses(model, call, teacher_model, target, passes, accelerator)
            stack.callback(mc.close)
            for index in range(passes):
                samples = mc.kept_batches() or batches.from_first_sample()
                if samples is None:
                    return _nothing_observed(pool, stats, epoch, num_epochs, partial, index, passes)
                if index == 0:
                    samples = mc.begin(samples)
                    check_model(model, stats)
                with stats.observe(epoch, num_epochs, partial=partial):
                    for sample_ids, logits, teacher_logits in mc.observed(samples):
                        _update(stats, sample_ids, logits, teacher_logits)
            return True
        samples = batches.from_first_sample()
        if samples is None:
            return _nothing_observed(pool, stats, epoch, num_epochs, partial, 0, 0)
        count = _passes_of_cycle(stats, epoch, num_epochs)
        run = accelerator.runner(Bare(model, call, store is not None, head), batches.count(), count)
        run_teacher = None
        if teacher_model is not None:
            run_teacher = accelerator.of_teacher().runner(
                Bare(teacher_model, call, False, None), batches.count(), count
            )
        with stats.observe(epoch, num_epochs, partial=partial):
            for number, (sample_ids, inputs) in enumerate(samples):
                logits, embedding = run(sample_ids, inputs)
                if number == 0:
                    check_model(model, stats)  # labels may have told it what it is
                if store is not None and embedding is not None:
                    write_rows(store, sample_ids, embedding)
                teacher_logits = None
                if run_teacher is not None:
                    teacher_logits = run_teacher(sample_ids, inputs)[0]
                _update(stats, sample_ids, logits, teacher_logits)
    return True


class _Batches:
    """The batches of a pool on a device, again for each pass."""

    def __init__(
        self,
        pool: Iterable[Any],
        stats: Tracker,
        where: str | int | None,
        check_sizes: bool,
        device: torch.device,
        channels_last: bool,
        progress: bool | None,
    ) -> None:
        self.pool = pool
        self.stats = stats
        self.make: Callable[[], Iterator[Any]] = lambda: on_device(
            id_batches(pool, where, check_sizes), device, channels_last
        )
        self.hidden = None if progress is None else not progress

    def count(self) -> int | None:
        """Return how many batches there are, None if the pool does not say."""
        try:
            return len(self.pool)  # type: ignore[arg-type]
        except TypeError:  # a DataLoader over an IterableDataset has __len__ and refuses
            return None

    def from_first_sample(self) -> Iterator[tuple[Tensor, Any]] | None:
        """Return the batches from the first one that has samples, None if none has."""
        shown = tqdm(
            self.make(), "observing the pool", self.count(), disable=self.hidden, leave=False
        )
        samples = itertools.dropwhile(lambda batch: len(batch[0]) == 0, shown)
        first = next(samples, None)
        if first is None:
            return None
        check_labels(first[1], self.stats)
        return put_back([first], samples)


def _update(
    stats: Tracker, sample_ids: Tensor, logits: Tensor, teacher_logits: Tensor | None
) -> None:
    if teacher_logits is None:
        stats.update(sample_ids, logits)
    else:
        stats.update(sample_ids, logits, teacher_logits)


def _passes_of_cycle(stats: Tracker, epoch: int, num_epochs: int | None) -> int:
    """Return how many epochs of this cycle are observed, so that a resumed one counts the same."""
    if num_epochs is None:
        return 1
    count = sum(stats.observes(each, num_epochs) for each in range(1, num_epochs + 1))
    stats.observes(epoch, num_epochs)  # the tracker remembers which epoch it was asked last
    return count


def checked_passes(mc_passes: Any) -> int:
    """Return ``mc_passes`` as an int of 0 or more."""
    passes = integer("mc_passes", mc_passes)
    if passes < 0:
        raise ValueError(f"mc_passes must be 0 (evaluation mode) or more, got {passes}")
    return passes


def _nothing_observed(
    pool: Iterable[Any],
    stats: Tracker,
    epoch: int,
    num_epochs: int | None,
    partial: bool,
    index: int,
    passes: int,
) -> bool:
    """Return False for a pass that saw no sample, or raise if that must be a mistake."""
    if index > 0:
        raise ValueError(
            f"pass {index + 1} of mc_passes={passes} got no sample from the pool, which gave some "
            "in the passes before: pass a pool that can be iterated repeatedly, a DataLoader or a "
            "list"
        )
    if is_one_shot(pool):
        raise ValueError(
            f"the pool is used up: a {type(pool).__name__} gives its batches once; pass a new one "
            "to each call, or a DataLoader or a list"
        )
    shared = _shard_of(stats) is not None
    for _ in range(max(1, passes) if shared else 0 if partial else 1):
        with stats.observe(epoch, num_epochs, partial=partial):
            pass
    return shared


def _inside(model: nn.Module) -> nn.Module:
    """Return the module inside a wrapper for data-parallel training."""
    module: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return module


def _shard_of(stats: Tracker) -> Shard | None:
    """Return what this rank owns of statistics that several keep, None if one keeps them."""
    shard = getattr(stats, "shard", None)
    return shard if isinstance(shard, Shard) and not shard.is_whole else None


def _device_of(model: nn.Module) -> torch.device:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _is_channels_last(model: nn.Module) -> bool:
    return any(
        weight.ndim == 4
        and weight.is_contiguous(memory_format=torch.channels_last)
        and not weight.is_contiguous()
        for weight in model.parameters()
    )
