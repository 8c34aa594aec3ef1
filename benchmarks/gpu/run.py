"""Build, check and time on a GPU, and write ``benchmarks/results/<device>-<date>.json``."""

import argparse
import datetime
import importlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import SECTIONS
from benchmarks.gpu.races import find_races
from benchmarks.gpu.timing import Figure, Setting, measure_ceilings

ROOT = Path(__file__).parents[2]
PARITY_TESTS = (
    "tests/test_*_triton.py",
    "tests/test_*_compile.py",
    "tests/test_observe.py",
    "tests/test_ema.py",
)


def main() -> None:
    """Run what the options ask for; exit with an error where something was wrong."""
    options = _options()
    device = torch.device(options.device)
    require(device)
    begin = time.monotonic()
    setting = Setting(device, options.smoke, options.backend)
    record: dict[str, Any] = {"environment": environment(device)}

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.0f} s] {text}", flush=True)

    if options.build:
        say("building the extension in place")
        build = [sys.executable, "setup.py", "build_ext", "--inplace"]
        subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if options.parity:
        say("parity tests")
        record["parity"] = run_parity()
        say(record["parity"]["summary"])
    say(f"{options.repeats} repetitions against races")
    differing = find_races(setting, options.repeats)
    record["races"] = {"repeats": options.repeats, "differing": differing}
    say(str(differing))
    if not options.check_only:
        say("ceilings")
        setting = replace(setting, ceilings=measure_ceilings(setting))
        record["ceilings"] = setting.ceilings
        say(", ".join(f"{name} {value:.3g}" for name, value in setting.ceilings.items()))
        record["figures"] = []
        for section in SECTIONS:
            for figure in importlib.import_module(f"benchmarks.gpu.{section}").figures(setting):
                record["figures"].append({**asdict(figure), "of_bound": figure.of_bound})
                say(line(figure))
    record["seconds"] = time.monotonic() - begin
    path = write(record, options.output)
    failed = any(differing.values())
    failed |= options.parity and record["parity"]["returncode"] != 0
    say(f"{'FAILED, see' if failed else 'written to'} {path}")
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


def line(figure: Figure) -> str:
    """One line of the table."""
    if figure.ms is None:
        return f"{figure.name:<46} -  {figure.details}"
    text = f"{figure.name:<46}{figure.ms:10.4f} ms"
    if figure.of_bound is not None:
        text += f"  {100 * figure.of_bound:5.1f}% of the bound {figure.bound_ms:.4f} ms"
    return text


def run_parity() -> dict[str, Any]:
    """Run the tests of the kernels on the GPU in a process of their own."""
    files = [str(path) for pattern in PARITY_TESTS for path in sorted(ROOT.glob(pattern))]
    # the project's own pytest options name plugins that this machine may not have
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "4"]
    run = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    print(run.stdout[-4000:] if run.returncode else "", end="")
    lines = run.stdout.strip().splitlines()
    summary = lines[-1] if lines else run.stderr[-500:]
    return {"returncode": run.returncode, "summary": summary}


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
        "platform": platform.platform(),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.import_module(package).__version__


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
