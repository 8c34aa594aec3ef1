"""The pool statistics' kernels: two passes over a tracker, compared with the float64 reference."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.gate.errors import near
from benchmarks.gpu.job import Job
from benchmarks.gpu.launches import launched
from dynal_fast.ops.pool_stats import (
    MAX_UNKNOWN_IDS,
    STAMP_STEP,
    STATE,
    Head,
    Tracker,
    pool_stats_update,
    pool_stats_update_from_features,
    reference,
)

TYPICAL = ("count", "mean", "m2", "label_counts", "last_entropy", "last_top", "last_margin")
EVERYTHING = tuple(STATE)
CYCLE = tuple(name for name in STATE if STATE[name].part == "cycle")
# What the kernel in CUDA C++ can track.
HEAVY = {"latest_output", *(n for n in STATE if STATE[n].part in ("logits", "teacher"))}
LIGHT = tuple(name for name in STATE if name not in HEAVY)
SURE = 1e-3  # where two logits are nearer than this, rounding decides the label

Checks = Iterator[dict[str, Any]]
# What an update is given: ids, logits or features and a head, the teacher's, the tracker.
Inputs = tuple[Tensor | None, ...]


def whole_rows(job: Job) -> Checks:
    for num_classes in (10, 100, 1000)[: job.size(3, 1)]:
        yield from _from_logits(job, num_classes, TYPICAL, torch.float32)
    yield from _from_logits(job, 1000, EVERYTHING, torch.bfloat16)


def long_rows(job: Job) -> Checks:
    yield from _from_logits(job, 5000, EVERYTHING, torch.float32)


def head_whole_rows(job: Job) -> Checks:
    yield from _from_features(job, 100, TYPICAL, torch.bfloat16)
    yield from _from_features(job, job.size(100, 33), EVERYTHING, torch.float32)


def head_long_rows(job: Job) -> Checks:
    yield from _from_features(job, 1000, TYPICAL, torch.bfloat16)
    yield from _from_features(job, 1000, EVERYTHING, torch.float32)


def head_split_rows(job: Job) -> Checks:
    yield from _from_features(job, 1000, TYPICAL, torch.bfloat16)
    yield from _from_features(job, 2048, CYCLE, torch.float16)


def head_cuda(job: Job) -> Checks:
    yield from _from_features(job, 1000, TYPICAL, torch.bfloat16, "cuda")
    yield from _from_features(job, 130, LIGHT, torch.float16, "cuda", width=104)


def _from_logits(job: Job, num_classes: int, names: tuple[str, ...], dtype: torch.dtype) -> Checks:
    rows, classes = _rows(job), job.size(num_classes, min(num_classes, 33))

    def inputs(draw: torch.Generator) -> Inputs:
        logits = 3 * torch.randn(rows, classes, generator=draw)
        teacher = logits + torch.randn(rows, classes, generator=draw)
        return logits.to(dtype), teacher.to(dtype) if names == EVERYTHING else None

    if job.small and num_classes > 4096:  # only this makes the rows too long for registers
        classes = 4100
        rows = 4

    def ours(ids: Tensor, *rest: Any) -> None:
        pool_stats_update(ids, *rest, backend="triton")

    yield from _compared(
        job,
        f"C={classes}",
        rows,
        classes,
        names,
        inputs,
        ours,
        reference.update,
        1e-5,
        2e-6,
    )


def _from_features(
    job: Job,
    num_classes: int,
    names: tuple[str, ...],
    dtype: torch.dtype,
    backend: str = "triton",
    width: int = 768,
) -> Checks:
    rows, classes = _rows(job), job.size(num_classes, min(num_classes, 136))
    width = job.size(width, 24)
    draw = torch.Generator().manual_seed(1)
    weight = (2 * width**-0.5 * torch.randn(classes, width, generator=draw)).to(dtype)
    bias = torch.randn(classes, generator=draw).to(dtype)

    def inputs(draw: torch.Generator) -> Inputs:
        features = torch.randn(rows, width, generator=draw).to(dtype)
        top = reference.linear(features, weight, bias).topk(2, dim=1).values
        unsure = top[:, 0] - top[:, 1] < SURE
        features[unsure] = features[int((~unsure).nonzero()[0])].clone()
        teacher: Inputs = (None, None, None)
        if names == EVERYTHING:
            noise = torch.randn(rows, width, generator=draw).to(dtype)
            teacher = (features + noise, weight, bias)
        return features, weight, bias, *teacher

    def ours(ids: Tensor, *rest: Any) -> None:
        pool_stats_update_from_features(ids, *rest, backend=backend)

    def theirs(ids: Tensor, *rest: Any) -> None:
        *heads, tracker = rest
        teacher = None if heads[3] is None else Head(*heads[3:])
        reference.update_from_features(ids, Head(*heads[:3]), teacher, tracker)

    # a float32 sum of products differs from the float64 one by more than a softmax does
    name = f"C={classes} d={width} {str(dtype).removeprefix('torch.')}"
    yield from _compared(job, name, rows, classes, names, inputs, ours, theirs, 5e-5, 1e-5)


def _rows(job: Job) -> int:
    """The rows of a batch: several tiles of every kernel, several per cluster, and part of one."""
    return job.size(2096, 40)


def _compared(
    job: Job,
    name: str,
    rows: int,
    classes: int,
    names: tuple[str, ...],
    inputs: Callable[[torch.Generator], Inputs],
    ours: Callable[..., None],
    theirs: Callable[..., None],
    rtol: float,
    atol: float,
) -> Checks:
    """Row i of the batch is sample i, so that a map shows the kernel's own rows."""
    got, want = {}, {}
    for tensor in names:
        spec = STATE[tensor]
        shape = spec.shape(rows + 16, classes)
        fresh = torch.full(shape, spec.fresh, dtype=spec.dtypes[0])
        got[tensor] = fresh.to(job.device)
        want[tensor] = fresh.double() if fresh.is_floating_point() else fresh.clone()
    right = Tracker(
        pass_stamp=torch.zeros(1, dtype=torch.int32),
        stamp=torch.zeros(rows + 16, dtype=torch.int32),
        unknown_ids=torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64),
        state=want,
    )
    tracker = Tracker(*(tensor.clone().to(job.device) for tensor in right[:3]), got)
    ids = torch.arange(rows)
    for number in (1, 2):
        batch = inputs(torch.Generator().manual_seed(number))
        for tensors in (right, tracker):
            tensors.pass_stamp.fill_(STAMP_STEP * number)
        there = [None if tensor is None else tensor.to(job.device) for tensor in batch]
        with launched() as ran:
            ours(ids.to(job.device), *there, *tracker)
        theirs(ids, *batch, right)
    yield near(f"{name} stamp", tracker.stamp, right.stamp, 0, 0) | {"ran": ran}
    yield near(f"{name} unknown ids", tracker.unknown_ids[:1], right.unknown_ids[:1], 0, 0)
    for tensor in names:
        exact = not got[tensor].is_floating_point()
        yield near(
            f"{name} {tensor}",
            got[tensor],
            want[tensor],
            0 if exact else rtol,
            0 if exact else atol,
        )
