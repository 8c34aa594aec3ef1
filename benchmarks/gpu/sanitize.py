"""Run the kernels under compute-sanitizer: memory errors, shared-memory races, unwritten reads."""

import os
import shutil
import subprocess
import sys
import tempfile

import torch

from benchmarks.gpu.run import ROOT, require

TOOLS = ("memcheck", "racecheck", "initcheck")


def main() -> None:
    """Run each tool over a small set of launches; exit with an error if one reports anything."""
    require(torch.device("cuda"))
    sanitizer = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    if sanitizer is None:
        raise SystemExit("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        work = [sys.executable, "-m", "benchmarks.gpu.part", "races", f"{folder}/results"]
        work += ["--smoke", "--repeats", "2"]
        # each tensor its own allocation, so that an overrun does not land in a neighbour
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        subprocess.run(work, cwd=ROOT, check=True)  # compiles, which need not be watched
        for tool in TOOLS:
            command = [sanitizer, "--tool", tool, "--error-exitcode", "9"]
            run = subprocess.run([*command, *work], cwd=ROOT, env=environment)
            print(f"{tool}: {'clean' if run.returncode == 0 else 'FAILED'}", flush=True)
            if run.returncode:
                failed.append(tool)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
