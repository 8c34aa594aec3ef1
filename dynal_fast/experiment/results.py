"""The files of a grid: results, the same on every repeat, and timings, in a file of their own."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynal_fast.experiment.asking.awaited import Awaited
from dynal_fast.experiment.chance import near_chance
from dynal_fast.experiment.departures import departures
from dynal_fast.experiment.reading import read_grid
from dynal_fast.experiment.runs import Grid
from dynal_fast.files import write_atomically

RESULTS, TABLE, TIMINGS = "results.json", "results.csv", "timings.json"


@dataclass(frozen=True)
class GridResult(Grid):
    """All runs of a grid, with what their files say about them.

    ``awaited`` says which labels a run waits for whose oracle is a person; None if it is finished.
    """

    awaited: Awaited | None = field(default=None, compare=False)

    @property
    def protocol_note(self) -> str:
        """The preset that was run and every departure from it; empty without a preset."""
        preset = self.configuration.get("preset")
        if not preset:
            return ""
        seeds = {"seeds": sorted({run.seed for run in self.runs})}
        changed = departures(self.configuration | seeds, self.samples)
        if not changed:
            return f"The protocol of {preset}."
        return f"Not the protocol of {preset} itself: {'; '.join(changed)}."

    @property
    def steps_note(self) -> str:
        """How many optimizer steps a training took; empty where the results do not say."""
        steps = [cycle.steps for run in self.runs for cycle in run.cycles if cycle.steps]
        if not steps:
            return ""
        few, many = min(steps), max(steps)
        return f"Optimizer steps of a training: {few:,}" + (f" to {many:,}." if many > few else ".")

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
        facts |= {"class_names": self.class_names}
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

        Its column ``protocol`` is :attr:`protocol_note`, so that no line of a shrunk run is taken
        for the paper's own.
        """
        text, note = io.StringIO(), self.protocol_note
        writer = csv.writer(text, lineterminator="\n")
        header = ["strategy", "seed", "cycle", "labeled", "accuracy", "train_loss", "steps"]
        writer.writerow([*header, "protocol"])
        for run in self.runs:
            for cycle in run.cycles:
                writer.writerow(
                    [run.strategy, run.seed, cycle.cycle, cycle.labeled]
                    + ["" if cycle.accuracy is None else repr(cycle.accuracy)]
                    + [repr(cycle.train_loss), cycle.steps, note]
                )
        return text.getvalue()

    def save(self, folder: Path) -> None:
        """Write ``timings.json``, ``results.csv`` and at last ``results.json``, each atomically."""
        write_atomically(folder / TIMINGS, self.timings_json().encode())
        write_atomically(folder / TABLE, self.results_csv().encode())
        write_atomically(folder / RESULTS, self.results_json().encode())

    def differs_from(self, folder: Path) -> bool:
        """Whether the results in ``folder`` are others, or are not there."""
        path = folder / RESULTS
        return not path.exists() or path.read_bytes() != self.results_json().encode()

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
        return cls(**vars(read_grid(results_file, timings_file)))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value).

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)


def _readable(values: object) -> str:
    return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"
