"""The ceilings of the device: the rates of copies, and of matrix products of random operands."""

import statistics

import torch

from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.timing import times


def run(job: Job) -> Lines:
    """Copy bandwidth (bytes read plus written) and the matrix rates."""
    elements = job.size(1 << 30, 1 << 16)
    buffers = torch.randint(0, 255, (2, elements), dtype=torch.uint8, device=job.device)
    copies = times(job, lambda: buffers[1].copy_(buffers[0]), head_start=True)
    copy_ms = statistics.median(copies)
    ceilings = {"copy_bytes_per_s": 2 * elements / copy_ms * 1e3}
    size = job.size(8192, 64)
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, dtype in (("bf16_flops", torch.bfloat16), ("fp32_flops", torch.float32)):
        a = torch.randn(size, size, device=job.device).to(dtype)
        b = torch.randn(size, size, device=job.device).to(dtype)
        out = torch.empty(size, size, device=job.device, dtype=dtype)
        products = times(
            job, lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 10, head_start=True
        )
        ceilings[name] = 2 * size**3 / statistics.median(products) * 1e3
    yield {"kind": "ceilings", "ceilings": ceilings}
