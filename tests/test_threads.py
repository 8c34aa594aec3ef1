"""The number of threads: what cannot be started is refused, or is not asked of OpenMP."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dynal_fast import PoolStats, farthest_first, threads
from dynal_fast.cli import main
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from dynal_fast.ops.farthest_first import cpu
from dynal_fast.threads import checked_threads, kernel_threads, most_threads


def test_kernels_do_not_ask_for_a_million(monkeypatch):
    pool, maps = torch.arange(40.0).reshape(20, 2), torch.rand(2, 3, 4, 4)
    stats = PoolStats(20, 2, track=["label_dispersion"])
    asked = []

    def million():
        asked.append(10**6)
        return asked[-1]

    monkeypatch.setattr(torch, "get_num_threads", million)
    monkeypatch.setattr(threads, "most_threads", lambda: 3)
    farthest_first(pool, 3)
    assert asked
    asked.clear()
    with stats.observe(1, 1):
        stats.update(torch.arange(20), pool)
    assert asked
    asked.clear()
    dense_discrepancy(maps, maps)
    assert asked


def test_kernels_take_the_number_of_torch(monkeypatch):
    for asked, taken in ((1, 1), (7, 7), (10**6, most_threads())):
        monkeypatch.setattr(torch, "get_num_threads", lambda asked=asked: asked)
        assert kernel_threads() == taken


def test_torch_has_one_thread_while_kernels_have_them(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, beside = [], []
    kept = threads.kernel_threads

    def noted():
        inside.append((torch.get_num_threads(), kept()))
        with ThreadPoolExecutor(1) as other:
            beside.append(other.submit(lambda: (torch.get_num_threads(), kept())).result())
        return kept()

    monkeypatch.setattr(cpu, "kernel_threads", noted)
    try:
        farthest_first(torch.arange(40.0).reshape(20, 2), 3)
        assert set(inside) == {(1, 2)}
        assert set(beside) == {(2, 2)}
        with pytest.raises(ValueError, match="k must be"):
            farthest_first(torch.ones(2, 2), 3)
        assert torch.get_num_threads() == 2
        assert kept() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 256])
def test_a_number_that_can_be_started_is_kept(count):
    assert checked_threads(count) == count


@pytest.mark.parametrize(
    ("count", "error"),
    [(0, ValueError), (-1, ValueError), (10**6, ValueError), (2**70, ValueError), (1.5, TypeError)],
)
def test_other_numbers_are_refused(count, error):
    with pytest.raises(error, match=r"^--threads must be "):
        checked_threads(count, "--threads")


@pytest.mark.parametrize("count", ["1000000", "-1", str(2**70)])
@pytest.mark.parametrize("command", ["run", "bench"])
def test_the_command_line_refuses_them_in_one_line(tmp_path, capsys, command, count):
    folder = tmp_path / "x"
    assert main([command, "-o", str(folder), f"--threads={count}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "threads must be " in err
    assert count in err
    assert not folder.exists()


PROGRAM = """
import json, os, signal, warnings
import torch
from dynal_fast import PoolStats, farthest_first
from dynal_fast.ops.dense_discrepancy import dense_discrepancy

torch.set_num_threads(2)
pool = torch.randn(40_000, 8, generator=torch.Generator().manual_seed(0))
labeled = torch.arange(35_000)

def picks():
    return farthest_first(pool, 20, labeled, progress=False).indices.tolist()

def dispersion():
    stats = PoolStats(50, 3, track=("label_dispersion",))
    with stats.observe(1, 1):
        stats.update(torch.arange(50), torch.zeros(50, 3))
    return stats.score("label_dispersion").tolist()

def discrepancy():
    return dense_discrepancy(torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)).tolist()

expected = [work() for work in (picks, dispersion, discrepancy)]
(pool @ pool.T[:, :500]).sort(0)  # torch's own teams of threads
for number, work in enumerate((picks, dispersion, discrepancy)):
    read, write = os.pipe()
    if os.fork() == 0:
        signal.alarm(60)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = [work(), work()]
        told = [str(warning.message) for warning in caught]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        os.write(write, json.dumps([results, told, threads]).encode())
        os._exit(0)
    os.close(write)
    assert os.wait()[1] == 0, f"{work.__name__} did not end"
    results, told, threads = json.loads(os.read(read, 2**16))
    assert results == [expected[number]] * 2
    assert threads == 1 and len(told) == 1 and "spawn" in told[0], told
print("all three")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_forked_process_does_not_wait_for_its_parents_threads():
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "all three\n"
