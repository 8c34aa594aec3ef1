"""The same statistics by ``torch.compile``: a part of its own, because it may be slow or fail."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu import figures
from benchmarks.gpu.figures import Case
from benchmarks.gpu.figures.pool_stats import Updates, plain_update
from benchmarks.gpu.job import Job, Lines


def cases(job: Job) -> Iterator[Case]:
    for num_classes in (100, 1000):
        yield Case(f"torch.compile C={num_classes}", (), partial(_compiled, job, num_classes))


def _compiled(job: Job, num_classes: int) -> Lines:
    updates = Updates(job, num_classes)
    update = plain_update
    if job.on_gpu:  # a rehearsal has no compiler to wait for
        update = torch.compile(plain_update, dynamic=False)
    yield updates.measured(f"torch.compile C={num_classes}", lambda: updates.plain(update))


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
