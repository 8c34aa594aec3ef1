"""The parts of the run, in order: what each answers, its expected time and its limit."""

from dataclasses import dataclass
from typing import NamedTuple

TOTAL = 480  # seconds for everything


@dataclass(frozen=True)
class Part:
    """``expected``: seconds on an H100, estimated; after ``limit`` seconds it is killed.

    ``module`` has ``run(job)``. Parts that name the same ``beside`` run at the same time.
    """

    name: str
    module: str
    expected: int
    limit: int
    answers: str
    beside: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return self.beside or self.name


# Figures of Triton and of the baselines come before CUDA C++, which could take the device down.
PARTS = (
    Part("environment", "environment", 8, 30, "what the figures depend on; is there a GPU"),
    Part("build", "build", 90, 180, "do the extensions compile", beside="build"),
    Part("warm", "warm", 80, 120, "do all Triton kernels compile", beside="build"),
    Part("gate", "gate", 25, 60, "which kernels are right"),
    Part("ceilings", "figures.ceilings", 8, 25, "what the device can do"),
    Part("update", "figures.pool_stats", 18, 40, "update beside plain torch"),
    Part("head", "figures.head", 14, 40, "update_from_features in Triton beside cuBLAS + update"),
    Part(
        "farthest_first", "figures.farthest_first", 38, 70, "traversals beside the strong baseline"
    ),
    Part("kmeans_plusplus", "figures.kmeans_plusplus", 18, 40, "D² sampling beside loops"),
    Part("observation", "figures.observation", 32, 60, "observing beside bare forward passes"),
    Part("compiled", "figures.compiled", 22, 50, "update beside torch.compile"),
    Part("head_cuda", "figures.head_cuda", 10, 30, "update_from_features in CUDA C++"),
    Part("parity", "parity", 85, 120, "the kernels' tests on the device"),
    Part("races", "races", 25, 45, "the same bits in 50 repetitions"),
    Part("sanitizer", "sanitizer", 45, 90, "memory errors and races in shared memory"),
)
# Two parts of the rehearsal fail on purpose; the others must not suffer.
PLANTED_FAILURES = (
    Part(
        "hangs",
        "planted_failure",
        2,
        3,
        "a part that hangs is stopped",
        arguments=("--failure", "hang"),
    ),
    Part("dies", "planted_failure", 3, 60, "a part that is killed", arguments=("--failure", "die")),
)
NEEDS_CEILINGS = {
    "update",
    "head",
    "farthest_first",
    "kmeans_plusplus",
    "observation",
    "compiled",
    "head_cuda",
}


class Step(NamedTuple):
    """Parts that run at the same time."""

    parts: tuple[Part, ...]

    @property
    def expected(self) -> int:
        return max(part.expected for part in self.parts)


def steps(parts: tuple[Part, ...]) -> list[Step]:
    """The parts in order, those of one group together."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.group, []).append(part)
    return [Step(tuple(members)) for members in groups.values()]


def chosen(only: list[str], build: bool) -> tuple[Part, ...]:
    """The parts that the options select, with the environment and the ceilings if needed."""
    names = set(only) or {part.name for part in PARTS}
    if not build:
        names -= {"build"}
    names |= {"environment"}
    if names & NEEDS_CEILINGS:
        names |= {"ceilings"}
    return tuple(part for part in PARTS if part.name in names)


def limit(part: Part, left: float, later: float) -> float:
    """Seconds for ``part`` when ``left`` are left, of which later parts expect ``later``.

    A part that hangs may use its own limit, but not the expected time of the parts after it.
    """
    return max(0.0, min(part.limit, left, max(part.expected, left - later)))


def schedule(parts: tuple[Part, ...]) -> str:
    """The expected time and the limit of each part, as text."""
    lines = [f"{'part':<16}{'expected':>9}{'limit':>7}  answers"]
    for step in steps(parts):
        for part in step.parts:
            lines.append(f"{part.name:<16}{part.expected:>7} s{part.limit:>5} s  {part.answers}")
    total = sum(step.expected for step in steps(parts))
    return "\n".join([*lines, f"{'together':<16}{total:>7} s{TOTAL:>5} s"])
