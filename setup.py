"""Build the compiled extensions from ``csrc/``: ``dynal_fast._C`` and, with nvcc, ``_cuda``.

Project metadata lives in ``pyproject.toml``. The first needs a C++17 compiler and pybind11, nothing
else: no torch at build time, no torch headers. The second is built where nvcc 12 or newer is found
(``CUDA_HOME``, else the PATH, else ``/usr/local/cuda``); everything works without it, some of it
slower on one kind of GPU.

Each file under ``csrc/isa/`` holds the same kernels compiled for one instruction set; the fastest
one the CPU supports is chosen at run time, so nothing here may depend on the building machine.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
X86_64 = platform.machine().lower() in {"x86_64", "amd64"} and sys.maxsize > 2**32

AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = [*AVX2_FLAGS, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISA_FLAGS = {
    "avx2.cpp": AVX2_FLAGS,
    "avx512.cpp": [*AVX512_FLAGS, "-mprefer-vector-width=512"],
}
OPERATIONS = ("dense_discrepancy", "farthest_first", "kmeans_plusplus", "pool_stats")
FOLDERS = (".", "common", *OPERATIONS)  # and isa, cuda
CUDA_FLAGS = ["-std=c++17", "-O3", "-gencode", "arch=compute_90a,code=sm_90a"]
CUDA_FLAGS += ["-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads", "2"]  # one a source
COMMON_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wall"]
COMMON_FLAGS += ["-pthread"]

MISSING_COMPILER = """
dynal_fast needs a C++17 compiler to build its extension (dynal_fast._C), and none worked.
  Debian/Ubuntu:  apt-get install g++ python3-dev
  Fedora:         dnf install gcc-c++ python3-devel
  macOS:          xcode-select --install
  conda:          conda install -c conda-forge cxx-compiler
Set CXX to use a particular compiler. The compiler's own message stands above.
"""


NO_CUDA = """
{nvcc} did not compile the CUDA kernels (its message stands above); dynal_fast is installed without
them. They need nvcc 12 or newer; CUDA_HOME names the toolkit to take.
"""


def nvcc() -> str | None:
    """The CUDA compiler: that of ``CUDA_HOME``, else of the PATH or the usual place, else none."""
    if home := os.environ.get("CUDA_HOME"):
        return shutil.which("nvcc", path=os.path.join(home, "bin"))
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


class BuildExtension(build_ext):
    """``build_ext`` with per-file instruction-set flags and a readable failure."""

    def run(self) -> None:
        if self.inplace:
            # Where it is not built again, that of older sources would be loaded.
            for built in (ROOT / "dynal_fast").glob("_cuda.*"):
                built.unlink()
        super().run()

    def build_extension(self, extension: Extension) -> None:
        if extension.name != "dynal_fast._cuda":
            super().build_extension(extension)
            return
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        includes = [f"-I{folder}" for folder in [*extension.include_dirs, *self.include_dirs]]
        command = [nvcc(), "-shared", *CUDA_FLAGS, *includes, *extension.sources]
        command += ["-o", f"{target}.tmp", "-ldl"]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode == 0:
            os.replace(f"{target}.tmp", target)
        else:
            target.unlink(missing_ok=True)  # which an older source may have left
            print(f"{compiled.stderr}\n{NO_CUDA.format(nvcc=nvcc())}", file=sys.stderr)

    def build_extensions(self) -> None:
        for extension in self.extensions:
            if extension.name == "dynal_fast._cuda":
                continue
            extension.extra_compile_args += COMMON_FLAGS
            extension.extra_link_args += ["-pthread"]
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = ISA_FLAGS.get(Path(src).name, []) if Path(src).parent.name == "isa" else []
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = compile_with_isa
        try:
            super().build_extensions()
        except Exception as error:
            print(f"{error}\n{MISSING_COMPILER}", file=sys.stderr)
            raise SystemExit(1) from error


def sources() -> list[str]:
    """The files to compile, those that take longest first, as some are compiled at a time."""
    names = [*(ISA_FLAGS if X86_64 else ()), "baseline.cpp", "kernels.cpp"]
    files = [ROOT / "csrc" / "isa" / name for name in names]
    folders = (ROOT / "csrc" / name for name in FOLDERS)
    files += [file for folder in folders for file in sorted(folder.glob("*.cpp"))]
    return [os.path.relpath(file, ROOT) for file in files]


def headers() -> list[str]:
    return [
        os.path.relpath(file, ROOT)
        for pattern in ("*.h", "*.inl", "*.cuh")
        for file in sorted((ROOT / "csrc").rglob(pattern))
    ]


def extensions() -> list[Extension]:
    modules = [
        Pybind11Extension(
            "dynal_fast._C",
            sources(),
            cxx_std=17,
            define_macros=[("DYNAL_X86_64", "1")] if X86_64 else [],
            depends=headers(),
        )
    ]
    if nvcc() and sys.platform == "linux":
        files = [ROOT / "csrc" / "cuda" / name for name in ("bindings.cpp", "pool_stats_head.cu")]
        modules.append(
            Extension(
                "dynal_fast._cuda",
                [os.path.relpath(file, ROOT) for file in files],
                include_dirs=[pybind11.get_include()],
                depends=headers(),
                optional=True,
            )
        )
    return modules


# A file for each CPU at a time, or MAX_JOBS.
with ParallelCompile("MAX_JOBS"):
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtension})
