"""Kernels in a process that was forked after OpenMP had started its threads in the parent."""

import os
import subprocess
import sys

import pytest

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
