"""The GPU run, as far as it goes without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from benchmarks.gpu import run as gpu_run

ROOT = Path(__file__).parent.parent


def run(*options, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("module", ["benchmarks.gpu", "benchmarks.gpu.sanitize"])
def test_without_a_gpu_it_says_so_and_fails(module):
    finished = run(module)
    assert finished.returncode != 0
    assert "needs a CUDA device, and torch sees none" in finished.stderr


def test_everything_runs_and_is_recorded(tmp_path):
    options = ("--device", "cpu", "--smoke", "--no-build", "--no-parity", "--repeats", "2")
    finished = run("benchmarks.gpu", *options, "--output", str(tmp_path))
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-3000:]
    (path,) = tmp_path.glob("cpu-*.json")
    record = json.loads(path.read_text())
    assert set(record["ceilings"]) == {"copy_bytes_per_s", "bf16_flops", "fp32_flops"}
    assert {"device", "driver", "commit", "torch", "triton", "date"} <= set(record["environment"])
    assert {race["differing"] for race in record["races"].values()} == {0}
    assert {part["outcome"] for part in record["parts"].values()} == {"done"}
    assert record["figures"][0]["bound_ms"] > 0
    names = " ".join(figure["name"] for figure in record["figures"])
    for part in (
        "update C=",
        "plain torch",
        "update_from_features",
        "observe_pool",
        "EMATeacher",
        "farthest",
    ):
        assert part in names
    for figure in record["figures"]:
        assert figure["ms"] or "skipped" in figure["details"], figure


def test_the_race_check_runs_the_kernels(tmp_path):
    options = ("--device", "cpu", "--backend", "triton", "--smoke", "--no-build", "--no-parity")
    options += ("--check-only", "--repeats", "2", "--output", str(tmp_path))
    finished = run("benchmarks.gpu", *options, TRITON_INTERPRET="1")
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-3000:]


def test_a_part_that_fails_or_hangs_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--output", str(tmp_path)])
    monkeypatch.setattr(gpu_run, "LIMITS", {"hangs": 0.01})
    run = gpu_run.Run(gpu_run._options())
    run.part("hangs", [sys.executable, "-c", "import time; time.sleep(60)"])
    run.part("fails", [sys.executable, "-c", "print('so far'); raise SystemExit(3)"])
    run.part("works", [sys.executable, "-c", ""])
    monkeypatch.setattr(gpu_run, "SECONDS", 0)
    run.part("late", [sys.executable, "-c", ""])
    parts = json.loads(run.path.read_text())["parts"]
    assert [part["outcome"] for part in parts.values()] == [
        "stopped after 0 s",
        "failed with exit status 3",
        "done",
        "skipped: no time left",
    ]
    assert parts["fails"]["output"] == "so far\n"
