"""The kernels of the dense discrepancy beside the float64 reference."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.gate.errors import near
from benchmarks.gpu.job import Job
from dynal_fast.ops.dense_discrepancy import dense_discrepancy

Checks = Iterator[dict[str, Any]]


def whole_columns(job: Job) -> Checks:
    for num_classes, dtype in ((19, torch.bfloat16), (150, torch.float32)):
        yield from _compared(job, num_classes, dtype)


def long_columns(job: Job) -> Checks:
    yield from _compared(job, 300, torch.float32)


def _compared(job: Job, num_classes: int, dtype: torch.dtype) -> Checks:
    draw = torch.Generator().manual_seed(num_classes)
    shape = (2, num_classes, job.size(65, 3), job.size(33, 5))
    logits = 3 * torch.randn(shape, generator=draw)
    other = (logits + torch.randn(shape, generator=draw)).to(dtype)
    logits = logits.to(dtype)
    want = dense_discrepancy(logits, other, backend="reference")
    got = dense_discrepancy(logits.to(job.device), other.to(job.device), backend="triton")
    yield near(f"C={num_classes} {str(dtype).removeprefix('torch.')}", got, want, 1e-5, 1e-7)
