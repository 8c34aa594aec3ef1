"""``observe_pool`` in turns with the bare forward passes that it contains; the EMA teacher."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu import figures, launches, timing
from benchmarks.gpu.figures import Case, measured, summary
from benchmarks.gpu.gate.errors import relative_error
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import UPDATE
from dynal_fast.models import build_model
from dynal_fast.ops.pool_stats import reference
from dynal_fast.pool import EMATeacher, PoolImages, PoolStats, observe_pool

TRACKED = ("prediction_stability", "label_dispersion", "margin")


class Observed:
    """ResNet-18 and 50,000 images of CIFAR's size on the device."""

    def __init__(self, job: Job) -> None:
        self.job, self.n, batch = job, job.size(50_000, 4), job.size(1024, 3)
        images = torch.randint(0, 256, (self.n, 3, 32, 32), dtype=torch.uint8, device=job.device)
        self.pool = PoolImages(images, mean=0.5, std=0.25, batch_size=batch)
        self.model: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))
        if not job.small:
            self.model = build_model("resnet18", (3, 32, 32), 100)
        self.model.to(job.device).eval()
        self.amp = torch.bfloat16 if job.on_gpu else None
        self.stats = PoolStats(self.n, 100, track=TRACKED, device=job.device, backend="triton")
        self.details = {"n": self.n, "batch": batch}

    def forward_only(self) -> None:
        for _ in self.logits():
            pass

    def logits(self) -> Iterator[Tensor]:
        enabled = self.amp is not None
        with torch.no_grad(), torch.autocast(self.job.device, self.amp, enabled=enabled):
            for _, inputs in self.pool:
                yield self.model(inputs)

    def observe(self) -> None:
        observe_pool(
            self.model, self.pool, self.stats, epoch=1, num_epochs=1, amp=self.amp, progress=False
        )

    def error(self) -> dict[str, Any]:
        """Compare the margins with those of the same passes in float64."""
        self.observe()
        got = self.stats.score("margin").double().cpu()
        p = reference.softmax(torch.cat(list(self.logits())).double().cpu().numpy())
        top = np.sort(p, axis=1)[:, -2:]
        return {"error": relative_error(got.abs(), torch.from_numpy(top[:, 1] - top[:, 0]))}


def cases(job: Job) -> Iterator[Case]:
    yield Case("observe_pool ResNet-18", UPDATE, partial(_observe, job))
    if not job.warm:
        yield Case("EMATeacher.update ResNet-18", (), partial(_teacher, job))


def _observe(job: Job) -> Lines:
    observed = Observed(job)
    name = "observe_pool ResNet-18"
    with launches.launched() as ran:
        observed.observe()
    if job.warm:
        yield {"kind": "figure", "name": name, "kernel": ran}
        return
    bare, with_update, ratio, error = timing.in_turns(job, observed.forward_only, observed.observe)
    yield {
        "kind": "figure", "name": "forward passes ResNet-18", "kernel": ["torch"],
        **summary(bare), **observed.details,
    }  # fmt: skip
    yield {
        "kind": "figure", "name": name, "kernel": ran, **summary(with_update),
        "ratio": ratio, "ratio_error": error, "error": observed.error(), **observed.details,
        "peak_bytes": timing.peak_bytes(job, observed.observe),
    }  # fmt: skip


def _teacher(job: Job) -> Lines:
    model = Observed(job).model
    teacher = EMATeacher(model)
    elements = sum(weight.numel() for weight in model.parameters())

    def error(timed: Any) -> dict[str, Any]:
        """The teacher must equal the model that it copies, before and after updates."""
        timed()
        got = torch.cat([weight.flatten() for weight in teacher.model.parameters()])
        want = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        return {"error": relative_error(got.double().cpu(), want.double().cpu())}

    yield measured(
        job, "EMATeacher.update ResNet-18", teacher.update, error=error,
        bound=job.bound(12.0 * elements), graph=False,
    )  # fmt: skip


def run(job: Job) -> Lines:
    yield from figures.run(job, cases(job))
