"""What the sdist and the wheel hold, and that the wheel picks away from the source tree.

Nothing is compiled here: the wheel takes the extension that stands in the tree. A machine without
a compiler is tried by ``.ci/bare``, and the wheels workflow builds from the sdist.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import dynal_fast
from dynal_fast import farthest_first
from dynal_fast._extension import load

ROOT = Path(__file__).parent.parent
NOT_SOURCES = (".*", "*.so", "*.pyc", "*.egg-info", "__pycache__", "build", "dist", "runs", "demo")
SOURCES = ("benchmarks", "csrc", "docs", "dynal_fast", "examples", "tests")


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
def tree(tmp_path_factory) -> Path:
    """A copy of the working tree without what was built in it."""
    folder = tmp_path_factory.mktemp("distribution") / "tree"
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_SOURCES))


@pytest.fixture(scope="module")
def sdist(tree) -> Path:
    pytest.importorskip("build")
    run(["-m", "build", "--no-isolation", "--sdist", "-o", "../built", "."], tree)
    (sdist,) = (tree.parent / "built").glob("*.tar.gz")
    return sdist


@pytest.fixture(scope="module")
def wheel(sdist) -> Path:
    """Built from the sdist alone, with the extension that stands in the working tree."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    unpacked = sdist.parent / sdist.name.removesuffix(".tar.gz")
    extension = Path(load().__file__)
    place = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    built = unpacked / "build" / place / "dynal_fast" / extension.name
    built.parent.mkdir(parents=True)
    shutil.copyfile(extension, built)  # newer than its sources, so that it is not built again
    command = ["-m", "build", "--no-isolation", "--wheel", "-o", "..", "."]
    run(command, unpacked, CXX="false", CUDA_HOME=str(unpacked / "none"))
    (wheel,) = sdist.parent.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def contents(wheel) -> Mapping[str, bytes]:
    """The files of the wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        return {name: archive.read(name) for name in names}


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_holds_every_source(sdist, tree):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {name for name in files_of(tree) if name.split("/")[0] in SOURCES}
    expected |= {"Makefile", "CHANGELOG.md", "LICENSE", "README.md", "setup.py"}
    expected |= {"constraints.txt", "constraints-integrations.txt"}
    assert expected - names == set()


def test_the_wheel_holds_the_package_and_nothing_else(contents, tree):
    """The READMEs of the operations are for those who have the sources."""
    extension = Path(load().__file__).name
    files = {name for name in files_of(tree / "dynal_fast") if not name.endswith(".md")}
    package = {f"dynal_fast/{name}" for name in files}
    assert contents.keys() == package | {f"dynal_fast/{extension}"}
    assert {"dynal_fast/py.typed", "dynal_fast/report/page.css"} <= contents.keys()


def test_nothing_in_the_wheel_writes_the_documentation_of_this_repository(contents):
    """No module names a page of ``docs/``, so none reads or writes one."""
    page = re.compile(rb"\bdocs/[\w-]+\.(md|svg|html|png)")
    assert [name for name, text in contents.items() if page.search(text)] == []


def test_versions_agree(wheel):
    version = dynal_fast.__version__
    assert wheel.name.split("-")[1] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    released = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", _changelog(), re.MULTILINE)
    assert released[0] == version


def test_the_changelog_has_the_usual_sections():
    sections = re.findall(r"^### (.*)$", _changelog(), re.MULTILINE)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.search(r"^## (.*)$", _changelog(), re.MULTILINE)[1] == "[Unreleased]"


def _changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_picks_away_from_the_source_tree(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
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
