"""Run the same work from the same state many times: any difference between runs is a race."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.farthest_first import clustered
from benchmarks.gpu.pool_stats import Pass
from benchmarks.gpu.timing import Setting
from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.ops.pool_stats import pool_stats_update, pool_stats_update_from_features


def cases(setting: Setting) -> Iterator[tuple[str, Callable[[], list[Tensor]]]]:
    """Yield (name, a call that starts afresh and returns every tensor that it wrote)."""
    n = setting.size(4096, 33)
    for num_classes in (10, 100, 1000, 5000):
        classes = num_classes if setting.on_gpu else min(num_classes, 150)
        yield f"update C={classes}", partial(_update, setting, n, classes)
    for num_classes in (100, 1000):
        classes = num_classes if setting.on_gpu else min(num_classes, 150)
        yield f"update_from_features C={classes}", partial(_from_features, setting, n, classes)
    if setting.on_gpu:  # whose programs wait for each other, where CUDA C++ does not replace it
        triton = replace(setting, backend="triton")
        yield "update_from_features C=1000 in Triton", partial(_from_features, triton, n, 1000)
    for labeled in (0, setting.size(2000, 9)):
        yield f"farthest_first labeled={labeled}", partial(_farthest_first, setting, labeled)


def find_races(setting: Setting, repeats: int) -> Iterator[tuple[str, int]]:
    """Yield for each case how many of ``repeats`` runs differ from the first in any bit."""
    for name, call in cases(setting):
        first = call()
        yield (
            name,
            sum(
                any(not torch.equal(a, b) for a, b in zip(first, call(), strict=True))
                for _ in range(repeats - 1)
            ),
        )


def _farthest_first(setting: Setting, labeled: int) -> list[Tensor]:
    device, d = setting.device, setting.size(65, 3)
    pool = clustered(setting.size(20_000, 30), d, device, 0)
    pool = torch.cat([pool, pool[::7]])  # duplicates
    rows = clustered(labeled, d, device, 1) if labeled else None
    k = setting.size(1500, 20)
    got = farthest_first(pool, k, rows, progress=False, backend=setting.backend)
    return [got.indices, got.distances, torch.tensor(got.radius)]


def _bad_rows(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids with duplicates and unknown ones, and the first row of each id."""
    ids = torch.randperm(n, generator=generator)
    ids[n // 2 : n // 2 + 8] = ids[:8]
    source = torch.arange(n)
    source[n // 2 : n // 2 + 8] = source[:8]  # equal rows: it must not matter which one counts
    ids[-3] = n + 3
    return ids, source


def _update(setting: Setting, n: int, num_classes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(num_classes)
    sweep = Pass(setting, n, num_classes, n)
    for _ in range(3):
        sweep.pass_stamp.add_(4)
        ids, source = _bad_rows(n, generator)
        logits = 3 * torch.randn(n, num_classes, generator=generator)[source]
        logits[20, 1] = float("nan")
        pool_stats_update(
            ids.to(setting.device),
            logits.to(setting.device),
            None,
            *sweep.guard,
            sweep.state,
            backend=setting.backend,
        )
    return [sweep.stamp, sweep.unknown_ids[:1], *sweep.state.values()]


def _from_features(setting: Setting, n: int, num_classes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(num_classes)
    sweep = Pass(setting, n, num_classes, n)
    width = setting.size(200, 16)
    weight = torch.randn(num_classes, width, generator=generator).bfloat16().to(setting.device)
    for _ in range(2):
        sweep.pass_stamp.add_(4)
        ids, source = _bad_rows(n, generator)
        features = torch.randn(n, width, generator=generator)[source].bfloat16()
        pool_stats_update_from_features(
            ids.to(setting.device),
            features.to(setting.device),
            weight,
            None,
            None,
            None,
            None,
            *sweep.guard,
            sweep.state,
            backend=setting.backend,
        )
    return [sweep.stamp, sweep.unknown_ids[:1], *sweep.state.values()]
