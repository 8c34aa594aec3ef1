"""What is kept of a finished experiment under ``benchmarks/results/experiments``: figures, no ids.

``python -m benchmarks.pages.experiment_record RUN NAME`` in the source tree makes
``benchmarks/results/experiments/NAME.json`` of an output folder of ``dynal-fast run``.
"""

import argparse
import dataclasses
import json
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynal_fast.bench.record import commit, read_record, write_record
from dynal_fast.experiment.analysis import recorded
from dynal_fast.experiment.config import RunConfig
from dynal_fast.experiment.grid import load_configured
from dynal_fast.experiment.oracle import Oracle
from dynal_fast.experiment.results import GridResult
from dynal_fast.experiment.runs import RunResult
from dynal_fast.report.analyses import informativeness, loss_by_rank
from dynal_fast.report.recorded import scores_of

SCHEMA = "dynal-fast-experiment-1"
FOLDER = Path("benchmarks") / "results" / "experiments"
PORTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass
class RunRecord:
    """One strategy with one seed.

    ``accuracies`` after each training with ``labeled`` samples. Of each selection:
    ``picked_classes``, the effective number of classes among the picks. Where the run was recorded
    with ``--analysis``: ``picked_correct``, the share of the picks whose label the model already
    predicts; ``informativeness``, its accuracy on the portions ``PORTIONS`` of the pool with the
    highest scores at the first selection; ``relative_loss``, the mean real loss of the 5% of
    the pool with the highest scores over that of the whole pool; and ``picked_by_chance``, the
    share of the picks that were drawn among more samples of the same score.
    """

    strategy: str
    seed: int
    labeled: list[int]
    accuracies: list[float]
    picked_classes: list[float]
    picked_correct: list[float]
    informativeness: list[float]
    relative_loss: list[float]
    picked_by_chance: list[float] = field(default_factory=list)


