"""Many rows: what a traversal takes for each of them, and more of them than 32 bits count."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first
from dynal_fast.ops.farthest_first import contract
from dynal_fast.ops.farthest_first.sharded.part import global_keys, of_keys
from tests.cases.farthest_first import clustered, lattice

ROWS = 200_000, 600_000
# Blocks have a fixed size, which only large pools reach: they are small here, and what is left is a
# row's own. The system keeps the peak of what a process holds, and forgets it when told to.
TRAVERSE = """
import itertools, re, sys
import numpy as np
from dynal_fast import farthest_first
from dynal_fast.collective import Alone
from dynal_fast.ops.farthest_first import cpu, heads, highest, routing
from dynal_fast.ops.farthest_first.sharded import part
from dynal_fast.ops.farthest_first.sharded.functions import farthest_first_of_shards

def held(name):
    return 1024 * int(re.search(name + r":\\s*(\\d+)", open("/proc/self/status").read())[1])

def in_shards(pool, *request, **more):
    return farthest_first_of_shards(Alone(), [pool], *request, **more)

cpu.MEASURED = heads.CHUNK = highest.CHUNK = routing.CHUNK = part.CHUNK = 2**15
heads.WIDER, routing.TILE = 4, 2**18
rng = np.random.default_rng(0)
known = rng.standard_normal((600, 32))
for pick, metric, labeled in itertools.product(
    (farthest_first, in_shards), ("euclidean", "cosine"), (None, known)
):
    for rows in map(int, sys.argv[1:]):
        pool = rng.standard_normal((rows, 32), np.float32).astype(np.float16)
        pick(pool[:100], 3, metric=metric, progress=False)
        open("/proc/self/clear_refs", "w").write("5")
        before = held("VmRSS")
        pick(pool, 50, labeled, metric=metric, progress=False)
        print(held("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads /proc")
def test_at_most_32_bytes_a_row():
    returned = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system
    ended = subprocess.run(
        [sys.executable, "-c", TRAVERSE, *map(str, ROWS)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env=os.environ | returned,
    )
    few, many = np.array(ended.stdout.split(), np.int64).reshape(8, 2).T
    assert ((many - few) >= 8 * (ROWS[1] - ROWS[0])).all()  # else the peak was not seen
    assert ((many - few) <= 32 * (ROWS[1] - ROWS[0])).all()


@pytest.mark.parametrize("labeled", ["nothing", "samples", "indices"])
@pytest.mark.parametrize("make", [clustered, lattice])
def test_more_rows_than_one_matrix_holds(make, labeled, monkeypatch):
    pool, outside = make(500, 6), make(40, 6, seed=1)
    known = {"nothing": None, "samples": outside, "indices": np.arange(3, 400, 7)}[labeled]
    want = farthest_first(pool, 90, known)
    for most in (20, 99, 250):
        cut = functools.partial(contract.in_matrices, most=most)
        with monkeypatch.context() as patch:
            patch.setattr(contract, "in_matrices", cut)
            got = farthest_first(pool, 90, known)
        assert torch.equal(got.indices, want.indices)
        assert torch.equal(got.distances, want.distances)
        assert got.radius == want.radius


def test_two_to_the_31_rows():
    pool = np.broadcast_to(np.zeros((1, 2), np.float16), (2**31 + 5, 2))
    parts = contract.in_matrices(pool)
    assert [len(part) for part in parts] == [2**31 - 1, 6]
    assert [contract.as_rows(part, "pool").size for part in parts] == [2**31 - 1, 6]
    with pytest.raises(ValueError, match=r"fewer than 2\^31 samples here"):
        contract.as_rows(pool, "pool")
    rows = torch.tensor([0, 2**31 - 1, 2**31, 2**32 - 1])
    values = torch.tensor([1.0, 2.0, 2.0, 2.0])
    keys = global_keys(values, rows)
    assert keys.argsort(descending=True).tolist() == [1, 2, 3, 0]
    assert torch.equal(of_keys(keys)[1], rows)
    assert torch.equal(of_keys(keys)[0], values)
