"""``pool_stats_update_from_features`` in Triton beside a cuBLAS head followed by the update."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import figures
from benchmarks.gpu.figures import Case, measured
from benchmarks.gpu.figures.tracker import Pass
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import HEAD, HEAD_ROW, UPDATE
from dynal_fast.ops.pool_stats import pool_stats_update, pool_stats_update_from_features

ALL = "all rows at once"
BATCHES = ("batches of 8192", ALL)  # of cached features a call may take all


class Heads:
    """Features and a head of a number of classes, and every way of folding their logits."""

    def __init__(self, job: Job, num_classes: int, batches: str) -> None:
        self.job = job
        n, width = job.size(150_000, 24), job.size(768, 16)
        batch = n if batches == ALL else job.size(8192, 16)
        classes = job.size(num_classes, min(num_classes, 136))
        self.features = torch.randn(n, width, device=job.device).bfloat16()
        weight = 2 * torch.randn(classes, width, device=job.device) / width**0.5
        self.weight = weight.bfloat16()
        self.bias = torch.randn(classes, device=job.device).bfloat16()
        self.sweep = Pass(job, n, classes, batch)
        self.bound = job.bound(
            self.sweep.state_bytes() + self.features.numel() * 2 + weight.numel() * 2,
            2.0 * n * classes * width,
        )
        self.details = {"n": n, "d": width, "classes": classes, "batch": batch}

    def fused(self, backend: str) -> None:
        sweep = self.sweep
        sweep.run(
            lambda ids, row: pool_stats_update_from_features(
                ids,
                self.features[row : row + len(ids)],
                self.weight,
                self.bias,
                None,
                None,
                None,
                *sweep.tensors,
                backend=backend,
            )
        )

    def apart(self) -> None:
        sweep, linear = self.sweep, torch.nn.functional.linear
        sweep.run(
            lambda ids, row: pool_stats_update(
                ids,
                linear(self.features[row : row + len(ids)], self.weight, self.bias),
                None,
                *sweep.tensors,
                backend="triton",
            )
        )

    def logits(self, features: Tensor) -> Tensor:
        return features.double() @ self.weight.double().T + self.bias.double()

    def measured(self, name: str, call: Callable[[], Any]) -> dict[str, Any]:
        return measured(
            self.job,
            name,
            call,
            error=lambda timed: self.sweep.error(timed, self.features, self.logits),
            bound=self.bound,
            **self.details,
        )


def cases(job: Job) -> Iterator[Case]:
    for num_classes, batches in itertools.product((1000, 100), BATCHES):
        needs = HEAD if num_classes == 1000 else HEAD_ROW
        name = f"head in Triton C={num_classes}, {batches}"
        yield Case(name, needs, partial(_fused, job, num_classes, batches, name))
        name = f"cuBLAS head + update C={num_classes}, {batches}"
        yield Case(name, UPDATE, partial(_apart, job, num_classes, batches, name))


def _fused(job: Job, num_classes: int, batches: str, name: str) -> Lines:
    heads = Heads(job, num_classes, batches)
    yield heads.measured(name, partial(heads.fused, "triton"))


def _apart(job: Job, num_classes: int, batches: str, name: str) -> Lines:
    heads = Heads(job, num_classes, batches)
    yield heads.measured(name, heads.apart)


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
