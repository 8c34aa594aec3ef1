"""Compile kernels for GPUs that are not there, and read what they will use.

``python -m benchmarks.ahead_of_time`` prints registers, shared memory and spills of every
kernel variant for every architecture. It needs Triton and no GPU: the public operations are called
on CPU tensors as a GPU run would call them, and instead of being launched each kernel is compiled
for the target with the specialisation that Triton's own launcher derives from the arguments. In a
source tree with nvcc the kernels in CUDA C++ follow.
"""

import argparse
import importlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynal_fast._extension import load_cuda
from dynal_fast._triton import require_triton, triton_version

require_triton()

# Largest shared memory of one thread block, in bytes.
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
# Triton 3.6 has no float64 matrix product on gfx942, 3.9 has.
OLDEST_TRITON = {"gfx942": (3, 9)}
ARCHITECTURES = tuple(
    name for name in SHARED_LIMIT if triton_version() >= OLDEST_TRITON.get(name, (0,))
)
# The modules whose `variants()` yields the variants that must compile.
KERNEL_MODULES = (
    "benchmarks.ahead_of_time.farthest_first",
    "benchmarks.ahead_of_time.pool_stats",
    "benchmarks.ahead_of_time.dense_discrepancy",
)


@dataclass(frozen=True)
class Variant:
    """A call, on CPU tensors, that launches the kernels of one variant."""

    name: str
    call: Callable[[], Any]


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel uses: registers a thread, bytes of shared memory a block.

    ``spilled`` counts instructions that access local memory on NVIDIA (spills, or a register array
    indexed at run time), spilled vector registers on AMD.
    """

    variant: str
    kernel: str
    architecture: str
    warps: int
    registers: int
    shared: int
    spilled: int

    def problems(self) -> list[str]:
        """Return what must not be: spills, or more shared memory than a block can have."""
        found = []
        if self.spilled:
            found.append(f"spills {self.spilled}")
        if self.shared > (limit := SHARED_LIMIT[self.architecture]):
            found.append(f"needs {self.shared} bytes of shared memory of {limit}")
        return found


class _AbsentDevice:
    """Answers what Triton's launcher asks of a driver, for a device that is not there."""

    is_absent = True

    def __init__(self, architecture: str) -> None:
        from triton.backends.compiler import GPUTarget

        self.architecture = architecture
        if architecture.startswith("sm_"):
            self.target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
        else:
            self.target = GPUTarget("hip", architecture, 64)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> str:
        return self.architecture

    def get_current_stream(self, device: Any) -> int:
        return 0


@contextmanager
def compiling_for(architecture: str) -> Iterator[list[Any]]:
    """Within the block, launching a kernel compiles it for ``architecture`` and runs nothing.

    Yields the list that the compiled kernels are appended to. Not for threads: Triton's active
    driver is replaced meanwhile.
    """
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    compiled: list[Any] = []
    previous, run = driver._active, JITFunction.run

    def compile_only(self: Any, *args: Any, warmup: bool = False, **kwargs: Any) -> Any:
        kernel = run(self, *args, warmup=True, **kwargs)
        compiled.append(kernel)
        return kernel

    driver.set_active(_AbsentDevice(architecture))
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = run
        driver._active = previous


def resources(variant: str, kernel: Any, architecture: str) -> Resources:
    """Read the resources of a compiled kernel from its machine code."""
    if "cubin" in kernel.asm:
        registers, spilled = _read_cubin(kernel.asm["cubin"])
    else:
        usage = {
            name: int(value)
            for name, value in re.findall(
                r"\.([sv]gpr(?:_spill)?_count): *(\d+)", kernel.asm["amdgcn"]
            )
        }
        # spilled scalar registers go to lanes of vector registers, not to memory
        registers, spilled = usage["vgpr_count"], usage["vgpr_spill_count"]
    return Resources(
        variant,
        kernel.metadata.name,
        architecture,
        kernel.metadata.num_warps,
        registers,
        kernel.metadata.shared,
        spilled,
    )


