"""What a run gives: results that are the same on every repeat, and timings, kept apart."""

import csv
import dataclasses
import io
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynal_fast._version import __version__
from dynal_fast.experiment.chance import near_chance
from dynal_fast.measured import Measurement
from dynal_fast.plain import (
    Count,
    NotNegative,
    Positive,
    Share,
    check_fields,
)

RESULTS, TABLE, TIMINGS = "results.json", "results.csv", "timings.json"
REFERENCE = "all_data"


@dataclass(frozen=True)
class CycleResult:
    """One training and the selection after it. ``selected`` is empty after the last training.

    With an inflated pool ``labeled`` counts entries, as the long-tail paper does,
    ``distinct_labels`` the labels that the oracle gave, and ``selected`` names the originals.
    ``report`` is what the strategy said about its selection, such as a bound that it reached.
    ``by_class`` is the accuracy on each class of the test set, None where it has no such sample.
    ``steps`` is how many optimizer steps the training took, None in results of earlier versions.

    Raises
    ------
    ValueError
        A value is not finite, a count or a share is none; the message names it.
    """

    cycle: Count
    labeled: Positive
    accuracy: Share
    train_loss: NotNegative
    selected: list[Count]
    distinct_labels: Positive | None = None
    report: dict[str, Any] = field(default_factory=dict)
    by_class: list[Share | None] = field(default_factory=list)
    steps: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class CycleTiming:
    """What one cycle took; ``selection`` is None after the last training."""

    cycle: Count
    train_seconds: NotNegative
    observe_seconds: NotNegative
    selection: Measurement | None = None


