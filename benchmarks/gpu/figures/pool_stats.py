"""``pool_stats_update``: one pass over 150,000 samples in batches of 8,192, beside plain torch."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import figures
from benchmarks.gpu.figures import Case, measured
from benchmarks.gpu.figures.tracker import Pass
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import UPDATE
from dynal_fast.ops.pool_stats import pool_stats_update


def plain_update(state: dict[str, Tensor], ids: Tensor, logits: Tensor) -> None:
    """The same statistics in plain torch operations, in place."""
    p = torch.softmax(logits.float(), 1)
    state["count"][ids] += 1
    mean = state["mean"][ids]
    delta = p - mean
    mean = mean + delta / state["count"][ids][:, None]
    state["mean"][ids] = mean
    state["m2"][ids] += (delta * (p - mean)).sum(1)
    top, label = p.max(1)  # two maxima are fused by torch.compile, topk is not
    others = torch.arange(p.shape[1], device=p.device) != label[:, None]
    state["label_counts"][ids, label] += 1
    state["last_entropy"][ids] = torch.special.entr(p).sum(1)
    state["last_top"][ids] = top
    state["last_margin"][ids] = top - torch.where(others, p, -1.0).amax(1)


class Updates:
    """The inputs of a number of classes, and every way of folding them."""

    def __init__(self, job: Job, num_classes: int) -> None:
        self.job = job
        n, batch = job.size(150_000, 24), job.size(8192, 16)
        classes = job.size(num_classes, min(num_classes, 20))
        self.logits = 3 * torch.randn(n, classes, device=job.device)
        self.sweep = Pass(job, n, classes, batch)
        size = self.logits.numel() * self.logits.element_size()
        self.bound = job.bound(self.sweep.state_bytes() + size)
        self.details = {"n": n, "classes": classes, "batch": batch}

    def ours(self) -> None:
        sweep = self.sweep
        sweep.run(
            lambda ids, row: pool_stats_update(
                ids,
                self.logits[row : row + len(ids)],
                None,
                *sweep.tensors,
                backend="triton",
            )
        )

    def plain(self, update: Callable[..., None] = plain_update) -> None:
        state = self.sweep.state
        self.sweep.run(lambda ids, row: update(state, ids, self.logits[row : row + len(ids)]))

    def measured(self, name: str, call: Callable[[], Any], **options: Any) -> dict[str, Any]:
        return measured(
            self.job,
            name,
            call,
            error=lambda timed: self.sweep.error(timed, self.logits, lambda logits: logits),
            bound=self.bound,
            **self.details,
            **options,
        )


def cases(job: Job) -> Iterator[Case]:
    for num_classes in (10, 100, 1000):
        yield Case(f"update C={num_classes}", UPDATE, partial(_ours, job, num_classes))
        yield Case(f"plain torch C={num_classes}", (), partial(_plain, job, num_classes))


def _ours(job: Job, num_classes: int) -> Lines:
    updates = Updates(job, num_classes)
    yield updates.measured(f"update C={num_classes}", updates.ours)
    if num_classes == 100 and not job.warm and not job.small:
        yield updates.measured(f"update C={num_classes}, no graph", updates.ours, graph=False)
    updates.sweep.shuffle()
    yield updates.measured(f"update C={num_classes} shuffled", updates.ours)


def _plain(job: Job, num_classes: int) -> Lines:
    updates = Updates(job, num_classes)
    yield updates.measured(f"plain torch C={num_classes}", updates.plain)


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
