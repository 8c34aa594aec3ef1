"""A pytest plug-in: write how each test ends, at once, and end a worker that lost the GPU.

After an illegal access every call of the process fails, and so would every later test. A worker
of pytest-xdist that notices ends itself, and xdist starts another.
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.gpu import lines

FOLDER = Path(os.environ.get("DYNAL_GPU_RESULTS", "."))
EVERY = 20  # tests between two lines of counts
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

counts: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if IS_WORKER:
        if report.failed and device_is_lost():
            print(report.nodeid, report.longreprtext, file=sys.stderr, flush=True)
            time.sleep(0.5)  # time to send the report
            os._exit(70)
        return
    if report.when == "call" or report.outcome != "passed":
        counts[report.outcome] += 1
        if report.failed:
            said = report.longreprtext
            lines.append(
                FOLDER,
                {"kind": "test", "part": "parity", "test": report.nodeid, "said": said[-1500:]},
            )
        if sum(counts.values()) % EVERY == 0:
            write_counts(False)


def pytest_sessionfinish() -> None:
    if not IS_WORKER:
        write_counts(True)


def write_counts(finished: bool) -> None:
    line = {"kind": "parity", "part": "parity", "finished": finished, "counts": dict(counts)}
    lines.append(FOLDER, line)


def device_is_lost() -> bool:
    """Whether the device refuses this process from now on."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
