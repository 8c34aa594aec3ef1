"""Streaming pool inference: one pass of a model over the pool, folded into pool statistics."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dynal_fast.pool.ema import EMATeacher
from dynal_fast.pool.normalize import Normalize
from dynal_fast.pool.transfer import on_device

Forward = Callable[[nn.Module, Any], Tensor]

DROPOUT_LAYERS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


class Tracker(Protocol):
    """What `observe_pool` asks of pool statistics; ``PoolStats`` has it."""

    def observes(self, epoch: int, num_epochs: int) -> bool: ...

    def observe(
        self, epoch: int, num_epochs: int, partial: bool = False
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
    num_epochs: int,
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
        Maps inputs to logits (batch, classes).
    pool
        A ``DataLoader`` (or any iterable) of batches ``(sample_ids, inputs)``: ids (batch,) int64
        or int32, inputs a tensor or a tuple, list or dict of tensors. Or a `PoolImages`, whose
        images are on the device already.
    stats
        The tracker, a ``PoolStats``, on the model's device.
    epoch, num_epochs
        The epoch just trained, from 1, and how many the cycle has (N_e of eq. 4 in the prediction
        stability paper).
    teacher
        A second model, or an `EMATeacher`, that sees the same batches; its logits go to the
        tracker as ``teacher_logits``.
    forward
        ``forward(model, inputs) -> logits`` for models that return more than logits or take
        several arguments; by default ``model(inputs)``.
    mc_passes
        MC dropout: this many passes instead of one, with the dropout layers active and all else
        in evaluation mode. Only layers of torch.nn are found, not ``torch.nn.functional.dropout``.
        The teacher's dropout stays off.
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
        Whether this epoch was observed.

    Raises
    ------
    TypeError
        A batch is not a pair, or the output is not a tensor.
    ValueError
        ``mc_passes`` is negative, or the model has no dropout layer for it.

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
    if mc_passes < 0:
        raise ValueError(f"mc_passes must be 0 (evaluation mode) or more, got {mc_passes}")
    if not stats.observes(epoch, num_epochs):
        return False
    teacher_model = teacher.model if isinstance(teacher, EMATeacher) else teacher
    target = torch.empty(0, device=device or _device_of(model)).device
    if channels_last is None:
        channels_last = _is_channels_last(model)
    forward = forward or _call

    with ExitStack() as stack:
        stack.enter_context(evaluating(model, teacher_model))
        if mc_passes:
            _activate_dropout(model)
        else:
            stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.callback(torch.clear_autocast_cache)
        # Not inference_mode: what a model creates lazily and keeps could not be trained with.
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(target.type, dtype=amp, enabled=amp is not None))
        for _ in range(mc_passes or 1):
            with stats.observe(epoch, num_epochs, partial=partial):
                batches = tqdm(
                    _on_device(pool, target, channels_last),
                    "observing the pool",
                    _num_batches(pool),
                    disable=None if progress is None else not progress,
                    leave=False,
                )
                for sample_ids, inputs in batches:
                    logits = _logits(forward, model, inputs)
                    if teacher_model is None:
                        stats.update(sample_ids, logits)
                    else:
                        stats.update(sample_ids, logits, _logits(forward, teacher_model, inputs))
    return True


class PoolImages:
    """Images that stay on the device as uint8 and are normalised batch by batch.

    Takes the place of a DataLoader for pools that fit into device memory (50,000 images of
    32 x 32 x 3 are 154 MB): no workers, no copies from the host. Iterating yields
    ``(sample_ids, inputs)`` on the device, ids (batch,) int64 and inputs
    (batch, channels, height, width) of ``dtype``: ``(pixel / 255 - mean) / std``.

    Parameters
    ----------
    images
        (n, channels, height, width) uint8, tensor or array. Image i is sample i.
    mean, std
        Of pixels scaled to [0, 1]: one number, or one per channel.
    batch_size
        Images a batch.
    sample_ids
        (m,) integers: the samples to stream, in this order; by default all n in order.
    device
        Where the images go, if they are not there; by default where they are.
    dtype
        Of the inputs.

    Raises
    ------
    ValueError
        ``images`` is not 4-D uint8, ``mean`` or ``std`` has not one number or one per channel, a
        ``std`` is not positive, ``batch_size`` is below 1, or an id is outside [0, n).

    Examples
    --------
    >>> images = torch.full((3, 1, 2, 2), 255, dtype=torch.uint8)
    >>> pool = PoolImages(images, mean=0.5, std=0.25, batch_size=2, sample_ids=[2, 0])
    >>> [(ids.tolist(), inputs.unique().tolist()) for ids, inputs in pool]
    [([2, 0], [2.0])]
    """

    def __init__(
        self,
        images: Any,
        *,
        mean: Any,
        std: Any,
        batch_size: int = 512,
        sample_ids: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        images = torch.as_tensor(images)
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                "images must be (n, channels, height, width) uint8, "
                f"got {tuple(images.shape)} {images.dtype}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.images = images.to(device) if device is not None else images
        self.batch_size = batch_size
        self._normalize = Normalize(mean, std, images.shape[1], self.images.device, dtype)
        self.sample_ids = self._checked_ids(sample_ids)

    def with_ids(self, sample_ids: Any) -> "PoolImages":
        """Return a pool of these samples only, in this order, over the same memory.

        >>> images = torch.zeros(4, 1, 1, 1, dtype=torch.uint8)
        >>> pool = PoolImages(images, mean=0, std=1)
        >>> [ids.tolist() for ids, _ in pool.with_ids([3, 1])]
        [[3, 1]]
        """
        other = object.__new__(PoolImages)
        other.__dict__.update(self.__dict__)
        other.sample_ids = other._checked_ids(sample_ids)
        return other

    def __len__(self) -> int:
        """Return the number of batches."""
        n = len(self.images) if self.sample_ids is None else len(self.sample_ids)
        return -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            if self.sample_ids is None:
                pixels = self.images[start : start + self.batch_size]
                ids = torch.arange(start, start + len(pixels), device=self.images.device)
            else:
                ids = self.sample_ids[start : start + self.batch_size]
                pixels = self.images[ids]
            yield ids, self._normalize(pixels)

    def _checked_ids(self, sample_ids: Any) -> Tensor | None:
        if sample_ids is None:
            return None
        ids = torch.as_tensor(sample_ids)
        if ids.shape == (0,):
            ids = ids.long()
        if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ValueError(f"sample_ids must be 1-D integers, got {tuple(ids.shape)} {ids.dtype}")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.images):
            raise ValueError(
                f"sample_ids must be in [0, {len(self.images)}), "
                f"got values from {int(ids.min())} to {int(ids.max())}"
            )
        return ids.to(self.images.device, torch.int64)


@contextmanager
def evaluating(*models: nn.Module | None) -> Iterator[None]:
    """Evaluation mode; afterwards every submodule's flag as it was."""
    modules = [module for model in models if model is not None for module in model.modules()]
    flags = [module.training for module in modules]
    try:
        for model in models:
            if model is not None:
                model.eval()
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


