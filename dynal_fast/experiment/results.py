"""What a run gives: results that are the same on every repeat, and timings, kept apart."""

import csv
import dataclasses
import io
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynal_fast._version import __version__
from dynal_fast.experiment.measure import Measurement

RESULTS, TABLE, TIMINGS = "results.json", "results.csv", "timings.json"
REFERENCE = "all_data"


@dataclass(frozen=True)
class CycleResult:
    """One training and the selection after it. ``selected`` is empty after the last training.

    With an inflated pool ``labeled`` counts entries, as the long-tail paper does,
    ``distinct_labels`` the labels that the oracle gave, and ``selected`` names the originals.
    ``report`` is what the strategy said about its selection, such as a bound that it reached.
    ``by_class`` is the accuracy on each class of the test set, None where it has no such sample.
    """

    cycle: int
    labeled: int
    accuracy: float
    train_loss: float
    selected: list[int]
    distinct_labels: int | None = None
    report: dict[str, Any] = field(default_factory=dict)
    by_class: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class CycleTiming:
    """What one cycle took; ``selection`` is None after the last training."""

    cycle: int
    train_seconds: float
    observe_seconds: float
    selection: Measurement | None = None

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> "CycleTiming":
        """Build from what ``dataclasses.asdict`` gave."""
        selection = values["selection"]
        return cls(**(values | {"selection": Measurement(**selection) if selection else None}))


@dataclass(frozen=True)
class RunResult:
    """One strategy with one seed."""

    strategy: str
    seed: int
    initial: list[int]
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
    training samples of the data set, where it is known.
    """

    configuration: dict[str, Any]
    runs: list[RunResult]
    environment: dict[str, Any] = field(default_factory=lambda: environment(), compare=False)
    metric: str = "accuracy"
    samples: int | None = None

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
        """One line for each training: strategy, seed, cycle, labeled, accuracy and loss.

        Its column ``protocol`` is :attr:`protocol_note`: no line of a shrunk run passes for the
        paper's own.
        """
        text, note = io.StringIO(), self.protocol_note
        writer = csv.writer(text, lineterminator="\n")
        header = ["strategy", "seed", "cycle", "labeled", "accuracy", "train_loss", "protocol"]
        writer.writerow(header)
        for run in self.runs:
            for cycle in run.cycles:
                writer.writerow(
                    [run.strategy, run.seed, cycle.cycle, cycle.labeled]
                    + [repr(cycle.accuracy), repr(cycle.train_loss), note]
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
            A file is missing, or does not hold what :meth:`save` writes.
        """
        try:
            results = json.loads(results_file.read_text())
            timings = json.loads(timings_file.read_text()) if timings_file else _no_timings(results)
            runs = [
                RunResult(
                    run["strategy"],
                    run["seed"],
                    run["initial"],
                    [CycleResult(**cycle) for cycle in run["cycles"]],
                    [CycleTiming.from_mapping(timing) for timing in timed["cycles"]],
                )
                for run, timed in zip(results["runs"], timings["runs"], strict=True)
            ]
            metric = results.get("metric", "accuracy")
            samples = results.get("samples")
            return cls(results["configuration"], runs, timings["environment"], metric, samples)
        except OSError as error:
            raise ValueError(f"{results_file.parent} holds no finished results: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{results_file.parent}: the results cannot be read: {error!r}"
            ) from error


def _no_timings(results: dict[str, Any]) -> dict[str, Any]:
    return {"environment": {}, "runs": [{"cycles": []} for _ in results["runs"]]}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value).

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


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
