"""Compile for a GPU that is not there: launching a kernel compiles it and runs nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dynal_fast._triton import require_triton, triton_version

require_triton()

# Triton 3.6 has no float64 matrix product on gfx942, 3.9 has.
OLDEST_TRITON = {"sm_80": (0,), "sm_90": (0,), "sm_100": (0,), "gfx942": (3, 9)}
ARCHITECTURES = tuple(name for name, oldest in OLDEST_TRITON.items() if triton_version() >= oldest)


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

    Yields the list that the compiled kernels are appended to. Triton's active driver
    is replaced inside the block, so other threads must not launch.
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