def _read_cubin(cubin: bytes) -> tuple[int, int]:
    """Return registers a thread, and local-memory instructions."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel.cubin")
        with open(path, "wb") as file:
            file.write(cubin)

        def run(*command: str) -> str:
            return subprocess.run(
                [*command, path], capture_output=True, text=True, check=True
            ).stdout

        usage = {
            name: int(value)
            for name, value in re.findall(
                r"\b(REG|STACK|LOCAL):(\d+)",
                run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage"),
            )
        }
        if usage["STACK"] + usage["LOCAL"] == 0:
            return usage["REG"], 0
        # a stack frame alone is no spill: a called routine may have one
        return usage["REG"], len(re.findall(r"\b(?:STL|LDL)\b", run(knobs.nvidia.nvdisasm.path)))


def variants() -> Iterator[Variant]:
    """Yield every kernel variant of the package."""
    for module in KERNEL_MODULES:
        yield from importlib.import_module(module).variants()


def compile_variant(variant: Variant, architecture: str) -> list[Resources]:
    """Compile the kernels that a variant launches; return what each uses."""
    with compiling_for(architecture) as compiled:
        variant.call()
    return [resources(variant.name, kernel, architecture) for kernel in compiled]


def cuda_kernels() -> list[Resources]:
    """Compile the kernels in CUDA C++ for Hopper, where nvcc and their sources are.

    Raises
    ------
    RuntimeError
        nvcc refuses them, or warns: products that wait for each other are a warning too.
    """
    extension, home = load_cuda(), os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    source = Path(__file__).parents[2] / "csrc" / "cuda" / "pool_stats_head.cu"
    if extension is None or nvcc is None or not source.exists():
        return []
    command = [nvcc, "-std=c++17", "-O3", "-gencode", "arch=compute_90a,code=sm_90a", "--cubin"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["-Xptxas", "-v", "-o", f"{folder}/kernels.cubin", str(source)]
        compiled = subprocess.run(command, capture_output=True, text=True)
    if compiled.returncode or re.search(r"warning|Performance Loss|\(C7\d+\)", compiled.stderr):
        raise RuntimeError(compiled.stderr)
    entry = re.compile(
        r"Compiling entry function '\w*?\d([a-z_]+_kernel)I\w*?\d(B?[Ff]16)E.*?"
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        re.DOTALL,
    )
    warps, shared = extension.pool_stats_head_resources(768)
    return [
        Resources(
            f"update_from_features C=1000 d=768 {element.lower()}",
            kernel,
            "sm_90",
            warps,
            int(registers),
            shared,
            (int(stores) + int(loads)) // 4,
        )
        for kernel, element, stores, loads, registers in entry.findall(compiled.stderr)
    ]


def main() -> None:
    """Print the table; exit with an error where a kernel spills or asks for too much memory."""
    parser = argparse.ArgumentParser(description="registers, shared memory and spills per kernel")
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--match", default="", help="only variants whose name contains this")
    options = parser.parse_args()
    print(f"{'variant':<52}{'kernel':<20}{'arch':<9}{'warps':>5}{'regs':>6}{'shared':>9}  spills")
    failed = False
    rows = (
        row
        for variant in variants()
        if options.match in variant.name
        for architecture in options.arch
        for row in compile_variant(variant, architecture)
    )
    in_cuda = (
        row
        for row in (cuda_kernels() if "sm_90" in options.arch else [])
        if options.match in row.variant
    )
    for row in itertools.chain(rows, in_cuda):
        problems = row.problems()
        failed |= bool(problems)
        print(
            f"{row.variant:<52}{row.kernel:<20}{row.architecture:<9}{row.warps:>5}"
            f"{row.registers:>6}{row.shared:>9}  {row.spilled or '-'}"
            + (f"  <- {'; '.join(problems)}" if problems else ""),
            flush=True,
        )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
