"""D² sampling and BADGE beside loops, interleaved: `python -m benchmarks.bench_kmeans_plusplus`.

The whole of ours, and a part of each loop: every pick of a loop costs the same. Prints medians,
ratios, and how far memory rises above the inputs.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from sklearn.cluster import kmeans_plusplus as sklearn_kmeans_plusplus

from dynal_fast import badge, kmeans_plusplus
from dynal_fast.bench.cases import GradientCase
from dynal_fast.bench.competitors.base import Size
from dynal_fast.bench.competitors.gradients import factored_loop
from dynal_fast.bench.inputs import EMBEDDINGS
from dynal_fast.measured import measured

PART = 12  # picks of a loop that are timed


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def matrix_vector_loop(pool: torch.Tensor, picks: int) -> None:
    """A matrix-vector product a pick, and a draw from the squared distances."""
    norms = pool.square().sum(1)
    squared, dots = torch.full_like(norms, torch.inf), torch.empty_like(norms)
    pick = 0
    for _ in range(picks):
        torch.mv(pool, pool[pick], out=dots)
        dots.mul_(-2).add_(norms).add_(norms[pick]).clamp_(min=0)
        torch.minimum(squared, dots, out=squared)
        shares = squared.cumsum(0)
        pick = min(int(torch.searchsorted(shares, torch.rand(()) * shares[-1])), len(pool) - 1)


def compare(ours: Callable[[], object], k: int, loops: dict[str, Callable[[int], object]]) -> None:
    times: dict[str, list[float]] = {name: [] for name in ("dynal_fast", *loops)}
    with measured() as used:
        ours()
    for _ in range(3):
        times["dynal_fast"].append(seconds(ours))
        for name, loop in loops.items():
            short, long = seconds(lambda: loop(2)), seconds(lambda: loop(2 + PART))  # noqa: B023
            times[name].append(short + (k - 2) * max(long - short, 0) / PART)
    mine = statistics.median(times["dynal_fast"])
    print(f"  dynal_fast: {mine:.3g} s, {used.peak_extra_bytes / 1e6:.0f} MB beyond the inputs")
    for name in loops:
        other = statistics.median(times[name])
        print(f"  {name}: {other:.3g} s from {PART} of {k} picks, {other / mine:.1f} x")


def plain(inputs: str, n: int, d: int, k: int) -> None:
    print(f"kmeans_plusplus, {inputs}: {k} of {n} x {d}")
    pool = torch.from_numpy(EMBEDDINGS[inputs](n, d, 0))
    array = pool.numpy()
    compare(
        lambda: kmeans_plusplus(pool, k, generator=torch.Generator().manual_seed(0)),
        k,
        {
            "one torch.mv a pick": lambda picks: matrix_vector_loop(pool, picks),
            "scikit-learn, one trial": lambda picks: sklearn_kmeans_plusplus(
                array, picks, n_local_trials=1, random_state=0
            ),
        },
    )


def gradients(n: int, classes: int, d: int, k: int) -> None:
    case = GradientCase(n, classes, d, k)
    print(case.title())
    data = case.load()
    loop = factored_loop(case, data)
    compare(
        lambda: badge(*data, k, generator=torch.Generator().manual_seed(0)),
        k,
        {"two torch.mv a pick": lambda picks: loop(Size(picks, 0))},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of samples")
    parser.add_argument("--only", choices=("clustered", "gaussian", "gradients"))
    arguments = parser.parse_args()
    scale, only = arguments.scale, arguments.only
    for inputs in ("clustered", "gaussian"):
        if only in (None, inputs):
            plain(inputs, int(150_000 * scale), 512, int(4000 * scale))
    if only in (None, "gradients"):
        gradients(int(20_000 * scale), 100, 768, int(1000 * scale))


if __name__ == "__main__":
    main()
