"""``pool_stats_update_from_features`` beside a cuBLAS head followed by ``pool_stats_update``."""

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.pool_stats import Pass
from benchmarks.gpu.timing import Figure, Setting, captured, milliseconds, peak_bytes
from dynal_fast.ops.pool_stats import pool_stats_update, pool_stats_update_from_features
from dynal_fast.ops.pool_stats.cuda import fits


def figures(setting: Setting) -> Iterator[Figure]:
    n, width = setting.size(150_000, 60), setting.size(768, 16)
    batches = (setting.size(8192, 32), n)  # of cached features a call may take all
    for num_classes, batch in itertools.product((100, 1000), batches):
        classes = setting.size(num_classes, min(num_classes, 20))
        features = torch.randn(n, width, device=setting.device).bfloat16()
        weight = (torch.randn(classes, width, device=setting.device) / width**0.5).bfloat16()
        bias = torch.randn(classes, device=setting.device).bfloat16()
        sweep = Pass(setting, n, classes, batch)

        def fused(
            sweep: Pass = sweep, features: Tensor = features, weight: Tensor = weight,
            bias: Tensor = bias, backend: str | None = setting.backend,
        ) -> None:  # fmt: skip
            sweep.run(
                lambda ids, row: pool_stats_update_from_features(
                    ids,
                    features[row : row + len(ids)],
                    weight,
                    bias,
                    None,
                    None,
                    None,
                    *sweep.guard,
                    sweep.state,
                    backend=backend,
                )
            )

        def apart(
            sweep: Pass = sweep, features: Tensor = features, weight: Tensor = weight,
            bias: Tensor = bias,
        ) -> None:  # fmt: skip
            sweep.run(
                lambda ids, row: pool_stats_update(
                    ids,
                    torch.nn.functional.linear(features[row : row + len(ids)], weight, bias),
                    None,
                    *sweep.guard,
                    sweep.state,
                    backend=setting.backend,
                )
            )

        bound = setting.bound_ms(
            sweep.state_bytes() + features.numel() * 2 + weight.numel() * 2,
            2.0 * n * classes * width,
        )
        size = f"d={width} C={classes} bf16 in batches of {batch}"
        yield Figure(
            f"update_from_features {size}",
            milliseconds(setting, captured(setting, fused)),
            bound,
            {"n": n, "batch": batch, "peak_bytes": peak_bytes(setting, fused)},
        )
        sweep.check(passes_at_least=3)
        if setting.on_gpu and fits(features, weight, bias, sweep.state):
            in_triton = partial(fused, backend="triton")
            yield Figure(
                f"the same in Triton {size}",
                milliseconds(setting, captured(setting, in_triton)),
                bound,
                {"peak_bytes": peak_bytes(setting, in_triton)},
            )
        yield Figure(
            f"cuBLAS head + update {size}",
            milliseconds(setting, captured(setting, apart)),
            bound,
            {"peak_bytes": peak_bytes(setting, apart)},
        )
