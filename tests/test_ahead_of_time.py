"""Every kernel variant compiles for GPUs that are not here, without spills, within their memory."""

import re

import pytest
import torch

from tests.triton_device import INTERPRETED

triton = pytest.importorskip("triton", reason="triton is not installed")
if INTERPRETED:
    pytest.skip("kernels are interpreted in this process, not compiled", allow_module_level=True)

import triton.language as tl  # noqa: E402

from dynal_fast.ops import ahead_of_time  # noqa: E402
from dynal_fast.ops.ahead_of_time import ARCHITECTURES, compile_variant, variants  # noqa: E402

VARIANTS = {variant.name: variant for variant in variants()}
# The versions that the kernels are tuned under; another may keep a few registers in memory, which
# costs time and nothing else.
TUNED = ("3.6.", "3.9.")


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_without_spills(name, architecture):
    rows = compile_variant(VARIANTS[name], architecture)
    assert rows
    spills = [row for row in rows if row.spilled]
    for row in rows:
        assert [problem for problem in row.problems() if "spills" not in problem] == [], row
    if not triton.__version__.startswith(TUNED) and spills:
        pytest.skip(f"spills are held under Triton {TUNED}, not under {triton.__version__}")
    assert spills == []


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("update")])
def test_updates_that_start_early_wait_before_they_touch_memory(name):
    with ahead_of_time.compiling_for("sm_90") as compiled:
        VARIANTS[name].call()
    (kernel,) = compiled
    assert kernel.metadata.launch_pdl == (kernel.metadata.name != "update_split_rows")
    if kernel.metadata.launch_pdl:
        code = kernel.asm["ptx"]
        touches = re.search(r"\b(ld|st|atom|red|cp)\.\S*global", code)
        assert 0 < code.index("griddepcontrol.wait") < touches.start()


def test_older_devices_start_nothing_early():
    with ahead_of_time.compiling_for("sm_80") as compiled:
        VARIANTS["update C=100 float32 typical"].call()
    assert "griddepcontrol" not in compiled[0].asm["ptx"]
    assert not compiled[0].metadata.launch_pdl


def test_a_batch_of_8192_rows_of_100_classes_is_one_wave():
    """On 132 multiprocessors: a second wave would wait for memory as long as the first."""
    with ahead_of_time.compiling_for("sm_90") as compiled:
        VARIANTS["update C=100 float32 typical"].call()
    (kernel,) = compiled
    row = ahead_of_time.resources("", kernel, "sm_90")
    at_once = 65536 // (row.registers * 32 * row.warps)
    programs = 8192 // kernel.src.constants[rows_index(kernel)]
    assert programs <= 132 * at_once


def rows_index(kernel):
    return (kernel.src.fn.arg_names.index("ROWS"),)


def test_the_kernels_in_cuda_compile_without_spills():
    rows = ahead_of_time.cuda_kernels()
    if not rows:
        pytest.skip("nvcc is not on the PATH, or the CUDA kernels were not built")
    assert [row.variant.split()[-1] for row in rows] == ["f16", "bf16"]
    assert [row.problems() for row in rows] == [[], []]
    assert all(row.shared > 200_000 and row.warps == 16 for row in rows)


@triton.jit
def many_live_values(x_ptr, SIZE: tl.constexpr):
    offsets = tl.arange(0, SIZE)
    x = tl.load(x_ptr + offsets)
    y = tl.load(x_ptr + SIZE + offsets)
    for _ in range(10):
        x, y = x * tl.sum(y * x), y + tl.sum(x)
    tl.store(x_ptr + offsets, x + y)


def test_a_spill_is_found():
    def call():
        many_live_values[(1,)](torch.zeros(1), SIZE=32768, num_warps=4, enable_fp_fusion=True)

    (row,) = compile_variant(ahead_of_time.Variant("", call), "sm_90")
    assert row.problems() == [f"spills {row.spilled}"]


def test_too_much_shared_memory_is_found():
    row = ahead_of_time.Resources("", "kernel", "sm_80", 4, 32, 200_000, 0)
    assert row.problems() == ["needs 200000 bytes of shared memory of 166912"]
    assert ahead_of_time.Resources("", "kernel", "sm_90", 4, 32, 200_000, 0).problems() == []


def test_cpu_tensors_are_refused_when_nothing_interprets_them():
    with pytest.raises(ValueError, match=r"needs CUDA tensors, got CPU ones.*TRITON_INTERPRET"):
        VARIANTS["update C=10 float32 typical"].call()
