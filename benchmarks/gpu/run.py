"""Build, check and time on a GPU, and write ``benchmarks/results/<device>-<date>.json``.

Each part is a process with a time limit; the record is written anew after each. What fails, hangs
or takes the device down is recorded, and the rest goes on. Figures come first: they check their
results too, and a parity test that fails afterwards says what they are worth.
"""

import argparse
import datetime
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import SECTIONS

ROOT = Path(__file__).parents[2]
PARITY_TESTS = (
    "tests/test_*_triton.py",
    "tests/test_*_cuda.py",
    "tests/test_*_compile.py",
    "tests/test_observe.py",
    "tests/test_ema.py",
)
SECONDS = 470  # for everything
LIMITS = {"parity": 180, "races": 90}  # seconds of one part; of any other:
LIMIT = 100


class Run:
    """The record so far, and the time that is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.begin = time.monotonic()
        # without a GPU it is a rehearsal, and slow
        self.patience = 1 if options.device.startswith("cuda") else 20
        self.record: dict[str, Any] = {
            "environment": environment(torch.device(options.device)),
            "parts": {},
            "ceilings": {},
            "figures": [],
            "races": {},
        }

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begin:5.0f} s] {text}", flush=True)

    def part(self, name: str, command: list[str]) -> str:
        """Run a command within its time and note how it ended; return what it printed."""
        left = self.begin + SECONDS * self.patience - time.monotonic()
        limit = min(LIMITS.get(name, LIMIT) * self.patience, left)
        self.say(name)
        begin, output, outcome = time.monotonic(), "", "skipped: no time left"
        if limit > 0:
            with tempfile.TemporaryFile("w+") as file:
                process = subprocess.Popen(
                    command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                )
                try:
                    code = process.wait(limit)
                    outcome = "done" if code == 0 else f"failed with exit status {code}"
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    outcome = f"stopped after {limit:.0f} s"
                file.seek(0)
                output = file.read()
        print(output, end="")
        entry = {"outcome": outcome, "seconds": round(time.monotonic() - begin, 1)}
        if outcome != "done":
            entry["output"] = output[-3000:]
        self.record["parts"][name] = entry
        self.say(f"{name}: {outcome}")
        self.record["seconds"] = time.monotonic() - self.begin
        self.path = write(self.record, self.options.output)
        return output

    def results(self, name: str) -> None:
        """Run a part of `benchmarks.gpu.part` and take over what it found."""
        options = self.options
        command = [sys.executable, "-m", "benchmarks.gpu.part", name]
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            results.touch()
            command += [str(results), "--device", options.device]
            command += ["--repeats", str(options.repeats)]
            command += ["--ceilings", json.dumps(self.record["ceilings"])]
            command += ["--smoke"] if options.smoke else []
            command += ["--backend", options.backend] if options.backend else []
            self.part(name, command)
            for line in results.read_text().splitlines():
                result = json.loads(line)
                if "figure" in result:
                    self.record["figures"].append(result["figure"])
                elif "race" in result:
                    self.record["races"][result.pop("race")] = result
                else:
                    self.record.update(result)
        write(self.record, options.output)


def main() -> None:
    """Run what the options ask for; exit with an error where something was wrong."""
    options = _options()
    require(torch.device(options.device))
    run = Run(options)
    if options.build:
        run.part("build", [sys.executable, "setup.py", "-q", "build_ext", "--inplace"])
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
    if hopper and run.record["environment"]["nvcc"]:
        check = "from dynal_fast._extension import load_cuda; raise SystemExit(load_cuda() is None)"
        run.part("kernels for Hopper are built", [sys.executable, "-c", check])
    if not options.check_only:
        for name in ("ceilings", *SECTIONS):
            run.results(name)
    if options.parity:
        output = run.part("parity", parity_command())
        run.record["parity"] = (output.strip().splitlines() or [""])[-1]
    run.results("races")
    failed = any(part["outcome"] != "done" for part in run.record["parts"].values())
    failed |= any(race["differing"] for race in run.record["races"].values())
    run.say(f"{'FAILED, see' if failed else 'written to'} {run.path}")
    raise SystemExit(1 if failed else 0)


def require(device: torch.device) -> None:
    """Exit, saying why, unless the device can be used."""
    if device.type != "cuda" or torch.cuda.is_available():
        return
    built = torch.version.cuda or torch.version.hip
    raise SystemExit(
        f"This needs a CUDA device, and torch sees none (torch {torch.__version__}, "
        f"{f'built for CUDA {built}' if built else 'built without CUDA'}). Without a GPU, "
        "`make test` runs the kernels interpreted and compiles them ahead of time."
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", help="of the operations; by default the device's")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--no-build", dest="build", action="store_false")
    parser.add_argument("--no-parity", dest="parity", action="store_false")
    parser.add_argument("--check-only", action="store_true", help="no ceilings and no figures")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args()


def parity_command() -> list[str]:
    """The tests of the kernels, on the GPU, with what pytest plugins the machine has."""
    files = [str(path) for pattern in PARITY_TESTS for path in sorted(ROOT.glob(pattern))]
    # the project's own pytest options name plugins that this machine may not have
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):  # most of the time goes into compiling some 200 kernels
        command += ["-n", str(min(12, os.cpu_count() or 1))]
    return [*command, *files]


def environment(device: torch.device) -> dict[str, str | None]:
    """Everything that a figure depends on."""
    return {
        "device": device_name(device),
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _first_line("git", "rev-parse", "HEAD"),
        "changed_files": _first_line("git", "diff", "HEAD", "--shortstat"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "nvcc": _nvcc_release(),
        "platform": platform.platform(),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.import_module(package).__version__


def _nvcc_release() -> str | None:
    nvcc = shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    if nvcc is None:
        return None
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release ([\d.]+)", said)
    return found and found[1]


def _first_line(*command: str) -> str | None:
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return (run.stdout.strip().splitlines() or [None])[0]


def write(record: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", record["environment"]["device"]).strip("-").lower()
    path = folder / f"{name}-{record['environment']['date'][:10]}.json"
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, path)
    return path
