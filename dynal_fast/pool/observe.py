"""Streaming pool inference: one pass of a model over the pool, folded into pool statistics."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dynal_fast.evaluating import evaluating
from dynal_fast.pool.batches import checked_where, id_batches, is_one_shot
from dynal_fast.pool.containers import map_tensors
from dynal_fast.pool.ema import EMATeacher
from dynal_fast.pool.forward import Forward, logits_of, model_call
from dynal_fast.pool.images import PoolImages
from dynal_fast.pool.mc_dropout import activate_dropout, switched_off, without_fast_path
from dynal_fast.pool.top import integer
from dynal_fast.pool.transfer import on_device

__all__ = ["PoolImages", "Tracker", "observe_pool"]


class Tracker(Protocol):
    """What `observe_pool` asks of pool statistics; ``PoolStats`` has it."""

    def observes(self, epoch: int, num_epochs: int | None) -> bool: ...

    def observe(
        self, epoch: int, num_epochs: int | None, partial: bool = False
    ) -> AbstractContextManager[Any]: ...

    def update(
        self, sample_ids: Tensor, logits: Tensor, teacher_logits: Tensor | None = None
    ) -> Any: ...


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
    partial: bool = False,
    amp: torch.dtype | None = None,
    channels_last: bool | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> bool:
    """Run ``model`` over ``pool`` once and fold its outputs into ``stats``.

    The model is in evaluation mode meanwhile, and without gradients; afterwards, also after an
    exception, every submodule's training flag is what it was, and so is torch's CPU random state
    (with ``mc_passes`` it moves on): training does not depend on what is observed. An epoch that
    no tracked statistic wants costs nothing: the pool is not touched.

    On a CUDA device no batch waits for the one before: batches are copied from pinned memory on a
    stream of their own, and bad rows are reported by the tracker when the pass ends.

    Parameters
    ----------
    model
        Maps inputs to logits (batch, classes), or to an output that has them as ``.logits``.
    pool
        A ``DataLoader`` (or any iterable) of batches ``(sample_ids, inputs)``: ids (batch,) of
        any integer type, as a tensor, an array or a list, and inputs a tensor or containers of
        tensors, which keep their types. All else in them, such as texts and ``None``, reaches the
        model as it is. Or a `PoolImages`, whose images are on the device already.
    stats
        The tracker, a ``PoolStats``, on the model's device.
    epoch, num_epochs
        The epoch just trained, from 1, and how many the cycle has (N_e of eq. 4 in the prediction
        stability paper). ``None`` where that is not known: the default schedules then observe every
        epoch, a pass over the pool each (see ``PoolStats.begin_pass``).
    ids
        Where else a batch has its ids: the key of a dict, such as ``"idx"``, or the position in a
        tuple, such as 1 or -1. Of the other parts, the first is the inputs, and further ones, such
        as targets, are left aside; of a dict, all others are. Labels that are among them reach the
        model, too, and Hugging Face models compute a loss from them. ``"position"`` takes the
        samples' positions in the pool, which must be a list or a ``DataLoader`` that does not
        shuffle; the first part of a batch is the inputs.
    teacher
        A second model, or an `EMATeacher`, that sees the same batches; its logits go to the
        tracker as ``teacher_logits``.
    forward
        ``forward(model, inputs)`` that returns logits, for models that return something else or
        take several arguments. By default ``model(inputs)``, and ``model(**inputs)`` of a dict
        whose keys are arguments of the model's ``forward``.
    mc_passes
        MC dropout: this many passes instead of one, with the dropout layers active and all else in
        evaluation mode: those of torch.nn, also inside attention and between recurrent layers, and
        layers of other libraries that are called something like dropout, DropPath or stochastic
        depth. Functions like ``torch.nn.functional.dropout`` cannot be switched on; where the
        model calls some, a warning names the modules. ``forward`` may set their ``training``,
        which is restored afterwards. The model sees the first batch a few times more, to find
        that out. The teacher's dropout stays off.
    partial
        The pool deliberately lacks samples that the tracker has: they are not reported as unseen.
    amp
        Autocast to this dtype, such as ``torch.bfloat16``; by default no autocast, also where one
        is active around the call.
    channels_last
        Lay 4-D inputs out as channels-last. By default as the model's weights are; convert
        those once with ``model.to(memory_format=torch.channels_last)``.
    device
        Where the inputs go; by default where the model's parameters are.
    progress
        A progress bar on stderr; by default where that is a terminal.

    Returns
    -------
    bool
        Whether this epoch was observed. Not if the pool has no samples: nothing is recorded then,
        and without ``partial`` the tracker reports those that it misses.

    Raises
    ------
    TypeError
        A batch has no ids where they should be, or the output has no logits; ``mc_passes`` is no
        integer.
    ValueError
        Ids are not (batch,) integers or not as many as samples; logits are not (batch, classes);
        ``mc_passes`` is negative, or nothing in the model is random; the pool is an iterator that
        is used up, or that cannot give several passes.

    Warns
    -----
    UserWarning
        With ``mc_passes``, some of the model's dropout stays off.

    Examples
    --------
    >>> from contextlib import nullcontext
    >>> class Printer:
    ...     def observes(self, epoch, num_epochs):
    ...         return epoch == num_epochs
    ...     def observe(self, epoch, num_epochs, partial=False):
    ...         return nullcontext()
    ...     def update(self, sample_ids, logits, teacher_logits=None):
    ...         print(sample_ids.tolist(), tuple(logits.shape))
    >>> images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
    >>> pool = PoolImages(images, mean=0.5, std=0.5, batch_size=3)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> observe_pool(model, pool, Printer(), epoch=1, num_epochs=2)
    False
    >>> observe_pool(model, pool, Printer(), epoch=2, num_epochs=2)
    [0, 1, 2] (3, 10)
    [3, 4] (2, 10)
    True
    """
    passes = _checked_passes(mc_passes)
    where = checked_where(ids, pool)
    if not stats.observes(epoch, num_epochs):
        return False
    if passes > 1 and is_one_shot(pool):
        raise ValueError(
            f"the pool must be iterable {passes} times for mc_passes={passes}, and "
            f"{type(pool).__name__} is used up after one: pass a DataLoader or a list"
        )
    teacher_model = teacher.model if isinstance(teacher, EMATeacher) else teacher
    target = torch.empty(0, device=device or _device_of(model)).device
    if channels_last is None:
        channels_last = _is_channels_last(model)
    run = forward or model_call()

    def logits_for(observed: nn.Module, sample_ids: Tensor, inputs: Any) -> Tensor:
        if passes:  # dropout may work in place, and the pool is to be the same in all passes
            inputs = map_tensors(Tensor.clone, inputs)
        return logits_of(run(observed, inputs), observed, len(sample_ids))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model, teacher_model))
        if passes:
            stack.enter_context(without_fast_path())
        else:
            stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.callback(torch.clear_autocast_cache)
        # Not inference_mode: what a model creates lazily and keeps could not be trained with.
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(target.type, dtype=amp, enabled=amp is not None))
        shared: list[nn.Module] = []
        for index in range(passes or 1):
            batches = tqdm(
                on_device(id_batches(pool, where, forward is None), target, channels_last),
                "observing the pool",
                _num_batches(pool),
                disable=None if progress is None else not progress,
                leave=False,
            )
            samples = _from_first_sample(batches)
            first = next(samples, None)
            if first is None:
                return _nothing_observed(pool, stats, epoch, num_epochs, partial, index, passes)
            if passes and index == 0:
                layers = activate_dropout(
                    model, functools.partial(logits_for, model, *first), target
                )
                of_teacher = set(teacher_model.modules()) if teacher_model is not None else set()
                shared = [layer for layer in layers.values() if layer in of_teacher]
            with stats.observe(epoch, num_epochs, partial=partial):
                samples = itertools.chain([first], samples)
                del first  # the batch, once it is done
                for sample_ids, inputs in samples:
                    logits = logits_for(model, sample_ids, inputs)
                    if teacher_model is None:
                        stats.update(sample_ids, logits)
                        continue
                    with switched_off(shared):
                        teacher_logits = logits_for(teacher_model, sample_ids, inputs)
                    stats.update(sample_ids, logits, teacher_logits)
    return True


def _checked_passes(mc_passes: Any) -> int:
    passes = integer("mc_passes", mc_passes)
    if passes < 0:
        raise ValueError(f"mc_passes must be 0 (evaluation mode) or more, got {passes}")
    return passes


def _from_first_sample(batches: Iterable[tuple[Tensor, Any]]) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches from the first one that has samples."""
    return itertools.dropwhile(lambda batch: len(batch[0]) == 0, batches)


def _nothing_observed(
    pool: Iterable[Any],
    stats: Tracker,
    epoch: int,
    num_epochs: int | None,
    partial: bool,
    index: int,
    passes: int,
) -> bool:
    """Return that a pass saw no sample, or raise where that cannot be meant."""
    if index > 0:
        raise ValueError(
            f"pass {index + 1} of mc_passes={passes} got no sample from the pool, which gave some "
            "in the passes before: it must be iterable again and again, like a DataLoader or a list"
        )
    if is_one_shot(pool):
        raise ValueError(
            f"the pool is used up: a {type(pool).__name__} gives its batches once; pass a new one "
            "for each call, or a DataLoader or a list"
        )
    if not partial:
        with stats.observe(epoch, num_epochs, partial=partial):
            pass
    return False


def _num_batches(pool: Iterable[Any]) -> int | None:
    try:
        return len(pool)  # type: ignore[arg-type]
    except TypeError:  # a DataLoader over an IterableDataset has __len__ and refuses
        return None


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
