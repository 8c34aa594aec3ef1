"""Every kernel variant compiles for GPUs that are not here, without spills, within their memory."""

import os
import re

import pytest
import torch

from tests.ptx_barriers import BARRIER, WAIT, unguarded_writes
from tests.triton_device import INTERPRETED

triton = pytest.importorskip("triton", reason="triton is not installed")
if INTERPRETED:
    pytest.skip("kernels are interpreted in this process, not compiled", allow_module_level=True)

import triton.language as tl  # noqa: E402

from benchmarks.ahead_of_time import compile_variant, variants  # noqa: E402
from benchmarks.ahead_of_time.absent_device import ARCHITECTURES, compiling_for  # noqa: E402
from benchmarks.ahead_of_time.resources import Resources, cuda_kernels, resources_of  # noqa: E402
from benchmarks.ahead_of_time.variant import Variant  # noqa: E402

VARIANTS = {variant.name: variant for variant in variants()}
# The versions that the kernels are tuned under; another may keep a few registers in memory, which
# costs time and nothing else.
TUNED = ("3.6.", "3.9.")


# Every variant for the architecture that the kernels are tuned for, and in turn for one of the
# others. DYNAL_FAST_COMPILE=all takes all, for minutes more.
ALL = os.environ.get("DYNAL_FAST_COMPILE") == "all"
OTHERS = [architecture for architecture in ARCHITECTURES if architecture != "sm_90"]
COMPILED = [
    (architecture, name)
    for i, name in enumerate(VARIANTS)
    for architecture in ARCHITECTURES
    if ALL or architecture in ("sm_90", OTHERS[i % len(OTHERS)])
]


@pytest.mark.parametrize(("architecture", "name"), COMPILED)
def test_compiles_without_spills_and_with_every_barrier(name, architecture):
    with compiling_for(architecture) as compiled:
        VARIANTS[name].call()
    assert compiled
    for kernel in compiled:
        if multiplies_in_groups(kernel):
            assert unguarded_writes(kernel.asm["ptx"]) == [], kernel.metadata.name
    rows = [resources_of(name, kernel, architecture) for kernel in compiled]
    spills = [row for row in rows if row.spilled]
    for row in rows:
        assert [problem for problem in row.problems() if "spills" not in problem] == [], row
    if not triton.__version__.startswith(TUNED) and spills:
        pytest.skip(f"spills are held under Triton {TUNED}, not under {triton.__version__}")
    assert spills == []


def multiplies_in_groups(kernel):
    """Whether several warp groups multiply, none of which waits for another's products."""
    return kernel.metadata.num_warps > 4 and "wgmma" in kernel.asm.get("ptx", "")


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("farthest_first euclidean bfloat16 d=512", {"compare"}),
        ("update_from_features C=1000 bfloat16 typical", {"update_split_rows"}),
        ("update_from_features C=1000 float32 typical", {"update_long_rows"}),
    ],
)
def test_a_barrier_that_is_left_out_is_found(name, kernels):
    """In the kernels as they are compiled: what the reading of their PTX would otherwise miss."""
    with compiling_for("sm_90") as compiled:
        VARIANTS[name].call()
    compiled = [kernel for kernel in compiled if multiplies_in_groups(kernel)]
    assert {kernel.metadata.name for kernel in compiled} == kernels
    for kernel in compiled:
        lines, waiting = [], False
        for line in kernel.asm["ptx"].splitlines():
            waiting |= WAIT.search(line) is not None
            if waiting and BARRIER.search(line):
                waiting = False
            else:
                lines.append(line)
        assert unguarded_writes("\n".join(lines)) != []


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("update")])
def test_updates_that_start_early_wait_before_they_touch_memory(name):
    with compiling_for("sm_90") as compiled:
        VARIANTS[name].call()
    (kernel,) = compiled
    assert kernel.metadata.launch_pdl == (kernel.metadata.name != "update_split_rows")
    if kernel.metadata.launch_pdl:
        code = kernel.asm["ptx"]
        touches = re.search(r"\b(ld|st|atom|red|cp)\.\S*global", code)
        assert 0 < code.index("griddepcontrol.wait") < touches.start()


def test_older_devices_start_nothing_early():
    with compiling_for("sm_80") as compiled:
        VARIANTS["update C=100 float32 typical"].call()
    assert "griddepcontrol" not in compiled[0].asm["ptx"]
    assert not compiled[0].metadata.launch_pdl


def test_a_batch_of_8192_rows_of_100_classes_is_one_wave():
    """On 132 multiprocessors: a second wave would wait for memory as long as the first."""
    with compiling_for("sm_90") as compiled:
        VARIANTS["update C=100 float32 typical"].call()
    (kernel,) = compiled
    row = resources_of("", kernel, "sm_90")
    at_once = 65536 // (row.registers * 32 * row.warps)
    programs = 8192 // kernel.src.constants[rows_index(kernel)]
    assert programs <= 132 * at_once


@pytest.mark.parametrize(
    "name",
    [
        "update C=10 float32 everything",
        "update C=100 float32 typical",
        "update C=1000 float16 everything",
    ],
)
def test_an_update_loads_everything_before_it_stores(name):
    """A load after the rows are folded would be one more latency, beside which nothing moves."""
    with compiling_for("sm_90") as compiled:
        VARIANTS[name].call()
    code = compiled[0].asm["ptx"]
    loads, stores = (
        [found.start() for found in re.finditer(rf"\b{what}\.(?:\w+\.)*global", code)]
        for what in ("ld", "st")
    )
    unknown_id, *rest = stores  # of which claims keep a list
    assert unknown_id < max(loads) < min(rest)
    assert len(rest) > 5


COPIES = r"cp\.async\.cg\.shared\.global.*0x10"
LOADS = r"ld\.global\.v4\.b32"


@pytest.mark.parametrize(
    ("name", "kernel", "pattern"),
    [
        ("farthest_first euclidean float32 d=512", "compare", COPIES),
        ("update C=100 float32 typical", "update_whole_rows", LOADS),
        ("update C=1000 bfloat16 typical", "update_whole_rows", LOADS),
        ("update_from_features C=1000 bfloat16 typical", "update_split_rows", COPIES),
    ],
)
def test_rows_that_are_aligned_are_read_16_bytes_at_a_time(name, kernel, pattern):
    with compiling_for("sm_90") as compiled:
        VARIANTS[name].call()
    codes = [each.asm["ptx"] for each in compiled if each.metadata.name == kernel]
    assert codes
    assert all(re.search(pattern, code) for code in codes)


def rows_index(kernel):
    return (kernel.src.fn.arg_names.index("ROWS"),)


def test_the_kernels_in_cuda_compile_without_spills():
    rows = cuda_kernels()
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

    (row,) = compile_variant(Variant("", call), "sm_90")
    assert row.problems() == [f"spills {row.spilled}"]


def test_too_much_shared_memory_is_found():
    row = Resources("", "kernel", "sm_80", 4, 32, 200_000, 0)
    assert row.problems() == ["needs 200000 bytes of shared memory of 166912"]
    assert Resources("", "kernel", "sm_90", 4, 32, 200_000, 0).problems() == []


def test_cpu_tensors_are_refused_when_nothing_interprets_them():
    with pytest.raises(ValueError, match=r"needs CUDA tensors, got CPU ones.*TRITON_INTERPRET"):
        VARIANTS["update C=10 float32 typical"].call()
