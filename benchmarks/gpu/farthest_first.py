"""``farthest_first`` beside the strong baseline: matrix products and no synchronisation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.gpu.timing import Figure, Setting, milliseconds, peak_bytes
from dynal_fast.ops.farthest_first import farthest_first

BLOCK = 8192  # pool rows whose distances to the labeled set the baseline holds at once


def clustered(n: int, d: int, device: torch.device, seed: int) -> Tensor:
    """Features (n, d) of a ReLU layer over a mixture of 100 Gaussians in 64 dimensions."""
    layer = torch.Generator(device).manual_seed(12345)
    centers = 2 * torch.randn(100, 64, generator=layer, device=device)
    weight = torch.randn(64, d, generator=layer, device=device) / 8
    bias = 0.1 * torch.randn(d, generator=layer, device=device)
    rng = torch.Generator(device).manual_seed(seed)
    latent = centers[torch.randint(100, (n,), generator=rng, device=device)]
    latent = latent + torch.randn(n, 64, generator=rng, device=device)
    return torch.relu(latent @ weight + bias)


def gaussian(n: int, d: int, device: torch.device, seed: int) -> Tensor:
    """Independent standard Gaussian features (n, d): the worst case for any pruning."""
    rng = torch.Generator(device).manual_seed(seed)
    return torch.randn(n, d, generator=rng, device=device)


def baseline(pool: Tensor, k: int, labeled: Tensor | None) -> Tensor:
    """Greedy k-center picks (k,): precomputed norms, one matrix-vector product a pick."""
    norms = (pool * pool).sum(1)
    minimum = torch.full_like(norms, float("inf"))
    if labeled is not None:
        labeled_norms = (labeled * labeled).sum(1)
        for start in range(0, len(pool), BLOCK):
            block = torch.addmm(labeled_norms, pool[start : start + BLOCK], labeled.T, alpha=-2)
            minimum[start : start + BLOCK] = block.amin(1)
        minimum += norms
    picks = torch.empty(k, dtype=torch.int64, device=pool.device)
    for step in range(k):
        pick = minimum.argmax(0, keepdim=True)
        picks[step : step + 1] = pick
        distances = torch.addmv(norms, pool, pool[pick].squeeze(0), alpha=-2) + norms[pick]
        torch.minimum(minimum, distances, out=minimum)
        minimum.index_fill_(0, pick, float("-inf"))
    return picks


def figures(setting: Setting) -> Iterator[Figure]:
    n, d = setting.size(150_000, 40), setting.size(512, 8)
    m, k, long = setting.size(25_000, 9), setting.size(4000, 6), setting.size(15_000, 12)
    cases = [
        ("clustered, labeled", clustered, m, k),
        ("clustered, single start", clustered, 0, long),
        ("gaussian, labeled", gaussian, m, k),
    ]
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for name, features, labeled_rows, picks in cases:
            pool = features(n, d, setting.device, 0)
            labeled = features(labeled_rows, d, setting.device, 1) if labeled_rows else None
            yield from _beside(setting, f"farthest_first {name}", pool, picks, labeled)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _beside(
    setting: Setting, name: str, pool: Tensor, k: int, labeled: Tensor | None
) -> Iterator[Figure]:
    def ours() -> Tensor:
        return farthest_first(pool, k, labeled, progress=False, backend=setting.backend).indices

    plain = baseline(pool, k, labeled)
    agree = int((plain == ours()).cumprod(0).sum())  # until float32 misleads the baseline
    bound = setting.bound_ms(pool.numel() * pool.element_size())
    details = {"n": len(pool), "d": pool.shape[1], "k": k, "first_picks_that_agree": agree}
    peak = peak_bytes(setting, ours)
    ms = milliseconds(setting, ours, repeats=5)
    yield Figure(name, ms, bound, {**details, "peak_bytes": peak})
    baseline_ms = milliseconds(setting, lambda: baseline(pool, k, labeled), repeats=2)
    yield Figure(f"{name}, baseline", baseline_ms, bound, {"times_as_long": baseline_ms / ms})
