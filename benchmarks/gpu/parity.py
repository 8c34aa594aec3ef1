"""Run the kernels' tests on the device, with the pytest plug-ins that the machine has."""

import importlib.util
import os
import sys
from pathlib import Path

from benchmarks.gpu import guard
from benchmarks.gpu.job import Job, Lines

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/test_*_triton.py",
    "tests/test_*_cuda.py",
    "tests/test_*_compile.py",
    "tests/test_observe.py",
    "tests/test_ema.py",
)
REHEARSED = ["tests/test_dense_discrepancy_triton.py", "-k", "non_finite or offsets"]
SECONDS = 40  # of one test, with the compilation of its kernels
JUNIT = "parity.xml"


def run(job: Job) -> Lines:
    """Run pytest; its plug-in writes the lines of the tests as they end."""
    if importlib.util.find_spec("pytest") is None:
        yield {"kind": "parity", "failed_to_run": "pytest is not installed"}
        return
    # A worker of pytest-xdist may have started the rehearsal; this is no worker.
    inherited = {name: os.environ[name] for name in os.environ if "PYTEST_XDIST" not in name}
    environment = {**inherited, "DYNAL_GPU_RESULTS": str(job.output)}
    process = guard.start(command(job), stdout=sys.stdout, cwd=ROOT, env=environment)
    code = process.wait(job.seconds)
    if code > 1:  # 1: tests failed, of which there are lines
        yield {"kind": "parity", "failed_to_run": f"pytest ended with {code}"}


def command(job: Job) -> list[str]:
    # the project's own pytest options name plug-ins that this machine may not have
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.gpu.pytest_lines", "-rfE", "--tb=short"]
    command += [f"--junitxml={job.output / JUNIT}"]
    if importlib.util.find_spec("xdist") and not job.rehearsal:
        command += ["-n", str(min(12, os.cpu_count() or 1))]
    if importlib.util.find_spec("pytest_timeout"):
        # by a thread: a test that waits for the device gets no signal
        command += [f"--timeout={SECONDS}", "--timeout-method=thread"]
    if job.rehearsal:
        return command + REHEARSED
    files = [str(path) for pattern in TESTS for path in sorted(ROOT.glob(pattern))]
    if "head-cuda" in job.without:
        files = [file for file in files if not file.endswith("_cuda.py")]
    return command + files
