"""What compiled kernels use: registers, shared memory and spills, from their machine code."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynal_fast._extension import load_cuda

# Largest shared memory of one thread block, in bytes.
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}


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


def resources_of(variant: str, kernel: Any, architecture: str) -> Resources:
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


def cuda_kernels() -> list[Resources]:
    """Compile the kernels in CUDA C++ for Hopper, where nvcc and their sources are found.

    Raises
    ------
    RuntimeError
        nvcc refuses them or warns, as it does where products wait for each other.
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
