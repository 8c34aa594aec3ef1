"""Launching Triton kernels: on the device of the tensors, or interpreted on the CPU."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda
from triton.runtime.driver import driver
from triton.runtime.interpreter import InterpretedFunction


def launch(
    kernel: Any,
    grid: Sequence[int],
    first: Tensor,
    *arguments: Any,
    enable_fp_fusion: bool = True,
    registers: int | None = None,
    dependent: bool = False,
    **options: Any,
) -> None:
    """Run ``kernel[grid](first, *arguments, **options)`` on the device of ``first``.

    ``enable_fp_fusion``: whether the compiler may contract a product and a sum.
    ``registers``: the limit for a thread on NVIDIA. Without one the assembler sometimes spills, to
    fit more threads.
    ``dependent``: on NVIDIA from Hopper on, start the kernel while the previous one still runs
    (programmatic dependent launch). Its argument ``DEPENDENT`` tells it to wait by itself.

    Raises
    ------
    ValueError
        The tensors are on the CPU, and Triton's interpreter is not switched on.
    """
    target = None if interpreted(kernel) else target_of(first.device)
    if registers is not None and target is not None and target.backend != "hip":
        options["maxnreg"] = registers
    if dependent:
        options["DEPENDENT"] = _is_hopper_or_newer(target) and hasattr(cuda, "gdc_wait")
        if options["DEPENDENT"]:
            options["launch_pdl"] = True
    with torch.cuda.device_of(first):
        kernel[tuple(grid)](first, *arguments, enable_fp_fusion=enable_fp_fusion, **options)


def interpreted(kernel: Any) -> bool:
    """Whether the kernel was defined under ``TRITON_INTERPRET=1``."""
    return isinstance(kernel, InterpretedFunction)


def compiling_only() -> bool:
    """Whether kernels are compiled for a GPU that is not there (``benchmarks.ahead_of_time``)."""
    return getattr(driver._active, "is_absent", False)


def target_of(device: torch.device) -> Any:
    """Return the target that kernels for tensors on ``device`` are compiled for.

    Raises
    ------
    ValueError
        The device is the CPU, where only the interpreter runs kernels.
    """
    if compiling_only():
        return driver.active.get_current_target()
    if device.type == "cpu":
        raise ValueError(
            'backend "triton" needs CUDA tensors, got CPU ones; to run it on the CPU, slowly, set '
            "TRITON_INTERPRET=1 in the environment before Python starts"
        )
    return _target_of_gpu(device.index)


@functools.cache
def _target_of_gpu(index: int) -> Any:
    with torch.cuda.device(index):
        return driver.active.get_current_target()


def multiplies_64_rows(kernel: Any, device: torch.device) -> bool:
    """Whether the matrix units need tiles of 64 rows or more: NVIDIA's from Hopper on."""
    return interpreted(kernel) or _is_hopper_or_newer(target_of(device))


def is_hopper(kernel: Any, device: torch.device) -> bool:
    """Whether the kernel runs on NVIDIA's Hopper."""
    if interpreted(kernel):
        return False
    target = target_of(device)
    return target.backend == "cuda" and 90 <= target.arch < 100


def dot_operand(dtype: torch.dtype, kernel: Any, device: torch.device) -> tuple[Any, str]:
    """Return the dtype and the precision for ``tl.dot`` of operands of ``dtype``.

    float32 operands (and float64, rounded) are multiplied with float32 accuracy: three tf32
    products on NVIDIA. The interpreter would multiply the bits of bfloat16 as integers, so it gets
    float32.
    """
    if dtype == torch.float16:
        return tl.float16, "ieee"
    if dtype == torch.bfloat16 and not interpreted(kernel):
        return tl.bfloat16, "ieee"
    if interpreted(kernel) or target_of(device).backend == "hip":
        return tl.float32, "ieee"
    return tl.float32, "tf32x3"


def _is_hopper_or_newer(target: Any) -> bool:
    return target is not None and target.backend == "cuda" and target.arch >= 90
