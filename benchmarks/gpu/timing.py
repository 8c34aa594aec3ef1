"""Times on a device, and the ceilings that they are compared with."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """Where the benchmark runs and how large its inputs are."""

    device: torch.device
    smoke: bool
    backend: str | None = None
    ceilings: dict[str, float] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def size(self, full: int, smoke: int) -> int:
        return smoke if self.smoke else full

    def bound_ms(
        self, num_bytes: float, flops: float = 0.0, rate: str = "bf16_flops"
    ) -> float | None:
        """The time that no version runs under: bytes and operations at the measured ceilings."""
        if not self.ceilings:
            return None
        return 1e3 * max(num_bytes / self.ceilings["copy_bytes_per_s"], flops / self.ceilings[rate])


@dataclass
class Figure:
    """One line of the record: what was measured, in milliseconds, and beside what."""

    name: str
    ms: float | None
    bound_ms: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def of_bound(self) -> float | None:
        return self.bound_ms / self.ms if self.ms and self.bound_ms else None


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(setting: Setting, call: Callable[[], Any], repeats: int = 20) -> float:
    """Median time of ``call``, by device events on a GPU, after warm-up."""
    repeats = 3 if setting.smoke else repeats
    for _ in range(2 if setting.smoke else 3):
        call()
    synchronize(setting.device)
    times = []
    for _ in range(repeats):
        if setting.on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            begin = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def captured(setting: Setting, call: Callable[[], Any]) -> Callable[[], Any]:
    """``call`` as a CUDA graph, which leaves the gaps between launches out; itself on a CPU."""
    if not setting.on_gpu:
        return call
    stream = torch.cuda.Stream(setting.device)
    stream.wait_stream(torch.cuda.current_stream(setting.device))
    with torch.cuda.stream(stream):
        for _ in range(2):  # compiles, loads and settles allocations before the capture
            call()
    torch.cuda.current_stream(setting.device).wait_stream(stream)
    torch.cuda.synchronize(setting.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def peak_bytes(setting: Setting, call: Callable[[], Any]) -> int | None:
    """Device memory that ``call`` takes beyond what is allocated already."""
    if not setting.on_gpu:
        return None
    synchronize(setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    before = torch.cuda.memory_allocated(setting.device)
    call()
    synchronize(setting.device)
    return torch.cuda.max_memory_allocated(setting.device) - before


def measure_ceilings(setting: Setting) -> dict[str, float]:
    """Copy bandwidth (bytes read plus written) and the matrix rates on random operands."""
    device = setting.device
    elements = setting.size(1 << 30, 1 << 16)
    buffers = torch.randint(0, 255, (2, elements), dtype=torch.uint8, device=device)
    copy_ms = milliseconds(setting, lambda: buffers[1].copy_(buffers[0]))
    ceilings = {"copy_bytes_per_s": 2 * elements / copy_ms * 1e3}
    size = setting.size(8192, 64)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for name, dtype in (("bf16_flops", torch.bfloat16), ("fp32_flops", torch.float32)):
            a = torch.randn(size, size, device=device).to(dtype)
            b = torch.randn(size, size, device=device).to(dtype)
            out = torch.empty(size, size, device=device, dtype=dtype)
            ms = milliseconds(setting, lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
            ceilings[name] = 2 * size**3 / ms * 1e3
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return ceilings
