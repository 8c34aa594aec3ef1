"""Pool statistics as people compute them: in place, compiled, or from the full history.

All score what ``cases.TRACK`` names: prediction stability (eq. 3: the variance over epochs of each
class probability, summed over classes), label dispersion (eq. 1-2: one minus the modal label's
share), and the uncertainty in the last epoch: entropy, one minus the top probability, and the
margin, negated. Higher is more informative.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import scipy.special
import torch
from torch import Tensor

from dynal_fast.bench.cases import TRACK, StatisticsCase
from dynal_fast.bench.competitors.base import Method, Size, Streamed, per_epoch

Run = Callable[[Size], Any]
Batches = Iterable[tuple[Tensor, Tensor]]  # of sample ids (batch,) and their logits
BEYOND_CACHES = 2**26  # float32: 256 MB


class Tracker(Protocol):
    """The running statistics of a pool."""

    def observe(self, batches: Batches) -> None:
        """One pass over the pool."""

    def scores(self) -> dict[str, Tensor]:
        """Scores (n,) by name."""


def stream(
    case: StatisticsCase,
    data: Tensor,
    tracker_for: Callable[[StatisticsCase, torch.device], Tracker],
) -> Callable[[Size], Streamed]:
    """The whole job: make the tracker, observe every epoch, score."""
    ids = torch.arange(case.n, device=data.device).split(case.batch)

    def run(size: Size) -> Streamed:
        tracker = tracker_for(case, data.device)

        def passes() -> Iterator[Callable[[], None]]:
            for epoch in range(1, size.amount + 1):
                logits = case.epoch_logits(data, epoch).split(case.batch)
                yield functools.partial(tracker.observe, list(zip(ids, logits, strict=True)))

        seconds = pass_seconds(passes(), data.device)
        return Streamed(tracker.scores(), seconds)

    return run


def pass_seconds(passes: Iterable[Callable[[], None]], device: torch.device) -> list[float]:
    """Make every pass; return the seconds of each but the first."""
    seconds = []
    for make in passes:
        start = time.perf_counter()
        make()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def update_in_place(state: "InPlace", ids: Tensor, logits: Tensor) -> None:
    """Welford's update, label counts and uncertainty of one batch, in plain torch operations.

    As one writes it with care but without a kernel: no needless temporary, no repeated gather.
    """
    count = state.count[ids].add_(1)
    state.count.index_copy_(0, ids, count)
    p = logits.softmax(dim=1)  # (batch, classes)
    mean = state.mean[ids]
    delta = p - mean
    mean.addcdiv_(delta, count[:, None])
    state.mean.index_copy_(0, ids, mean)
    state.m2.index_add_(0, ids, delta.mul_(torch.sub(p, mean, out=mean)).sum(dim=1))
    state.entropy.index_copy_(0, ids, torch.special.entr(p).sum(dim=1))
    top, label = p.max(dim=1)  # on a CPU, two maxima take less than topk(2)
    cell = torch.add(label, ids, alpha=p.shape[1])
    state.labels.view(-1).index_add_(0, cell, state.ones[: len(ids)])
    second = p.scatter_(1, label[:, None], -1.0).amax(dim=1)
    state.top.index_copy_(0, ids, top)
    state.margin.index_copy_(0, ids, top - second)


def update_for_compiler(state: "InPlace", ids: Tensor, logits: Tensor) -> None:
    """The same as plain assignments that ``torch.compile`` can fuse; it cannot fuse topk."""
    p = logits.softmax(dim=1)
    count = state.count[ids] + 1
    mean = state.mean[ids]
    delta = p - mean
    mean = mean + delta / count[:, None]
    state.count[ids] = count
    state.mean[ids] = mean
    state.m2[ids] += (delta * (p - mean)).sum(dim=1)
    top, label = p.max(dim=1)
    others = torch.arange(p.shape[1], device=p.device) != label[:, None]
    state.labels[ids, label] += 1
    state.top[ids] = top
    state.margin[ids] = top - torch.where(others, p, -1.0).amax(dim=1)
    state.entropy[ids] = torch.special.entr(p).sum(dim=1)


class InPlace:
    """The state in plain torch, and the function that folds a batch into it."""

    def __init__(
        self,
        case: StatisticsCase,
        device: torch.device | str,
        update: "Callable[[InPlace, Tensor, Tensor], None]" = update_in_place,
    ) -> None:
        n, classes = case.n, case.classes
        self.update = update
        self.count = torch.zeros(n, device=device)
        self.mean = torch.zeros(n, classes, device=device)
        self.m2 = torch.zeros(n, device=device)
        self.labels = torch.zeros(n, classes, dtype=torch.uint8, device=device)
        self.entropy, self.top, self.margin = torch.empty(3, n, device=device).unbind()
        self.ones = torch.ones(case.batch, dtype=torch.uint8, device=device)

    def observe(self, batches: Batches) -> None:
        """One pass over the pool."""
        for ids, logits in batches:
            self.update(self, ids, logits)

    def scores(self) -> dict[str, Tensor]:
        """Scores (n,) by name."""
        values = (
            self.m2 / self.count,
            1 - self.labels.amax(dim=1) / self.count,
            self.entropy,
            1 - self.top,
            -self.margin,
        )
        return dict(zip(TRACK, values, strict=True))


def compiled(case: StatisticsCase, device: torch.device | str) -> InPlace:
    """``InPlace`` under ``torch.compile``."""
    return InPlace(case, device, torch.compile(update_for_compiler))


def torch_in_place(case: StatisticsCase, data: Tensor) -> Run:
    """Plain torch operations on the running state."""
    return stream(case, data, InPlace)


def torch_compiled(case: StatisticsCase, data: Tensor) -> Run:
    """The same statistics under ``torch.compile``; compiling is not counted."""
    return stream(case, data, compiled)


def copy_from_memory(
    case: StatisticsCase, device: torch.device | str, floats: int = 0
) -> Callable[[], None]:
    """A copy that reads and writes as many bytes in all as one pass must move.

    It walks round and round through two arrays of ``floats`` elements, by default so many that no
    cache holds them: the bytes come from memory.
    """
    floats = floats or BEYOND_CACHES
    source, target = torch.ones(2, floats, device=device)
    first = 0

    def copy() -> None:
        nonlocal first
        left = case.moved_bytes() // 8  # float32: half of the bytes are read, half are written
        while left:
            end = min(first + left, floats)
            target[first:end].copy_(source[first:end])
            left -= end - first
            first = end % floats

    return copy


def copies(case: StatisticsCase, data: Tensor) -> Run:
    """As many copies as epochs, which track nothing: a yardstick."""
    copy = copy_from_memory(case, data.device)

    def run(size: Size) -> Streamed:
        return Streamed({}, pass_seconds(itertools.repeat(copy, size.amount), data.device))

    return run


def numpy_history(case: StatisticsCase, data: Tensor) -> Run:
    """All probabilities kept in a NumPy array (epochs, n, classes), reduced at the end."""

    def run(size: Size) -> dict[str, Any]:
        history = np.empty((size.amount, case.n, case.classes), dtype=np.float32)
        for epoch in range(1, size.amount + 1):
            logits = case.epoch_logits(data, epoch).numpy()
            for first in range(0, case.n, case.batch):
                batch = logits[first : first + case.batch]
                exponential = np.exp(batch - batch.max(1, keepdims=True))
                exponential /= exponential.sum(1, keepdims=True)
                history[epoch - 1, first : first + case.batch] = exponential
        labels = history.argmax(2)  # (epochs, n)
        modal = np.empty(case.n, dtype=np.int64)
        entropy = np.empty(case.n, dtype=np.float32)
        for first in range(0, case.n, case.batch):
            block = labels[:, first : first + case.batch]
            cells = block + case.classes * np.arange(block.shape[1])
            counts = np.bincount(cells.ravel(), minlength=case.classes * block.shape[1])
            modal[first : first + case.batch] = counts.reshape(-1, case.classes).max(1)
            last = history[-1, first : first + case.batch]
            entropy[first : first + case.batch] = scipy.special.entr(last).sum(1)
        top = np.partition(history[-1], -2, axis=1)[:, -2:]
        values = (
            history.var(axis=0).sum(1),
            1 - modal / size.amount,
            entropy,
            1 - top[:, 1],  # partitioned: the second, then the largest
            top[:, 0] - top[:, 1],
        )
        return dict(zip(TRACK, values, strict=True))

    return run


def torch_history(case: StatisticsCase, data: Tensor) -> Run:
    """Every epoch's probabilities kept in one tensor, reduced at the end."""

    def run(size: Size) -> dict[str, Any]:
        history = torch.empty(size.amount, case.n, case.classes, device=data.device)
        for epoch, kept in enumerate(history, start=1):
            logits = case.epoch_logits(data, epoch).split(case.batch)
            for batch, rows in zip(logits, kept.split(case.batch), strict=True):
                torch.softmax(batch, dim=1, out=rows)
        labels = history.argmax(2)
        counts = torch.zeros(case.n, case.classes, dtype=torch.int32, device=data.device)
        ones = torch.ones_like(labels[0], dtype=torch.int32)
        for epoch_labels in labels:
            counts.scatter_add_(1, epoch_labels[:, None], ones[:, None])
        top = history[-1].topk(2, dim=1).values
        last = history[-1].split(case.batch)
        values = (
            history.var(dim=0, correction=0).sum(1),
            1 - counts.amax(dim=1) / size.amount,
            torch.cat([torch.special.entr(batch).sum(1) for batch in last]),
            1 - top[:, 0],
            top[:, 1] - top[:, 0],
        )
        return dict(zip(TRACK, values, strict=True))

    return run


METHODS = [
    Method(
        "copy of as many bytes (yardstick)",
        "pool statistics",
        copies,
        per_epoch,
        note="reads and writes together what a pass must move, from memory; tracks nothing",
        exact_from="nothing",
        on_gpu=True,
    ),
    Method("torch, in place", "pool statistics", torch_in_place, per_epoch, on_gpu=True),
    Method("torch.compile, in place", "pool statistics", torch_compiled, per_epoch, on_gpu=True),
    Method(
        "NumPy, full history",
        "pool statistics",
        numpy_history,
        per_epoch,
        note="numpy.var needs the history twice",
    ),
    Method("torch, full history", "pool statistics", torch_history, per_epoch, on_gpu=True),
]
