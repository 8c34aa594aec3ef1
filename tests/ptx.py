"""As much of PTX as the tests read: the blocks of a kernel, and the ranges of its addresses."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

LABEL = re.compile(r"(\$?\w+):")
BRANCH = re.compile(r"(?:@!?%\w+\s+)?bra(?:\.uni)?\s+(\$?\w+)\s*;")
END = re.compile(r"(?:ret|exit|trap)\s*;")
DEFINITION = re.compile(r"(?:@!?%\w+\s+)?([a-z]\w*)((?:\.\w+)*)\s+(%\w+)(?:\|%\w+)?,\s*(.*);")
THREADS = re.compile(r"\.(?:req|max)ntid\s+(\d+)")
ROUNDS = 16  # after which a range that still grows is unbounded

INFINITY = float("inf")


class Range(NamedTuple):
    """What a register may hold: from and up to, and which bits may be set (-1: any)."""

    low: float
    high: float
    bits: int = -1

    def __or__(self, other: "Range") -> "Range":
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Range(low, high, self.bits | other.bits)

    def __add__(self, other: "Range") -> "Range":  # type: ignore[override]
        bits = self.bits | other.bits
        if self.bits & other.bits:  # they carry, but low zeros stay
            bits = -(bits & -bits)
        return Range(self.low + other.low, self.high + other.high, bits).tight()

    def tight(self) -> "Range":
        if self.bits < 0:
            return self
        return Range(max(self.low, 0), min(self.high, self.bits), self.bits)

    @property
    def constant(self) -> int | None:
        return int(self.low) if self.low == self.high else None


EVERYTHING = Range(-INFINITY, INFINITY)


@dataclass
class Block:
    """Instructions that run one after the other, and where control goes from their end."""

    lines: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    falls_through: bool = True


def blocks(ptx: str) -> dict[str, Block]:
    """The basic blocks of the only kernel in ``ptx``, in order, by label."""
    current = Block()
    found = {"": current}

    def start(name: str) -> Block:
        return found.setdefault(name, Block())

    for line in ptx.splitlines():
        code = line.split("//")[0].strip()
        if label := LABEL.match(code):
            current = start(label[1])
        elif branch := BRANCH.match(code):
            current.targets.append(branch[1])
            current.falls_through = code.startswith("@")
            current = start(f"block {len(found)}")
        elif code.startswith(("brx", "call", "@")) and re.search(r"\b(brx|call)\b", code):
            raise ValueError(f"control flow that is not followed: {code}")
        elif code:
            current.lines.append(code)
            if END.match(code):
                current.falls_through = False
                current = start(f"block {len(found)}")
    names = list(found)
    for name, after in zip(names, [*names[1:], None], strict=True):
        if found[name].falls_through and after is not None:
            found[name].targets.append(after)
    return found


class Ranges:
    """The values that registers may have, where shared memory begins at address 0."""

    def __init__(self, ptx: str) -> None:
        threads = THREADS.search(ptx)
        self.threads = int(threads[1]) if threads else 1024
        self.definitions: dict[str, list[tuple[str, list[str]]]] = {}
        for line in ptx.splitlines():
            if found := DEFINITION.match(line.split("//")[0].strip()):
                operands = [operand.strip() for operand in found[4].split(",")]
                self.definitions.setdefault(found[3], []).append((found[1] + found[2], operands))
        self.known: dict[str, Range | None] = {}

    def of(self, expression: str) -> Range:
        """The range of ``%register``, ``%register + constant`` or a constant."""
        total = Range(0, 0, 0)
        for part in expression.replace(" ", "").split("+"):
            if part in self.definitions:
                self._solve(part)
            total = total + (self._value(part) or EVERYTHING)
        return total

    def _solve(self, register: str) -> None:
        """Find the least ranges of the register and of all that it depends on."""
        needed, work = [], [register]
        while work:
            name = work.pop()
            if name in self.known:
                continue
            self.known[name] = None
            needed.append(name)
            for _, operands in self.definitions[name]:
                work += [operand for operand in operands if operand in self.definitions]
        for turn in range(4 * ROUNDS):
            changed = False
            for name in reversed(needed):
                new = self._joined(name)
                if new != self.known[name]:
                    self.known[name] = new if turn < ROUNDS else EVERYTHING
                    changed = True
            if not changed:
                return

    def _joined(self, name: str) -> Range | None:
        joined = None
        for definition in self.definitions[name]:
            result = self._result(*definition)
            if result is not None:
                joined = result if joined is None else joined | result
        return joined

    def _value(self, operand: str) -> Range | None:
        """The range of an operand, None as long as nothing is known of it."""
        if operand == "%tid.x":
            return Range(0, self.threads - 1, 2 ** (self.threads - 1).bit_length() - 1)
        if operand in self.definitions:
            return self.known.get(operand)
        if operand == "global_smem":
            return Range(0, 0, 0)
        try:
            return Range(number := int(operand, 0), number, number)
        except ValueError:
            return EVERYTHING

    def _result(self, name: str, operands: list[str]) -> Range | None:
        kind = name.split(".")[0]
        if kind == "selp":
            return self._selected(operands)
        values = [self._value(operand) for operand in operands]
        ranges = [value for value in values if value is not None]
        if len(ranges) < len(values):
            return None
        a = ranges[0]
        if kind in ("mov", "cvt", "shfl"):
            return a
        if len(ranges) < 2:
            return EVERYTHING
        b = ranges[1]
        if kind == "add":
            return a + b
        if kind == "sub":
            return Range(a.low - b.high, a.high - b.low)
        if kind in ("min", "max"):
            pick = min if kind == "min" else max
            return Range(pick(a.low, b.low), pick(a.high, b.high), a.bits | b.bits)
        if kind == "and":
            masked = Range(-INFINITY, INFINITY, a.bits & b.bits).tight()
            kept = b.constant is not None and a.bits >= 0 and a.bits & ~b.constant == 0
            return a if kept else masked
        if kind in ("or", "xor"):
            if a.bits & b.bits == 0:
                return a + b
            return Range(-INFINITY, INFINITY, a.bits | b.bits).tight()
        if kind in ("shl", "shr") and (by := b.constant) is not None and a.low >= 0:
            if kind == "shl":
                return Range(a.low * 2**by, a.high * 2**by, a.bits << by).tight()
            return Range(a.low // 2**by, a.high // 2**by, a.bits >> by).tight()
        if name.startswith("bfe.u") and a.low >= 0 and len(ranges) == 3:
            start, length = b.constant, ranges[2].constant
            if start is not None and length is not None:
                return self._field(a, start, length)
        if kind in ("mul", "mad") and ".lo" in name and a.low >= 0 and b.low >= 0:
            product = Range(a.low * b.low, a.high * b.high)
            return product if kind == "mul" else product + ranges[2]
        return EVERYTHING

    def _field(self, value: Range, start: int, length: int) -> Range:
        """The ``length`` bits of a value from bit ``start`` on."""
        mask = 2**length - 1
        low, high = value.low // 2**start, value.high // 2**start
        if high <= mask:  # nothing is cut off
            return Range(low, high, value.bits >> start & mask).tight()
        return Range(0, mask, value.bits >> start & mask).tight()

    def _selected(self, operands: list[str]) -> Range | None:
        """One of two values, each as far as the comparison that selects it allows."""
        joined = None
        for operand, taken in zip(operands[:2], (True, False), strict=True):
            value = self._value(operand)
            for name, compared in self.definitions.get(operands[2], []):
                if value is not None and name.startswith("setp.") and compared[0] == operand:
                    value = self._compared(value, name.split(".")[1], compared[1], taken)
            if value is not None and value.low <= value.high:
                joined = value if joined is None else joined | value
        return joined

    def _compared(self, value: Range, how: str, other: str, holds: bool) -> Range:
        limit = self._value(other)
        if limit is None or limit.constant is None or how not in ("gt", "ge", "lt", "le"):
            return value
        if not holds:
            how = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}[how]
        low, high = value.low, value.high
        if how in ("lt", "le"):
            high = min(high, limit.constant - (how == "lt"))
        else:
            low = max(low, limit.constant + (how == "gt"))
        bits = value.bits
        if low >= 0 and high < INFINITY:
            bits &= 2 ** int(high).bit_length() - 1
        return Range(low, high, bits)
