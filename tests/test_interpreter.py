"""Run the tests of the Triton kernels under Triton's interpreter.

Whether a kernel is interpreted is settled when it is defined, so each file gets a process of its
own; here, where it is not set, the same kernels are compiled ahead of time.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

ROOT = Path(__file__).parent.parent
FILES = sorted(path.name for path in Path(__file__).parent.glob("test_*_triton.py"))


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")
@pytest.mark.parametrize("file", FILES)
def test_kernels_under_the_interpreter(file):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-n", "0", f"tests/{file}"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", run.stdout), run.stdout[-2000:]
