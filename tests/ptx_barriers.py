"""Finds shared memory that is written while another warp group may still multiply from it.

``wgmma.wait_group`` waits for the products of the warp group that executes it. In a kernel with
several, a barrier of the whole block has to follow before what they read is written again, and some
versions of Triton leave it out (triton-lang/triton#11047).
"""

import re
from typing import NamedTuple

from tests.ptx import INFINITY, Ranges, blocks

PRODUCT = re.compile(
    r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k\d+\S*\s+\{[^}]*\},\s*(\{[^}]*\}|%\w+),\s*(%\w+),(.*);"
)
WAIT = re.compile(r"wgmma\.wait_group\.sync\.aligned\s+(\d+)")
# Of all threads of the block: number 0, and no count of threads.
BARRIER = re.compile(r"(?:bar|barrier(?:\.cta)?)\.sync(?:\.aligned)?\s+0\s*;")
WRITE = re.compile(
    r"(?:\b(?:st|atom|red)\.(?:[\w:]+\.)*shared\b|\bstmatrix\.|\bst\.async\.|\bred\.async\."
    r"|\bcp\.async\.(?:bulk\.)?(?:[\w:]+\.)*shared\b)\S*\s+(?:%\w+,\s*)?\[([^\]]*)\]"
)
WRITTEN = 16  # bytes that a thread writes at most, at a multiple of as many
SWIZZLE = {1: 128, 2: 64, 3: 32}  # bytes of a row of a tile, by the kind of descriptor


Extent = tuple[float, float]  # of shared memory: the first byte, and the one after the last
ALL = (-INFINITY, INFINITY)


class State(NamedTuple):
    """What products may still read, and what some warp group may still read after its wait."""

    read: frozenset[Extent] = frozenset()
    unguarded: frozenset[Extent] = frozenset()

    def __or__(self, other: "State") -> "State":  # type: ignore[override]
        return State(self.read | other.read, self.unguarded | other.unguarded)


def unguarded_writes(ptx: str) -> list[str]:
    """The writes that no barrier keeps from what a ``wgmma.wait_group`` before them waited for."""
    body, ranges = blocks(ptx), Ranges(ptx)
    before = {next(iter(body)): State()}
    work, found = list(before), set()
    while work:
        name = work.pop()
        state = before[name]
        for line in body[name].lines:
            if product := PRODUCT.search(line):
                state = State(state.read | set(_operands(product, ranges)), state.unguarded)
            elif wait := WAIT.search(line):
                in_flight = state.read if int(wait[1]) else frozenset()
                state = State(in_flight, state.unguarded | state.read)
            elif BARRIER.search(line):
                state = State(state.read, frozenset())
            elif write := WRITE.search(line):
                to = ranges.of(write[1])
                last = to.high + WRITTEN - to.high % WRITTEN if to.high < INFINITY else INFINITY
                if any(to.low < end and start < last for start, end in state.unguarded):
                    found.add(line)
        for target in body[name].targets:
            joined = before.get(target, State()) | state
            if target not in before or joined != before[target]:
                before[target] = joined
                work.append(target)
    return sorted(found)


def _operands(product: re.Match[str], ranges: Ranges) -> list[Extent]:
    """The shared memory, from and up to, that a product reads."""
    columns, a, b, flags = int(product[1]), product[2], product[3], product[4].split(",")
    transposed = any(int(flag) for flag in flags[3:])
    read = [_tile(b, columns, ranges, transposed)]
    if a.startswith("%"):
        read.append(_tile(a, 64, ranges, transposed))
    return read


def _tile(descriptor: str, rows: int, ranges: Ranges, transposed: bool) -> Extent:
    """From the lowest to the highest byte that a descriptor of ``rows`` rows may lead to."""
    low, high, _ = ranges.of(descriptor)
    if transposed or low < 0 or high == INFINITY:
        return ALL
    first, last, kind = int(low), int(high), int(low) >> 62
    if first >> 14 != last >> 14 or kind not in SWIZZLE:
        return ALL
    stride = (first >> 32 & 0x3FFF) * 16  # from eight rows to the next
    atom = 8 * SWIZZLE[kind]
    start, end = ((address & 0x3FFF) * 16 // atom * atom for address in (first, last))
    return start, end + (rows // 8 - 1) * stride + atom