@dataclass(frozen=True)
class RunResult:
    """One strategy with one seed."""

    strategy: str
    seed: int
    initial: list[Count]
    cycles: list[CycleResult]
    timings: list[CycleTiming] = field(default_factory=list, compare=False)

    @property
    def labeled(self) -> list[int]:
        """The number of labeled samples at each training."""
        return [cycle.labeled for cycle in self.cycles]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy after each training, in [0, 1]."""
        return [cycle.accuracy for cycle in self.cycles]


@dataclass(frozen=True)
class GridResult:
    """All runs of a grid. ``configuration`` is that of :class:`RunConfig`.

    ``environment`` is where the timings were measured, by default here; ``metric`` says what is
    called accuracy elsewhere: for segmentation ``"mean IoU"``. ``samples`` is the number of
    training samples of the data set, ``test_samples`` that of test samples, and ``chance`` the
    accuracy of naming the test set's most frequent class always, where they are known.
    """

    configuration: dict[str, Any]
    runs: list[RunResult]
    environment: dict[str, Any] = field(default_factory=lambda: environment(), compare=False)
    metric: str = "accuracy"
    samples: Positive | None = None
    test_samples: Positive | None = None
    chance: Share | None = None

    def __post_init__(self) -> None:
        if not self.metric.strip():
            raise ValueError(f"metric must be a name, got {self.metric!r}")

    @property
    def protocol_note(self) -> str:
        """Whose protocol this is, and every size in which it departs from it; empty if nobody's."""
        from dynal_fast.experiment.departures import departures

        preset = self.configuration.get("preset")
        if not preset:
            return ""
        seeds = {"seeds": sorted({run.seed for run in self.runs})}
        changed = departures(self.configuration | seeds, self.samples)
        if not changed:
            return f"The protocol of {preset}."
        return f"Not the protocol of {preset} itself: {'; '.join(changed)}."

    def strategies(self) -> list[str]:
        """The strategies in the order they ran, without the reference."""
        return [name for name in dict.fromkeys(r.strategy for r in self.runs) if name != REFERENCE]

    @property
    def steps_note(self) -> str:
        """How many optimizer steps a training took; empty where the results do not say."""
        steps = [cycle.steps for run in self.runs for cycle in run.cycles if cycle.steps]
        if not steps:
            return ""
        few, many = min(steps), max(steps)
        return f"Optimizer steps of a training: {few:,}" + (f" to {many:,}." if many > few else ".")

    @property
    def segments(self) -> bool:
        """Whether the labels are maps of pixels."""
        return self.metric == "mean IoU"

    def of(self, strategy: str) -> list[RunResult]:
        """The runs of one strategy."""
        return [run for run in self.runs if run.strategy == strategy]

    def reference_accuracies(self) -> list[float]:
        """The test accuracies of training on all labels, one for each seed; maybe none.

        The first training of a compression of the whole training set is such a one.
        """
        whole = [run.accuracies[-1] for run in self.of(REFERENCE)]
        if whole or not self.compresses:
            return whole
        firsts = {run.seed: run for run in self.runs if len(run.initial) == self.samples}
        return [firsts[seed].accuracies[0] for seed in sorted(firsts)]

    @property
    def compresses(self) -> bool:
        """Whether the runs leave labeled samples out instead of labeling more."""
        return bool(self.configuration.get("protocol", {}).get("compress"))

    def results_json(self) -> str:
        """The results as JSON: the same text on every repeat, since it holds no time."""
        runs = [
            {
                "strategy": run.strategy,
                "seed": run.seed,
                "initial": run.initial,
                "cycles": [dataclasses.asdict(cycle) for cycle in run.cycles],
            }
            for run in self.runs
        ]
        facts = {"format": 1, "configuration": self.configuration, "metric": self.metric}
        facts |= {"samples": self.samples, "protocol": self.protocol_note}
        facts |= {"test_samples": self.test_samples, "chance": self.chance}
        facts |= {"near_chance": near_chance(self)}
        return _readable(facts | {"runs": runs})

    def timings_json(self) -> str:
        """Times, memory and the machine they were measured on, as JSON."""
        runs = [
            {
                "strategy": run.strategy,
                "seed": run.seed,
                "cycles": [dataclasses.asdict(timing) for timing in run.timings],
            }
            for run in self.runs
        ]
        return _readable({"format": 1, "environment": self.environment, "runs": runs})

    def results_csv(self) -> str:
        """One line for each training: strategy, seed, cycle, labeled, accuracy, loss and steps.

        Its column ``protocol`` is :attr:`protocol_note`: no line of a shrunk run passes for the
        paper's own.
        """
        text, note = io.StringIO(), self.protocol_note
        writer = csv.writer(text, lineterminator="\n")
        header = ["strategy", "seed", "cycle", "labeled", "accuracy", "train_loss", "steps"]
        writer.writerow([*header, "protocol"])
        for run in self.runs:
            for cycle in run.cycles:
                writer.writerow(
                    [run.strategy, run.seed, cycle.cycle, cycle.labeled]
                    + [repr(cycle.accuracy), repr(cycle.train_loss), cycle.steps, note]
                )
        return text.getvalue()

    def save(self, folder: Path) -> None:
        """Write ``results.json``, ``results.csv`` and ``timings.json``, each atomically."""
        from dynal_fast.files import write_atomically

        write_atomically(folder / RESULTS, self.results_json().encode())
        write_atomically(folder / TABLE, self.results_csv().encode())
        write_atomically(folder / TIMINGS, self.timings_json().encode())

    @classmethod
    def load(cls, folder: str | Path) -> "GridResult":
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            ``folder`` holds no finished results.
        """
        folder = Path(folder)
        return cls.read(folder / RESULTS, folder / TIMINGS)

    @classmethod
    def read(cls, results_file: Path, timings_file: Path | None) -> "GridResult":
        """Read results, and their timings where there is a file of them.

        Raises
        ------
        ValueError
            A file is missing, or a value in it is not one that a run writes; the message names
            the file and the key.
        """
        from dynal_fast.experiment.reading import read_grid

        return read_grid(results_file, timings_file)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value).

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)


def environment() -> dict[str, Any]:
    """Return the versions and the machine that timings belong to."""
    import torch

    return {
        "dynal_fast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _readable(values: object) -> str:
    return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"
