"""Pools in mapped files: the same picks, and the system's guesses about them as they were."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dynal_fast import FarthestFirst, farthest_first, kmeans_plusplus
from dynal_fast.ops.farthest_first import contract, mapped
from tests.cases.farthest_first import clustered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
POOL, LABELED = clustered(9_000, 24), clustered(600, 24, seed=1)


@pytest.fixture
def of_any_size(monkeypatch):
    """Small files are read ahead, too."""
    monkeypatch.setattr(mapped, "SMALLEST", 0)


def views(path):
    """The pool as files may hold it, with its values as an array."""
    np.save(path, POOL)
    whole = np.load(path, mmap_mode="r")
    wide = np.load(path, mmap_mode="r").reshape(4_500, 48)
    return {
        "whole": whole,
        "backwards": whole[::-1],
        "every third": whole[1::3],
        "columns": whole[:, 2:9],
        "columns backwards": whole[:, ::-1],
        "half of each row": wide[:, 24:],
        "a column apart": whole.T[:5],
        "a tensor": torch.from_numpy(np.load(path, mmap_mode="c")),
    }


@pytest.mark.usefixtures("of_any_size")
@pytest.mark.parametrize("labeled", [True, False])
def test_the_same_picks(tmp_path, labeled):
    for name, pool in views(tmp_path / "pool.npy").items():
        columns = pool.shape[1]
        k, rows = min(200, len(pool)), LABELED[:, :columns] if columns <= 24 else None
        given = rows if labeled else None
        want = farthest_first(np.array(pool), k, given)
        got = farthest_first(pool, k, given)
        assert torch.equal(got.indices, want.indices), name
        assert got.radius == want.radius, name
    pool = np.load(tmp_path / "pool.npy", mmap_mode="r")
    drawn = [
        kmeans_plusplus(part, 20, generator=torch.Generator().manual_seed(0)).indices
        for part in (pool, POOL)
    ]
    assert torch.equal(*drawn)


def flags(array):
    """What the system was told of the mapping of an array: sr: in order; rr: at random."""
    address, span = array.__array_interface__["data"][0], ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            span = "here" if begin <= address < end else ""
        elif span and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("not mapped")


@pytest.mark.usefixtures("of_any_size")
def test_the_system_guesses_again_afterwards(tmp_path):
    np.save(tmp_path / "pool.npy", POOL)
    pool = np.load(tmp_path / "pool.npy", mmap_mode="r")
    selection = FarthestFirst(pool)
    selection.pick(3)
    assert "rr" in flags(pool)
    del selection
    assert not {"rr", "sr"} & set(flags(pool))
    spoilt = np.load(tmp_path / "pool.npy", mmap_mode="c")
    spoilt[77, 3] = np.nan
    with pytest.raises(ValueError, match="row 77"):
        farthest_first(spoilt, 3)
    gc.collect()
    assert not {"rr", "sr"} & set(flags(spoilt))


def test_what_is_mapped(tmp_path):
    np.save(tmp_path / "pool.npy", POOL)
    for array, expected in (
        (np.load(tmp_path / "pool.npy", mmap_mode="r"), True),
        (np.load(tmp_path / "pool.npy"), False),
        (np.empty((0, 3), np.float32), False),
    ):
        rows = contract.as_rows(array, "pool")
        assert not mapped.is_mapped_file(rows)  # too small
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mapped, "SMALLEST", 1)
            assert mapped.is_mapped_file(rows) == expected