def _activate_dropout(model: nn.Module) -> None:
    layers = [module for module in model.modules() if isinstance(module, DROPOUT_LAYERS)]
    if not layers:
        raise ValueError(
            f"mc_passes needs a model with dropout layers (torch.nn.Dropout and its kin), and "
            f"{type(model).__name__} has none: all passes would be the same"
        )
    for layer in layers:
        layer.training = True


def _num_batches(pool: Iterable[Any]) -> int | None:
    try:
        return len(pool)  # type: ignore[arg-type]
    except TypeError:  # a DataLoader over an IterableDataset has __len__ and refuses
        return None


def _call(model: nn.Module, inputs: Any) -> Tensor:
    return model(inputs)


def _logits(forward: Forward, model: nn.Module, inputs: Any) -> Tensor:
    logits = forward(model, inputs)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"{type(model).__name__} returned {type(logits).__name__}, not a tensor of logits; "
            "pass forward=lambda model, inputs: ... that returns the logits"
        )
    return logits


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


def _pair(batch: Any) -> tuple[Tensor, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        got = type(batch).__name__
        if isinstance(batch, (tuple, list)):
            got = f"{got} of ({', '.join(type(part).__name__ for part in batch)})"
        raise TypeError(f"a batch of the pool must be (sample_ids tensor, inputs), got {got}")
    return batch[0], batch[1]


def _map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: _map_tensors(function, part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_map_tensors(function, part) for part in value]
    raise TypeError(
        f"inputs must be a tensor or a tuple, list or dict of tensors, got {type(value).__name__}"
    )


def _on_device(
    pool: Iterable[Any], device: torch.device, channels_last: bool
) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches on ``device``; a CUDA device computes one while the next is copied."""
    return on_device(map(_pair, pool), device, channels_last, _map_tensors)
