"""The JSON record of a benchmark run: every figure, and what it takes to repeat it."""

import dataclasses
import datetime
import importlib.metadata
import json
import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from dynal_fast._version import __version__
from dynal_fast.bench.cases import Case, from_record
from dynal_fast.files import write_atomically

T = TypeVar("T")

SCHEMA = "dynal-fast-bench-1"
PACKAGES = (
    "torch",
    "numpy",
    "triton",
    "scikit-learn",
    "scikit-activeml",
    "small-text",
    "skmatter",
    "anomalib",
    "fpsample",
    "gudhi",
)


@dataclass
class Measurement:
    """One method on one case; ``unavailable`` says why there are no figures.

    ``seconds`` of each repetition; ``pass_seconds`` of each pass but the first, of all repetitions,
    where the method streams; ``memory_bytes``: the peak beyond the inputs; ``extrapolated`` names
    the smaller run from which ``seconds`` and memory were extrapolated; ``exactness``: see
    ``exactness.py``; ``defect``: what is wrong with the method's results; ``others``: the largest
    share of the machine's CPU time that other processes took during a repetition; ``note``: what
    the method's name leaves out.
    """

    case: dict[str, Any]
    method: str
    seconds: list[float] = field(default_factory=list)
    memory_bytes: float | None = None
    memory_method: str = ""
    extrapolated: str = ""
    exactness: dict[str, Any] = field(default_factory=dict)
    unavailable: str = ""
    defect: str = ""
    others: float = 0.0
    note: str = ""
    pass_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """The median seconds, if there are any."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def median_pass(self) -> float | None:
        """The median seconds of a pass, if there are any."""
        return statistics.median(self.pass_seconds) if self.pass_seconds else None

    @property
    def of(self) -> Case:
        """The case."""
        return from_record(self.case)


@dataclass
class Growth:
    """How the time of ours grows in one variable: ``seconds[i]`` at ``values[i]``.

    The fit is ``coefficient`` · value^``exponent``; ``unavailable`` says which points are missing.
    """

    operation: str
    variable: str
    fixed: str
    values: list[int]
    seconds: list[float]
    exponent: float | None
    coefficient: float | None = None
    unavailable: str = ""


@dataclass
class Split:
    """Seconds of the parts of one way, ``method``, of doing ``case`` end to end.

    They are medians; ``spread`` has the least and the most of each. ``unavailable`` says why there
    are no figures.
    """

    case: str
    method: str
    parts: dict[str, float] = field(default_factory=dict)
    memory_bytes: float | None = None
    unavailable: str = ""
    spread: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Record:
    """One run of the benchmark on one device."""

    device: str
    kind: str  # "cpu" or "cuda"
    date: str
    command: str
    threads: int
    commit: str
    versions: dict[str, str]
    schema: str = SCHEMA
    measurements: list[Measurement] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)

    def find(self, case: Case, method: str) -> Measurement | None:
        """The measurement of a method on a case, if there is one."""
        return next((m for m in self.measurements if m.of == case and m.method == method), None)

    def cases(self) -> list[Case]:
        """The cases measured, in order."""
        return list(dict.fromkeys(measurement.of for measurement in self.measurements))

    def continues(self, other: "Record") -> bool:
        """Whether both are of the same committed code on the same machine on the same day."""
        names = ("device", "date", "threads", "commit", "versions")
        return not self.commit.endswith("-dirty") and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    def add(self, measurement: Measurement) -> None:
        """Add a measurement, in the place of an earlier one of the same method on the same case.

        A measurement with figures is never replaced by one without.
        """
        for i, old in enumerate(self.measurements):
            if old.case == measurement.case and old.method == measurement.method:
                if measurement.seconds or not old.seconds:
                    self.measurements[i] = measurement
                return
        self.measurements.append(measurement)

    def save(self, path: Path) -> None:
        """Write JSON atomically."""
        values = dataclasses.asdict(self)
        write_record(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            The file is not a record of this schema.
        """

        def from_values(values: dict[str, Any]) -> Record:
            values["measurements"] = [Measurement(**entry) for entry in values["measurements"]]
            values["growth"] = [Growth(**entry) for entry in values["growth"]]
            values["splits"] = [Split(**entry) for entry in values["splits"]]
            return cls(**values)

        return read_record(path, SCHEMA, "a benchmark record", from_values)


def write_record(path: Path, text: str) -> None:
    """Write a record's JSON atomically; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{text}\n".encode())


def read_record(path: Path, schema: str, kind: str, from_values: Callable[[dict], T]) -> T:
    """Return what ``from_values`` makes of a file of JSON.

    Raises
    ------
    ValueError
        The file is not ``kind``: another schema, or ``from_values`` could not read it.
    """
    try:
        values = json.loads(path.read_text())
        if values["schema"] != schema:
            raise ValueError(f"schema must be {schema}, got {values['schema']}")
        return from_values(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not {kind}: {error}") from error


def new_record(command: str, threads: int, device: str) -> Record:
    """An empty record of this machine, now."""
    return Record(
        device=device_name(device),
        kind=device.partition(":")[0],
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        command=command,
        threads=threads,
        commit=commit(),
        versions=versions(),
    )


def device_name(device: str) -> str:
    """The processor's or the GPU's model; no host name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    from dynal_fast.info import info

    facts = info()
    isa = facts.get("instruction set", "").split(" ")[0]
    return f"{facts['cpu']}{f', {isa}' if isa else ''}"


def versions() -> dict[str, str]:
    """Versions of this package and of everything that is compared with."""
    found = {"dynal_fast": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the source tree, marked if it has changes; empty for an installed package."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


def file_name(record: Record) -> str:
    """``<device>-<date>.json``, in letters that every file system takes.

    >>> file_name(Record("NVIDIA H200", "cuda", "2026-01-02", "", 2, "", {}))
    'nvidia-h200-2026-01-02.json'
    """
    device = re.sub(r"[^a-z0-9]+", "-", record.device.lower()).strip("-")
    return f"{device}-{record.date}.json"
