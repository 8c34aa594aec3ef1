"""Compare the jobs of a group: ratios of their times, below pytest-benchmark's tables."""

import pytest
import torch

from benchmarks.machine import OURS, on_device

MEDIANS = pytest.StashKey[dict[str, dict[str, float]]]()  # group -> way -> seconds
LINES = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[MEDIANS] = {}
    config.stash[LINES] = []


@pytest.fixture
def side_by_side(benchmark, request):
    """Time a job, one way of doing what its group does.

    ``side_by_side(group, way, job, device=, rounds=)`` runs the job once to warm up where there are
    several rounds, and returns how many times as long each earlier way of the group took.
    """

    def time(group, way, job, *, device="cpu", rounds=1):
        group = benchmark.group = on_device(group, device)

        def finished():
            job()
            if device != "cpu":
                torch.cuda.synchronize(device)

        benchmark.pedantic(finished, rounds=rounds, warmup_rounds=int(rounds > 1))
        seconds = benchmark.stats.stats.median
        earlier = request.config.stash[MEDIANS].setdefault(group, {})
        ratios = {other: theirs / seconds for other, theirs in earlier.items()}
        earlier[way] = seconds
        return ratios

    return time


@pytest.fixture
def report(request):
    """Print a line below the tables."""
    return request.config.stash[LINES].append


@pytest.hookimpl(trylast=True)  # pytest-benchmark's tables come first
def pytest_terminal_summary(terminalreporter, config):
    """Print the ratios to our time, group by group, and the reported lines."""
    groups = {group: ways for group, ways in config.stash[MEDIANS].items() if OURS in ways}
    if groups or config.stash[LINES]:
        terminalreporter.section(f"median times, and their ratios to {OURS}")
    for group, ways in groups.items():
        terminalreporter.write_line(group)
        for way, seconds in ways.items():
            ratio = seconds / ways[OURS]
            terminalreporter.write_line(f"  {1e3 * seconds:10.2f} ms {ratio:8.2f} x  {way}")
    for line in config.stash[LINES]:
        terminalreporter.write_line(line)
