"""``observe_pool`` beside the bare forward passes that it contains."""

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.gpu.timing import Figure, Setting, milliseconds
from dynal_fast.models import build_model
from dynal_fast.pool import EMATeacher, PoolImages, PoolStats, observe_pool

TRACKED = ("prediction_stability", "label_dispersion", "margin")


def figures(setting: Setting) -> Iterator[Figure]:
    n, batch = setting.size(50_000, 4), setting.size(1024, 3)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    pool = PoolImages(images, mean=0.5, std=0.25, batch_size=batch, device=setting.device)
    if setting.smoke:
        model: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))
    else:
        model = build_model("resnet18", (3, 32, 32), 100)
    model.to(setting.device)
    amp = torch.bfloat16 if setting.on_gpu else None
    stats = PoolStats(n, 100, track=TRACKED, device=setting.device, backend=setting.backend)

    def forward_only() -> None:
        model.eval()
        with torch.no_grad(), torch.autocast(setting.device.type, amp, enabled=amp is not None):
            for _, inputs in pool:
                model(inputs)

    def observe() -> None:
        observe_pool(model, pool, stats, epoch=1, num_epochs=1, amp=amp, progress=False)

    forward_ms = milliseconds(setting, forward_only, repeats=5)
    observe_ms = milliseconds(setting, observe, repeats=5)
    yield Figure("forward passes resnet18 32x32", forward_ms, None, {"n": n, "batch": batch})
    yield Figure("observe_pool resnet18 32x32", observe_ms, forward_ms, {"n": n, "batch": batch})

    teacher = EMATeacher(model)
    yield Figure(
        "EMATeacher.update resnet18",
        milliseconds(setting, teacher.update),
        setting.bound_ms(12.0 * sum(weight.numel() for weight in model.parameters())),
    )
