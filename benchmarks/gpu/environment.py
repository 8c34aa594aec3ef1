"""Record everything that a figure depends on; fail where there is no GPU."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess

from benchmarks.gpu.job import Job, Lines


def run(job: Job) -> Lines:
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(
                f"This needs the machine's own torch and triton; {package} is missing."
            )
    import torch
    import triton

    if job.on_gpu and not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        raise SystemExit(
            f"This needs a CUDA device, and torch sees none (torch {torch.__version__}, "
            f"{f'built for CUDA {built}' if built else 'built without CUDA'}). Without a GPU, "
            "`make test` runs the kernels interpreted and compiles them ahead of time, and "
            "`python3 -m benchmarks.gpu --rehearse --output DIR` runs every part on the CPU."
        )
    device = {"device": "CPU"}
    if job.on_gpu:
        found = torch.cuda.get_device_properties(0)
        device = {
            "device": found.name,
            "capability": f"{found.major}.{found.minor}",
            "processors": str(found.multi_processor_count),
            "memory_gb": f"{found.total_memory / 1e9:.0f}",
            "l2_mb": f"{getattr(found, 'L2_cache_size', 0) / 1e6:.0f}",
        }
    environment = {
        **device,
        "driver": _nvidia_smi("driver_version"),
        "clocks": _nvidia_smi("clocks.sm,clocks.mem,clocks.max.sm,power.limit"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "nvcc": _nvcc(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
    }
    yield {"kind": "environment", "environment": environment}


def _nvcc() -> str | None:
    nvcc = shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    said = _said(nvcc, "--version") if nvcc else None
    found = re.search(r"release ([\d.]+)", said or "")
    return found and found[1]


def _nvidia_smi(query: str) -> str | None:
    said = _said("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    return said.strip().splitlines()[0] if said and said.strip() else None


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