@dataclass
class ExperimentRecord:
    """One output folder of ``dynal-fast run``: what ran, where, and what came out.

    ``missing`` names the runs of the command that are not here, as ``strategy, seed``.
    """

    name: str
    command: str
    config_file: str
    commit: str
    environment: dict[str, Any]
    runs: list[RunRecord]
    missing: list[str] = field(default_factory=list)
    schema: str = SCHEMA

    def of(self, strategy: str) -> dict[int, RunRecord]:
        """Seed → run, of one strategy."""
        return {run.seed: run for run in self.runs if run.strategy == strategy}

    def save(self, path: Path) -> None:
        """Write JSON atomically."""
        text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)
        write_record(path, _compact(text))

    @classmethod
    def load(cls, path: Path) -> "ExperimentRecord":
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            The file is not a record of this schema.
        """

        def from_values(values: dict[str, Any]) -> ExperimentRecord:
            values["runs"] = [RunRecord(**run) for run in values["runs"]]
            return cls(**values)

        return read_record(path, SCHEMA, "an experiment record", from_values)


def _compact(text: str) -> str:
    """Put lists of numbers on one line each.

    >>> _compact('[\\n 1,\\n 2.5\\n]')
    '[1, 2.5]'
    """
    import re

    def joined(match: re.Match) -> str:
        return f"[{', '.join(part.strip() for part in match[1].split(','))}]"

    return re.sub(r"\[([\s\d.,e+-]+)\]", joined, text)


def make_record(folder: Path, name: str, oracle: Oracle) -> ExperimentRecord:
    """Return the record of a finished grid; ``oracle`` holds the labels of its data set.

    Raises
    ------
    ValueError
        ``folder`` holds no finished results.
    """
    grid = GridResult.load(folder)
    runs = [
        _run_record(run, folder / run.strategy / f"seed-{run.seed}", oracle) for run in grid.runs
    ]
    command, config_file = command_of(grid.configuration, name)
    here = {(run.strategy, run.seed) for run in runs}
    missing = [
        f"{strategy}, {seed}"
        for strategy in grid.configuration["strategies"]
        for seed in grid.configuration["seeds"]
        if (strategy, seed) not in here
    ]
    return ExperimentRecord(name, command, config_file, commit(), grid.environment, runs, missing)


def _run_record(run: RunResult, folder: Path, oracle: Oracle) -> RunRecord:
    correct, ranked, relative, by_chance = [], [], [], []
    for cycle, tensors in recorded(folder).items():
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        picked = np.isin(arrays["ids"], arrays["picks"])
        correct.append(round(float(arrays["correct"][picked].mean()), 4))
        scores = scores_of(run.strategy, cycle, arrays)
        if scores is None:
            continue
        scored = np.isfinite(scores)
        right, loss, picked, scores = (
            values[scored] for values in (arrays["correct"], arrays["loss"], picked, scores)
        )
        if cycle == 0:
            ranked = informativeness(right, scores, np.array(PORTIONS)).tolist()
        losses = loss_by_rank(loss, scores, bins=min(20, len(loss)))
        relative.append(round(losses[0] / float(loss.mean()), 4))
        by_chance.append(round(share_by_chance(scores, picked), 4))
    return RunRecord(
        run.strategy,
        run.seed,
        run.labeled,
        run.accuracies,
        [
            round(effective_classes(oracle.label(torch.tensor(cycle.selected))), 2)
            for cycle in run.cycles
            if cycle.selected
        ],
        correct,
        [round(value, 4) for value in ranked],
        relative,
        by_chance,
    )


def share_by_chance(scores: np.ndarray, picked: np.ndarray) -> float:
    """Return which share of the picks was drawn among more samples of the same, lowest score.

    Parameters
    ----------
    scores, picked
        float and bool ``(pool,)``.

    >>> share_by_chance(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, False, True, False]))
    0.5
    >>> share_by_chance(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, True, False]))
    0.0
    """
    lowest = scores == scores[picked].min()
    drawn = lowest & picked
    return float(drawn.sum() / picked.sum()) if lowest.sum() > drawn.sum() else 0.0


def effective_classes(labels: Tensor) -> float:
    """Return the exponential of the entropy of the labels: of k equally frequent classes, k.

    >>> effective_classes(torch.tensor([0, 0, 7, 7]))
    2.0
    """
    shares = labels.bincount().double() / len(labels)
    return math.exp(float(-torch.special.xlogy(shares, shares).sum()))


def command_of(configuration: dict[str, Any], name: str) -> tuple[str, str]:
    """Return the command that runs a configuration, and the config file that it names, or ''.

    Paths of the machine are left out: ``DIR`` stands for the folder of the data set, and of a file
    its name is kept.

    >>> command_of(RunConfig(seeds=[0]).to_mapping(), "a")
    ('dynal-fast run -o runs/a --seeds 0', '')
    >>> texts = RunConfig(data="texts", data_root="/a/b.csv", embeddings="/a/b.npy", model="mlp")
    >>> command_of(texts.to_mapping(), "b")[0]
    'dynal-fast run -o runs/b --data texts --data-root b.csv --embeddings b.npy --model mlp'
    """
    words = ["dynal-fast", "run", "-o", f"runs/{name}"]
    begun: dict[str, Any] = {}
    if preset := configuration.get("preset"):
        words += ["--preset", preset]
        files = {"data_root": "DIR", "embeddings": "FILE"}  # which texts cannot do without
        begun = {"preset": preset} | (files if configuration["data"] == "texts" else {})
    default = RunConfig.from_mapping(begun).to_mapping()
    schedules = {
        score: schedule
        for score, schedule in configuration["schedules"].items()
        if schedule != default["schedules"].get(score)
    }
    config_file = ""
    if schedules:
        words.insert(2, f"{name}.toml")
        config_file = "[schedules]\n" + "\n".join(
            f"{score} = {{ {', '.join(f'{key} = {value}' for key, value in schedule.items())} }}"
            for score, schedule in schedules.items()
        )
    tables = {"": configuration, "protocol": configuration["protocol"]}
    for table, values in (tables | {"training": configuration["training"]}).items():
        defaults = default[table] if table else default
        for key, value in values.items():
            if isinstance(value, dict) or value == defaults.get(key):
                continue
            option = key.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{'' if value else 'no-'}{option}")
            elif isinstance(value, list):
                words += [f"--{option}", *map(str, value)]
            elif key in ("data_root", "data_cache", "embeddings"):
                path = Path(value)
                words += [f"--{option}", path.name if path.suffix else "DIR"]
            else:
                words += [f"--{option}", str(value)]
    for strategy, options in configuration.get("options", {}).items():
        for name, value in options.items():
            words += ["--option", f"{strategy}.{name}={value}"]
    return shlex.join(words), config_file


def main() -> None:
    """Make the record of an output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN", help="output folder of dynal-fast run")
    parser.add_argument("name", metavar="NAME", help="what the record is called")
    parser.add_argument("--commit", help="the code that ran, if it is not the code that runs now")
    arguments = parser.parse_args()
    config = GridResult.load(arguments.folder).configuration
    oracle = load_configured(RunConfig.from_mapping(config)).oracle
    record = make_record(arguments.folder, arguments.name, oracle)
    if arguments.commit:
        record.commit = arguments.commit
    record.save(FOLDER / f"{arguments.name}.json")


if __name__ == "__main__":
    main()
