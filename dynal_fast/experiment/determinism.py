"""What makes a run reproducible: a seed for each purpose, deterministic kernels, digests."""

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def derived_seed(seed: int, purpose: str) -> int:
    """Return a seed below 2**62 for one purpose, such as the initial weights, of a run."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 2


def checked_device(device: str | torch.device) -> torch.device:
    """Return a torch device, after checking that this machine has it.

    Raises
    ------
    ValueError
        The name is unknown, or the device is not on this machine.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used: {error}") from error
    if found.type == "meta":
        raise ValueError("device 'meta' cannot be used: its tensors hold no values")
    return found


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Have torch use deterministic kernels where there are any, and restore its settings."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def numerics() -> dict[str, Any]:
    """Return the settings that change the last bits of results."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def machine(device: torch.device) -> str:
    """Return the hardware that rounding depends on: the GPU, or the CPU's instruction set."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor in the order of its elements."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
