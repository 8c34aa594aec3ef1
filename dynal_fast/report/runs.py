"""Read the runs of a report, check that they compare, and gather them by method."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.experiment.config import RunConfig
from dynal_fast.experiment.results import RESULTS, GridResult
from dynal_fast.experiment.runs import RunResult
from dynal_fast.experiment.tables import canonical_json, merge_tables

# Keys in which two parts of one experiment may differ: which runs, on which machine.
_OF_A_PART = {"strategies", "seeds", "reference", "analysis", "preset"}
_OF_A_PART |= {"device", "threads", "data_root", "data_cache", "embeddings", "labels", "holdout"}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """One strategy with one seed, and the folder that may hold what it recorded."""

    result: RunResult
    folder: Path

    def recordings(self) -> dict[int, Arrays]:
        """Return cycle → arrays, as :class:`AnalysisRecorder` wrote them; empty if it did not."""
        from dynal_fast.experiment.analysis import recorded

        return {
            cycle: {name: tensor.numpy() for name, tensor in tensors.items()}
            for cycle, tensors in recorded(self.folder).items()
        }


@dataclass(frozen=True)
class Experiment:
    """All runs of one configuration, maybe from several folders.

    ``folders`` holds the folder of each strategy and seed.
    """

    label: str
    configuration: dict[str, Any]
    grid: GridResult
    folders: dict[tuple[str, int], Path]


@dataclass(frozen=True)
class Method:
    """A strategy of one experiment: one curve in the pictures."""

    name: str
    strategy: str
    experiment: Experiment

    @property
    def runs(self) -> list[Run]:
        """Its runs, one for each seed."""
        folders = self.experiment.folders
        return [
            Run(result, folders[self.strategy, result.seed])
            for result in self.experiment.grid.of(self.strategy)
        ]


def load_experiments(paths: Iterable[str | Path]) -> list[Experiment]:
    """Read the results at ``paths`` and put the parts of each experiment together.

    A path is an output folder of ``dynal-fast run``, or its ``results.json`` under whatever name:
    beside ``big-results.json`` the timings are looked for in ``big-timings.json``, and the
    recordings in ``big-results/``, by strategy and seed as in the output folder.

    Raises
    ------
    ValueError
        A path is not there or holds no results; the data sets differ; a strategy with one seed has
        two different results.
    """
    parts = [_read(Path(path)) for path in paths]
    if not parts:
        raise ValueError("RUNS must name at least one run")
    for part in parts[1:]:
        for key in ("data", "scale"):
            one, other = (each.grid.configuration.get(key) for each in (parts[0], part))
            if one != other:
                raise ValueError(
                    f"the runs must be of one data set: {key} is {one!r} in {parts[0].path} and "
                    f"{other!r} in {part.path}"
                )
    experiments: dict[str, list[_Part]] = {}
    for part in parts:
        # Results of older versions lack newer keys, whose defaults are the old behaviour.
        whole = merge_tables(RunConfig().to_mapping(), part.grid.configuration)
        settings = {k: v for k, v in whole.items() if k not in _OF_A_PART}
        experiments.setdefault(canonical_json(settings), []).append(part)
    labels = [gathered[0].label for gathered in experiments.values()]
    return [
        _together(gathered, label if labels.count(label) == 1 else str(gathered[0].path))
        for label, gathered in zip(labels, experiments.values(), strict=True)
    ]


def methods(experiments: Sequence[Experiment]) -> list[Method]:
    """Return every strategy of every experiment, named apart where there are several experiments.

    The reference on all data does not count as one.
    """
    found = []
    for experiment in experiments:
        for strategy in experiment.grid.strategies():
            apart = f" ({experiment.label})" if len(experiments) > 1 else ""
            found.append(Method(f"{strategy}{apart}", strategy, experiment))
    return found


@dataclass(frozen=True)
class _Part:
    """The results at one path; ``recordings`` is the folder with a folder of each run."""

    path: Path
    label: str
    recordings: Path
    grid: GridResult


def _read(path: Path) -> _Part:
    if path.is_dir():
        results = path / RESULTS
        if not results.exists():
            raise ValueError(
                f"{path} holds no finished results: {RESULTS} is not there; if a run was "
                "interrupted, its command goes on with it"
            )
    elif path.exists():
        results = path
    else:
        raise ValueError(f"{path}: no such run")
    timings = results.with_name(results.name.replace("results", "timings"))
    has_timings = timings != results and timings.exists()
    grid = GridResult.read(results, timings if has_timings else None)
    own = results.parent if results.name == RESULTS else results.with_suffix("")
    return _Part(path, own.resolve().name, own, grid)


def _together(parts: list[_Part], label: str) -> Experiment:
    folders: dict[tuple[str, int], Path] = {}
    runs: dict[tuple[str, int], RunResult] = {}
    for part in parts:
        for run in part.grid.runs:
            key = run.strategy, run.seed
            if runs.setdefault(key, run) != run:
                raise ValueError(
                    f"{run.strategy} with seed {run.seed} has one result in "
                    f"{folders[key].parent.parent} and another in {part.recordings}"
                )
            folders.setdefault(key, part.recordings / run.strategy / f"seed-{run.seed}")
    grid = dataclasses.replace(parts[0].grid, runs=list(runs.values()))
    return Experiment(label, grid.configuration, grid, folders)
