"""The passes of MC dropout over a pool: whole, or from the first dropout on."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dynal_fast.pool.accelerator import Accelerator
from dynal_fast.pool.containers import map_tensors
from dynal_fast.pool.forward import Forward, logits_of
from dynal_fast.pool.mc_dropout import activate_dropout, random_states, switched_off
from dynal_fast.pool.mc_kept import KeptBatches
from dynal_fast.pool.mc_split import DropoutSplit
from dynal_fast.pool.trace import UntraceableError, first_line
from dynal_fast.pool.twin import difference, tolerance_of

FEW = 32

Observed = tuple[Tensor, Tensor, Tensor | None]  # ids, logits, the teacher's logits


class MCPasses:
    """Gives the logits of each pass, with the model's dropout switched on by the first batch.

    The first pass keeps what the model computes before its first dropout, if a graph of it shows
    where that is and there is room for them (`KeptBatches`); the others start from there.

    Parameters
    ----------
    model, call
        What computes the logits, and how it is called.
    teacher
        Its logits are those of evaluation mode; with one, all passes are whole.
    device
        Where the inputs are.
    passes
        How many there will be; a single one is whole.
    accelerator
        Unless its mode is ``"off"``, what comes before the dropout is folded.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Forward,
        teacher: nn.Module | None,
        device: torch.device,
        passes: int,
        accelerator: Accelerator,
    ) -> None:
        self.model = model
        self.call = call
        self.teacher = teacher
        self.device = device
        self.passes = passes
        self.accelerator = accelerator
        self.accelerator.used, self.accelerator.reason = "off", ""
        self.split: DropoutSplit | None = None
        self.kept: KeptBatches | None = None
        self._first_is_done = False
        self._layers: list[nn.Module] = []  # the teacher's that are the model's, too

    def begin(self, samples: Iterator[tuple[Tensor, Any]]) -> Iterator[tuple[Tensor, Any]]:
        """Switch on the dropout by the first of the batches; return all of them again.

        Warns and raises as `activate_dropout` does.
        """
        first = next(samples)
        sample_ids, inputs = few(*first)
        try:
            self._prepare(sample_ids, inputs)
        except Exception:  # of a model that takes such a batch as a whole only
            if len(sample_ids) == len(first[0]):
                raise
            self._prepare(*first)
        if self.split is not None:
            self.split.fit_to(first[1])
        return put_back([first], samples)

    def kept_batches(self) -> Iterator[tuple[Tensor, Any]] | None:
        """Return the ids and the kept activations of each batch, None if they are not kept."""
        return iter(self.kept) if self.kept is not None and self._first_is_done else None

    def close(self) -> None:
        """Forget what was kept."""
        if self.kept is not None:
            self.kept.close()
            self.kept = None

    def observed(self, samples: Iterator[tuple[Tensor, Any]]) -> Iterator[Observed]:
        """Yield ids and logits of one pass over batches, or over what `kept_batches` returned."""
        if self.kept is not None and self._first_is_done:
            assert self.split is not None
            for sample_ids, values in samples:
                yield sample_ids, self.split.after(values, len(sample_ids)), None
            return
        for sample_ids, inputs in samples:
            yield sample_ids, *self._logits(sample_ids, inputs)
        self._first_is_done = True

    def _prepare(self, sample_ids: Tensor, inputs: Any) -> None:
        plain = functools.partial(self._whole, self.model, sample_ids, inputs)
        layers = activate_dropout(self.model, plain, self.device)
        of_teacher = set(self.teacher.modules()) if self.teacher is not None else set()
        self._layers = [layer for layer in layers.values() if layer in of_teacher]
        if self.passes == 1 or self.teacher is not None:
            return
        folds = self.accelerator.mode != "off"
        try:
            split = DropoutSplit(self.model, self.call, inputs, folds)
            self._check(split, plain, sample_ids, inputs)
        except UntraceableError as error:
            self.accelerator.reason = str(error)
            return
        self.split, self.kept = split, KeptBatches()
        self.accelerator.used = "fold" if folds else "off"

    def _check(self, split: DropoutSplit, plain: Any, sample_ids: Tensor, inputs: Any) -> None:
        """Raise unless the two parts give the whole model's logits from the same random numbers."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            whole, drawn = plain(), random_states(cuda)
        with torch.random.fork_rng(devices=cuda):
            try:
                values = split.before(map_tensors(Tensor.clone, inputs))
                parts = split.after(values, len(sample_ids))
            except Exception as error:  # of a graph that does not hold for these inputs
                raise UntraceableError(f"its parts fail: {type(error).__name__}") from error
            same = all(map(torch.equal, drawn, random_states(cuda)))
        allowed = tolerance_of(self.model) if split.folds else 0.0
        self.accelerator.error = difference(parts, whole)
        if not same or not self.accelerator.error <= allowed:
            raise UntraceableError("its parts do not give the same logits")

    def _logits(self, sample_ids: Tensor, inputs: Any) -> tuple[Tensor, Tensor | None]:
        if self.split is not None and self.split.takes(inputs):
            try:
                values = self.split.before(map_tensors(Tensor.clone, inputs))
            except Exception as error:  # of a graph that does not hold for such a batch
                self.accelerator.reason = f"its parts fail: {first_line(error)}"
            else:
                if self.kept is not None and not self.kept.add(sample_ids, values):
                    self.close()
                return self.split.after(values, len(sample_ids)), None
        self.close()
        logits = self._whole(self.model, sample_ids, inputs)
        if self.teacher is None:
            return logits, None
        with switched_off(self._layers):
            return logits, self._whole(self.teacher, sample_ids, inputs)

    def _whole(self, observed: nn.Module, sample_ids: Tensor, inputs: Any) -> Tensor:
        # Dropout may work in place, and all passes must see the same pool.
        inputs = map_tensors(Tensor.clone, inputs)
        return logits_of(self.call(observed, inputs), observed, len(sample_ids))


def few(sample_ids: Tensor, inputs: Any) -> tuple[Tensor, Any]:
    """Return the first samples of a batch, where it is one tensor, to try something on.

    >>> ids, inputs = few(torch.arange(200), torch.zeros(200, 3))
    >>> len(ids), inputs.shape
    (32, torch.Size([32, 3]))
    """
    if not isinstance(inputs, Tensor) or inputs.is_nested or len(inputs) != len(sample_ids):
        return sample_ids, inputs
    rows = inputs.ndim == 4 or (inputs.ndim == 2 and inputs.is_floating_point())
    return (sample_ids[:FEW], inputs[:FEW]) if rows else (sample_ids, inputs)


def put_back(first: list[Any], others: Iterator[Any]) -> Iterator[Any]:
    """Yield the item of ``first``, which is emptied, and the others.

    >>> list(put_back([1], iter([2, 3])))
    [1, 2, 3]
    """
    yield first.pop()  # a batch is freed when the loop is done with it
    yield from others
