"""The job of one part: where it runs, at which sizes, without which kernels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu import rehearsal

Lines = Iterator[dict[str, Any]]  # each has a "kind"


@dataclass(frozen=True)
class Job:
    """``small``: sizes of a rehearsal. ``warm``: everything once, nothing is timed.

    ``without``: kernels that did not pass the gate. ``plants``: faults to plant, by kernel.
    ``repeats``: of the search for races. ``share``: index and number of the shares of the work.
    ``seconds``: after which the part is killed.
    """

    output: Path
    device: str
    small: bool = False
    rehearsal: bool = False
    warm: bool = False
    ceilings: dict[str, float] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    plants: dict[str, str] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()
    share: tuple[int, ...] = (0, 1)
    repeats: int = 50
    seconds: float = 60.0
    failure: str = ""

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def is_hopper(self) -> bool:
        if not self.on_gpu:
            return False
        import torch  # not at the top: the parts that fail on purpose do not need it

        return torch.cuda.get_device_capability()[0] == 9

    @property
    def patience(self) -> float:
        """The factor by which time limits are longer here."""
        return rehearsal.PATIENCE if self.rehearsal else 1.0

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    def bound(self, num_bytes: float, flops: float = 0.0) -> dict[str, Any]:
        """The lower bound of the time, and the measured ceiling that it follows from."""
        if not self.ceilings:
            return {}
        copy, matrix = self.ceilings["copy_bytes_per_s"], self.ceilings["bf16_flops"]
        if num_bytes / copy >= flops / matrix:
            return {"bound_ms": 1e3 * num_bytes / copy, "ceiling": f"{copy / 1e12:.2f} TB/s copy"}
        return {"bound_ms": 1e3 * flops / matrix, "ceiling": f"{matrix / 1e12:.0f} TFLOP/s bf16"}
