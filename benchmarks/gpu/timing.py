"""Time calls on a device: by events, as CUDA graphs, or two calls in turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.job import Job

HEAD_START = 200_000  # clock cycles, some 100 us: the host takes a tenth of that to launch a graph


def synchronize(job: Job) -> None:
    if job.on_gpu:
        torch.cuda.synchronize()


def times(
    job: Job,
    call: Callable[[], Any],
    repeats: int = 20,
    warm_up: int = 3,
    head_start: bool = False,
) -> list[float]:
    """Milliseconds of each of ``repeats`` calls, by device events on a GPU, after warm-up."""
    repeats, warm_up = (1, 0) if job.small else (repeats, warm_up)
    for _ in range(warm_up):
        call()
    synchronize(job)
    return [once(job, call, head_start) for _ in range(repeats)]


def once(job: Job, call: Callable[[], Any], head_start: bool = False) -> float:
    """Milliseconds of one call.

    ``head_start``, for a call that is one launch: the device waits until the host has launched it.
    Otherwise its idle time between the first event and the call would be counted.
    """
    if not job.on_gpu:
        begin = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if head_start:
        torch.cuda._sleep(HEAD_START)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def spread(values: list[float]) -> float:
    """Half of the interquartile range of the values, as a share of their median."""
    if len(values) < 4:
        return (max(values) - min(values)) / 2 / statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / statistics.median(values)


def in_turns(
    job: Job, one: Callable[[], Any], other: Callable[[], Any], seconds: float = 20.0
) -> tuple[list[float], list[float], float, float]:
    """Time both in turns, so that clocks and heat act on both; until their ratio is known to 1%.

    Returns the times of each, the median ratio other / one of neighbours, and its standard error.
    """
    first: list[float] = []
    second: list[float] = []
    for call in (one, other):
        call()
    synchronize(job)
    deadline = time.monotonic() + seconds
    error = float("inf")
    while len(first) < (3 if job.small else 15) or (
        not job.small and error > 0.005 and time.monotonic() < deadline
    ):
        # the order alternates, so that a drift of the clocks cancels
        pair = [(one, first), (other, second)]
        for call, into in pair if len(first) % 2 else reversed(pair):
            into.append(once(job, call))
        ratios = [b / a for a, b in zip(first, second, strict=True)]
        if len(ratios) > 2:  # the error of a median is 1.25 times that of a mean
            error = 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5
    return first, second, statistics.median(ratios), error


def captured(job: Job, call: Callable[[], Any]) -> Callable[[], Any]:
    """``call`` as a CUDA graph, without gaps between launches; on a CPU ``call`` itself."""
    if not job.on_gpu:
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # compiles, loads and settles allocations before the capture
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def peak_bytes(job: Job, call: Callable[[], Any]) -> int | None:
    """Device memory that ``call`` takes beyond what is allocated already."""
    if not job.on_gpu:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
