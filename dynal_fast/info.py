"""What a bug report needs: versions, CPU features, threads, and which backends work or why not.

Run it as ``dynal-fast info`` or ``python -m dynal_fast.info``.
"""

import importlib.metadata
import os
import platform
import sys

from dynal_fast._triton import triton_problem
from dynal_fast._version import __version__


def info() -> dict[str, str]:
    """Return the facts in reading order, as text.

    It never raises: a part that does not load is listed with the reason.

    >>> facts = info()
    >>> facts["dynal_fast"]  # doctest: +ELLIPSIS
    '0...'
    >>> sorted(name for name in facts if name.startswith("backend "))
    ['backend cpu', 'backend reference', 'backend triton']
    """
    facts = {
        "dynal_fast": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cpu": _cpu_name(),
    }
    for package in ("torch", "numpy", "triton"):
        facts[package] = _package_version(package)
    facts["cuda"] = _cuda()
    facts["threads"] = _threads()
    facts.update(_extension())
    facts["backend reference"] = "available (NumPy, float64)"
    facts["backend cpu"] = _cpu_backend()
    facts["backend triton"] = _triton_backend()
    facts["kernels for Hopper"] = _cuda_kernels()
    for package in ("scikit-learn", "safetensors", "PyYAML"):
        facts[package] = _package_version(package)
    return facts


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith(("model name", "Model")):
                    return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} logical cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} logical cores"


def _package_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    try:
        import torch
    except Exception as error:
        return f"unknown: torch does not load ({error})"
    built = torch.version.cuda or torch.version.hip
    if not torch.cuda.is_available():
        reason = "no CUDA device is visible" if built else "this torch build has no GPU support"
        return f"not available: {reason}"
    devices = []
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        devices.append(f"{torch.cuda.get_device_name(i)} (compute capability {major}.{minor})")
    return f"{built}: {', '.join(devices)}"


def _threads() -> str:
    try:
        import torch
    except Exception as error:
        return f"unknown: torch does not load ({error})"
    return f"{torch.get_num_threads()} (torch.get_num_threads())"


def _extension() -> dict[str, str]:
    from dynal_fast._extension import load

    try:
        extension = load()
    except (ImportError, ValueError) as error:
        return {"extension": f"not available: {error}"}
    others = [name for name in extension.supported_isas() if name != extension.active_isa()]
    return {
        "extension": f"compiled with {extension.compiler}",
        "instruction set": f"{extension.active_isa()} in use"
        + (f" (also: {', '.join(others)}; DYNAL_FAST_ISA selects)" if others else ""),
    }


def _cpu_backend() -> str:
    from dynal_fast._extension import load

    try:
        load()
    except (ImportError, ValueError):
        return "not available: the compiled extension does not load (see above)"
    return "available"


def _triton_backend() -> str:
    if (problem := triton_problem()) is not None:
        return f"not available: {problem}"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "available on CPU tensors through the interpreter (TRITON_INTERPRET=1: slow)"
    cuda = _cuda()
    return f"not available: CUDA is {cuda}" if cuda.startswith(("not", "unknown")) else "available"


def _cuda_kernels() -> str:
    from dynal_fast._extension import load_cuda

    return "not built: no nvcc was found, or it failed" if load_cuda() is None else "built"


def main() -> None:
    """Print the facts, one a line."""
    facts = info()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
