"""The check of barriers between products and writes, on kernels of a few lines."""

import pytest

from tests.ptx import Ranges, blocks
from tests.ptx_barriers import unguarded_writes

# Two tiles of 32 rows by 128 bytes: at 0, which the products read, and at 8192.
KERNEL = """
.visible .entry kernel() .reqntid 256 {{
    mov.u32 %r1, %tid.x;
    and.b32 %r2, %r1, 63;
    shl.b32 %r3, %r2, 4;
    mov.b32 %r4, global_smem;
    add.s32 %r5, %r4, %r3;
    mov.b64 %rd1, 4611686293305294848;
    mov.b32 %r6, 0;
$L_LOOP:
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n32k8.f32.tf32.tf32 {{%r9}}, {{%r10}}, %rd1, %p1, 1, 1;
    wgmma.commit_group.sync.aligned;
{after}
    add.s32 %r6, %r6, 1;
    setp.lt.s32 %p2, %r6, 9;
    @%p2 bra $L_LOOP;
{end}
    ret;
}}
"""
WAIT = "wgmma.wait_group.sync.aligned 0;"
COPY = "cp.async.cg.shared.global [ %r5 + 0 ], [ %rd2 + 0 ], 0x10, %r7;"


def kernel(*after, end=""):
    return KERNEL.format(after="\n".join(after), end=end)


@pytest.mark.parametrize(
    "write",
    [
        COPY,
        "cp.async.ca.shared.global [%r5], [%rd2], 8;",
        "st.shared.v2.b32 [%r5+4], {%r7, %r8};",
        "@%p3 st.shared.b8 [ %r5 + 0 ], %rs1;",
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r5], {%r7, %r8, %r7, %r8};",
        "st.shared::cta.b32 [%r5], %r7;",
        "atom.shared.add.u32 %r11, [%r5], 1;",
        "red.shared.add.u32 [%r5], 1;",
        "cp.async.bulk.shared::cluster.global [%r5], [%rd2], 16, [%r8];",
        "st.shared.b32 [%r99], %r7;",  # of which nothing is known
    ],
)
def test_a_write_after_a_wait_without_a_barrier_is_found(write):
    assert unguarded_writes(kernel(WAIT, write)) == [write]
    assert unguarded_writes(kernel(WAIT, "bar.sync 0;", write)) == []
    assert unguarded_writes(kernel(WAIT, "barrier.cta.sync.aligned 0;", write)) == []


@pytest.mark.parametrize("part", ["bar.warp.sync -1;", "bar.sync 1, 128;", "bar.sync 0, 128;"])
def test_a_barrier_of_some_of_the_threads_is_none(part):
    assert unguarded_writes(kernel(WAIT, part, COPY)) == [COPY]


def test_a_barrier_before_the_wait_is_none():
    """What that Triton takes for enough: the other group may not have waited yet."""
    assert unguarded_writes(kernel("bar.sync 0;", WAIT, COPY)) == [COPY]


def test_the_next_turn_of_a_loop_and_what_follows_it_are_looked_at():
    early = f"{COPY}\n    wgmma.fence"
    looped = kernel(WAIT).replace("bar.sync 0;\n    wgmma.fence", early)
    assert unguarded_writes(looped) == [COPY]
    assert unguarded_writes(kernel(WAIT, end=COPY)) == [COPY]
    assert unguarded_writes(kernel(WAIT, end=f"bar.sync 0;\n{COPY}")) == []


def test_a_wait_that_leaves_products_in_flight_counts_too():
    assert unguarded_writes(kernel(WAIT.replace(" 0", " 1"), COPY)) == [COPY]


def test_other_memory_may_be_written():
    """3072 + 1008 + 16 is where the tile of 32 rows ends, so what is 1024 further is not read."""
    assert unguarded_writes(kernel(WAIT, COPY.replace("+ 0 ]", "+ 3072 ]", 1))) != []
    assert unguarded_writes(kernel(WAIT, COPY.replace("+ 0 ]", "+ 4096 ]", 1))) == []
    assert unguarded_writes(kernel(WAIT, "st.global.b32 [%rd2], %r7;")) == []


def test_ranges_of_addresses():
    ranges = Ranges(
        """
        mov.u32 %r1, %tid.x;
        and.b32 %r2, %r1, 31;
        shl.b32 %r3, %r2, 9;
        and.b32 %r4, %r1, 224;
        shr.u32 %r5, %r4, 2;
        or.b32 %r6, %r3, %r5;
        mov.b32 %r7, 1;
        add.s32 %r8, %r7, 1;
        setp.gt.s32 %p1, %r8, 2;
        selp.b32 %r7, 0, %r8, %p1;
        shl.b32 %r9, %r7, 14;
        add.s32 %r10, %r9, %r6;
        add.s32 %r11, %r11, 4;
        ld.param.b32 %r12, [kernel_param_0];
        bfe.u32 %r13, %r10, 4, 14;
        bfe.u32 %r14, %r10, 4, 3;
        bfe.s32 %r15, %r10, 4, 3;
        """
    )
    assert ranges.of("%r6")[:2] == (0, 31 * 512 + 56)
    assert ranges.of("%r7")[:2] == (0, 2)
    assert ranges.of("%r10 + 64")[:2] == (64, 2 * 16384 + 31 * 512 + 56 + 64)
    assert ranges.of("%r12 + 4")[1] == float("inf")
    assert ranges.of("%r13")[:2] == (0, (2 * 16384 + 31 * 512 + 56) // 16)
    assert ranges.of("%r14")[:2] == (0, 3)
    assert ranges.of("%r15")[0] == -float("inf")


def test_control_flow_that_is_not_followed_is_an_error():
    with pytest.raises(ValueError, match=r"brx\.idx"):
        blocks("brx.idx %r1, table;")
