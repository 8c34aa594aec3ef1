"""Build the extensions in place, as fast as the cores allow: CUDA and C++ at the same time."""

import os
import runpy
import shutil
import sys
from pathlib import Path
from unittest import mock

from benchmarks.gpu.job import Job, Lines

ROOT = Path(__file__).parents[2]


def run(job: Job) -> Lines:
    """Build, and say which extensions load."""
    if not job.rehearsal:  # a rehearsal must not replace the extensions that the tests use
        build()
    from dynal_fast._extension import load, load_cuda

    yield {"kind": "built", "extensions": {"_C": bool(load()), "_cuda": bool(load_cuda())}}


def build() -> None:
    """Run ``setup.py build_ext`` with a thread for every extension and every file of one."""
    from pybind11.setup_helpers import ParallelCompile
    from setuptools import Distribution

    ParallelCompile(default=os.cpu_count() or 1).install()
    os.chdir(ROOT)
    sys.argv = ["setup.py", "-q", "build_ext", "--inplace", "--force", "--parallel", "2"]
    built = "build/lib*/dynal_fast/_*.so"
    for old in ROOT.glob(built):
        old.unlink()
    try:
        # extensions need no metadata, and setuptools before 77 refuses what pyproject.toml has
        with mock.patch.object(Distribution, "parse_config_files"):
            runpy.run_path("setup.py", run_name="__main__")
    finally:  # setuptools installs all or none: here one counts even if the other failed
        for new in ROOT.glob(built):
            shutil.copy2(new, ROOT / "dynal_fast" / new.name)
