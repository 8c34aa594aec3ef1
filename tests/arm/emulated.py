"""``dynal_fast._C`` whose functions run in ``server.cpp``, compiled for Arm, under QEMU."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
SYSROOT = "/usr/aarch64-linux-gnu"
FLAGS = ["-std=c++17", "-O2", "-pthread", "-fno-math-errno", "-fno-trapping-math"]
FETCH, CHANGED, RETURNED = range(3)
FUNCTIONS = ["dense_discrepancy", "update", "measure", "distances", "bound"]
FUNCTIONS += ["refresh", "assign", "traverse", "advance", "race"]
STRUCTS = (ROOT / "csrc" / "pool_stats" / "structs.h").read_text()
STATE_TENSORS = re.findall(r"^  DYNAL_SET\((\w+)\)$", STRUCTS, re.MULTILINE)


def files() -> list[str]:
    """The tests of the kernels."""
    names = ("dense_discrepancy", "farthest_first", "head_dropout", "pool_stats")
    return [f"tests/test_{name}.py" for name in names]


def missing() -> list[str]:
    """The programs that are needed and not installed."""
    return [program for program in (COMPILER, EMULATOR) if shutil.which(program) is None]


def build(folder: Path) -> Path:
    """Compile the server, all files side by side, and return it."""
    tensors = "-DDYNAL_STATE_TENSORS(F)=" + " ".join(f"F({name})" for name in STATE_TENSORS)
    sources = [Path(__file__).parent / "server.cpp"]
    sources += [
        file
        for file in sorted((ROOT / "csrc").glob("*/*.cpp"))
        if file.name not in ("bindings.cpp", "avx2.cpp", "avx512.cpp")
        and file.parent.name != "cuda"
    ]
    objects = [folder / f"{file.parent.name}-{file.stem}.o" for file in sources]
    compilers = [
        subprocess.Popen([COMPILER, *FLAGS, tensors, "-c", str(source), "-o", str(target)])
        for source, target in zip(sources, objects, strict=True)
    ]
    statuses = [compiler.wait() for compiler in compilers]
    if any(statuses):
        raise RuntimeError("the kernels do not compile for Arm: the compiler's message is above")
    server = folder / "server"
    subprocess.run([COMPILER, "-pthread", *map(str, objects), "-o", str(server)], check=True)
    return server


class Server:
    """The process, and its view of this one's memory."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [EMULATOR, "-L", SYSROOT, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.memory = os.open("/proc/self/mem", os.O_RDWR)

    def call(self, function: str, words: list[int]) -> tuple[bytes, ...]:
        """Call a function and return its results, 8 bytes each."""
        self._send(struct.pack("<2q", FUNCTIONS.index(function), len(words)))
        self._send(b"".join(int(word).to_bytes(8, "little", signed=word < 0) for word in words))
        while True:
            message, address, size = struct.unpack("<3q", self._receive(24))
            if message == FETCH:
                self._send(os.pread(self.memory, size, address))
            elif message == CHANGED:
                os.pwrite(self.memory, self._receive(size), address)
            else:
                content = self._receive(size)
                return tuple(content[i : i + 8] for i in range(0, size, 8))

    def _send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def _receive(self, size: int) -> bytes:
        assert self.process.stdout is not None
        content = self.process.stdout.read(size)
        if len(content) < size:
            raise RuntimeError(f"the emulated kernels ended with status {self.process.wait()}")
        return content


def extension(server: Server) -> ModuleType:
    """A module with the functions and structs of ``dynal_fast._C``; a struct is a list of words."""

    def words(*values: Any) -> list[int]:
        flat: list[int] = []
        for value in values:
            if isinstance(value, float):
                flat += struct.unpack("<q", struct.pack("<d", value))
            else:
                flat += value if isinstance(value, list) else [int(value)]
        return flat

    def structure(*fields: str) -> Any:
        return lambda **given: words(*(given[name] for name in fields))

    def points(matrix, norms, scales, right, left_exponent):  # type: ignore[no-untyped-def]
        return words(matrix, norms, scales, right or [0] * len(matrix), left_exponent)

    class Space:
        """Begins with whether it is that of outer products."""

        def __new__(cls, **given: Any) -> Any:
            return words(0, *(given[name] for name in ("columns", "cosine", "mean", "exponent")))

        @staticmethod
        def of_products(**given: Any) -> list[int]:
            return words(1, *(given[name] for name in ("left", "right", "exponent")))

    def integers(function: str) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            results = server.call(function, words(*values, *named.values()))
            return [int.from_bytes(result, "little", signed=True) for result in results]

        return call

    def unit(function: str) -> Any:
        call = integers(function)

        def one(clusters: None = None, **named: Any) -> Any:  # nothing is kept: see `packs`
            return call(**named)[0]

        return one

    def picks(function: str) -> Any:
        call = integers(function)

        def counted(**named: Any) -> tuple[int, bool]:
            count, done = call(**named)
            return count, bool(done)

        return counted

    def discrepancy(**named: Any) -> float:
        (result,) = server.call("dense_discrepancy", words(*named.values()))
        return float(struct.unpack("<d", result)[0])

    def tracker(samples, classes, pass_stamp, stamp, unknown_ids, tensors, *sizes):  # type: ignore[no-untyped-def]
        addresses = [tensors.get(name, 0) for name in STATE_TENSORS]
        return words(samples, classes, pass_stamp, stamp, unknown_ids, *addresses, *sizes)

    def head(features, weight, bias, width, dtype, by_id=False, dropout=None):  # type: ignore[no-untyped-def]
        return words(features, weight, bias, width, dtype, by_id, dropout or [0] * 4)

    def batch(rows, ids, id_bytes, dtype, logits=0, teacher=0, *others, **more):  # type: ignore[no-untyped-def]
        given = dict(zip(("head", "teacher_head", "targets"), others, strict=False)) | more
        heads = [given.get(name) or [0] * 10 for name in ("head", "teacher_head")]
        return words(rows, ids, id_bytes, dtype, logits, teacher, *heads, given.get("targets", 0))

    module = ModuleType("dynal_fast._C")
    module.supported_isas = lambda: ["baseline"]
    module.active_isa = lambda: "baseline"
    module.set_isa = lambda name: None
    module.compiler = f"{COMPILER}, emulated"
    module.dense_discrepancy = discrepancy
    module.pool_stats = SimpleNamespace(
        Tracker=tracker, Dropout=words, Head=head, Batch=batch, update=integers("update")
    )
    module.farthest_first = SimpleNamespace(
        DONE=-1,
        packs=lambda space: False,
        Space=Space,
        Matrix=structure("data", "row_bytes", "column_bytes", "dtype", "swapped", "in_place"),
        Points=points,
        Groups=structure("count", "rows", "row_ends", "centers", "center_ends"),
        measure=integers("measure"),
        traverse=picks("traverse"),
        **{name: unit(name) for name in ("distances", "bound", "refresh", "assign")},
    )
    module.kmeans_plusplus = SimpleNamespace(advance=unit("advance"), race=picks("race"))
    return module
