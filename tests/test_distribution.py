"""The sdist builds the wheel, and the wheel works away from the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first

ROOT = Path(__file__).parent.parent
NOT_SOURCES = (".*", "*.so", "*.egg-info", "__pycache__", "build", "dist", "runs", "demo")


def run(command: list[str], folder: Path, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist alone, which is built from a copy of the tree without what was built."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    run(["-m", "build", "--no-isolation", "-o", "../built", "."], folder / "tree")
    (sdist,) = (folder / "built").glob("*.tar.gz")
    (wheel,) = (folder / "built").glob("*.whl")
    assert sdist.name.removesuffix(".tar.gz") == "-".join(wheel.name.split("-")[:2])
    return wheel


@pytest.mark.slow
def test_the_wheel_picks_away_from_the_source_tree(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dynal_fast"}
    assert "dynal_fast/py.typed" in names
    where = run(
        ["-c", "import dynal_fast._C, dynal_fast.info; print(dynal_fast._C.__file__)"],
        elsewhere,
        PYTHONPATH=str(site),
    )
    assert Path(where.strip()).parent == site / "dynal_fast"
    pool = np.random.default_rng(0).standard_normal((300, 16), dtype=np.float32)
    np.save(elsewhere / "pool.npy", pool)
    command = ["-m", "dynal_fast.cli", "select", "pool.npy", "-k", "20", "-o", "picks.npy"]
    run(command, elsewhere, PYTHONPATH=str(site))
    picks = torch.from_numpy(np.load(elsewhere / "picks.npy"))
    assert torch.equal(picks, farthest_first(pool, 20).indices)
