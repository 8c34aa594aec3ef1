"""Read results and check every value, so that reports can rely on them.

Files get edited by hand, truncated, and written by other versions. An error names the file and the
key, what it must be and what it is.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dynal_fast.experiment.config import RunConfig
from dynal_fast.experiment.runs import CycleTiming, Grid, RunResult
from dynal_fast.plain import (
    Between,
    checked,
    hints_of,
    json_table,
    shown,
    table,
)

LONGEST_NAME = 200  # characters: the name of a strategy is also that of a folder


def read_grid(results_file: Path, timings_file: Path | None) -> Grid:
    """Read what ``GridResult.save`` wrote, and the timings where there is a file of them.

    Raises
    ------
    ValueError
        A file is missing, or a value in it is not one that a run writes.
    """
    results = _table_of(results_file, results_file.parent)
    timings = _table_of(timings_file, results_file.parent) if timings_file else None
    try:
        grid = _grid(results)
    except ValueError as error:
        raise ValueError(f"{results_file} is not a result of `dynal-fast run`: {error}") from error
    if timings is None:
        return dataclasses.replace(grid, environment={})
    try:
        return _with_timings(grid, timings)
    except ValueError as error:
        raise ValueError(
            f"{timings_file} does not hold the timings of that run: {error}"
        ) from error


def check_cycles(run: RunResult, name: str, samples: int | None, compresses: bool) -> None:
    """Check that the cycles of a run follow each other.

    Raises
    ------
    ValueError
        One is missing or there twice, the labels do not grow, or a sample is not in the data set.
    """
    if not run.cycles:
        raise ValueError(f"{name}.cycles must be a list of at least one, got []")
    for i, cycle in enumerate(run.cycles):
        where = f"{name}.cycles[{i}]"
        if cycle.cycle != i:
            raise ValueError(f"{where}.cycle must be {i}, as cycles follow each other, got "
                             f"{cycle.cycle}")  # fmt: skip
        before = run.cycles[i - 1].labeled if i else 0
        if not compresses and cycle.labeled <= before:
            raise ValueError(
                f"{where}.labeled must be more than the {before} of the cycle before, got "
                f"{cycle.labeled}"
            )
        _check_ids(cycle.selected, f"{where}.selected", samples)
    _check_ids(run.initial, f"{name}.initial", samples)
    if len(set(run.initial)) < len(run.initial):
        raise ValueError(f"{name}.initial must be distinct samples, and one is there twice")


def _table_of(path: Path, folder: Path) -> dict[str, Any]:
    try:
        return json_table(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{folder} holds no finished results: {path}: {reason}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a result of `dynal-fast run`: {error}") from error


def _grid(results: Mapping[str, Any]) -> Grid:
    for key in ("configuration", "runs"):
        if key not in results:
            raise ValueError(f"{key} is missing")
    checked(results.get("format", 1), Literal[1], "format")
    configuration = partly(RunConfig, results["configuration"], "configuration")
    if not results["runs"] and isinstance(results["runs"], list):
        raise ValueError("it holds no run")
    hints = hints_of(Grid)
    known = ("runs", "metric", "samples", "test_samples", "chance", "class_names")
    values = {key: checked(results[key], hints[key], key) for key in known if key in results}
    grid = Grid(configuration, **values)
    _check_runs(grid)
    return grid


def partly(cls: Any, values: Any, name: str) -> dict[str, Any]:
    """Return a table whose keys, where a dataclass has them too, are checked against its hints.

    Keys of other versions may be there.

    Raises
    ------
    ValueError
        A value is not what the class's hint says, or none that JSON holds.
    """
    hints, found = hints_of(cls), {}
    for key, value in table(values, name).items():
        hint, inside = hints.get(key, Any), f"{name}.{key}"
        nested = dataclasses.is_dataclass(hint)
        found[key] = partly(hint, value, inside) if nested else checked(value, hint, inside)
    return found


def _check_runs(grid: Grid) -> None:
    seen: dict[tuple[str, int], int] = {}
    classes: dict[int, str] = {}
    for i, run in enumerate(grid.runs):
        name = f"runs[{i}]"
        _check_name(run.strategy, f"{name}.strategy")
        first = seen.setdefault((run.strategy, run.seed), i)
        if first != i:
            raise ValueError(
                f"{name} must be another run than runs[{first}], and both are of {run.strategy} "
                f"with seed {run.seed}"
            )
        check_cycles(run, name, grid.samples, grid.compresses)
        for cycle in run.cycles:
            if (cycle.accuracy is None) == grid.evaluated:
                expected = "a number" if grid.evaluated else "null without test samples"
                where = f"{name}.cycles[{cycle.cycle}].accuracy"
                raise ValueError(f"{where} must be {expected}, got {shown(cycle.accuracy)}")
            if cycle.by_class:
                where = f"{name}.cycles[{cycle.cycle}].by_class"
                other = next(iter(classes), len(cycle.by_class))
                if other != len(cycle.by_class):
                    raise ValueError(
                        f"{where} must be of {other} classes, as {classes[other]}, got "
                        f"{len(cycle.by_class)}"
                    )
                classes.setdefault(other, where)
    if not grid.strategies():
        raise ValueError("it holds no run")


def _check_name(name: str, where: str) -> None:
    """Check what becomes the name of a folder."""
    if not 0 < len(name) <= LONGEST_NAME or {*name} & {*"/\\\n\r"} or name.startswith("."):
        raise ValueError(f"{where} must be the name of a strategy, got {shown(name)}")


def _check_ids(ids: list[int], where: str, samples: int | None) -> None:
    if samples is not None and ids and max(ids) >= samples:
        raise ValueError(f"{where} must be of the {samples:,} samples, got {max(ids)}")


@dataclasses.dataclass(frozen=True)
class _Timed:
    """The timings of one run, as ``timings.json`` holds them."""

    strategy: str
    seed: int
    cycles: list[CycleTiming]


def _with_timings(grid: Grid, timings: Mapping[str, Any]) -> Grid:
    for key in ("environment", "runs"):
        if key not in timings:
            raise ValueError(f"{key} is missing")
    environment = checked(timings["environment"], dict[str, Any], "environment")
    checked(environment.get("threads"), Annotated[int, Between(1)] | None, "environment.threads")
    timed = checked(timings["runs"], list[_Timed], "runs")
    if [(run.strategy, run.seed) for run in timed] != [(r.strategy, r.seed) for r in grid.runs]:
        raise ValueError("runs must be those of the results, in their order")
    runs = []
    for i, (run, of_run) in enumerate(zip(grid.runs, timed, strict=True)):
        if [timing.cycle for timing in of_run.cycles] != [cycle.cycle for cycle in run.cycles]:
            raise ValueError(f"runs[{i}].cycles must be those of the results")
        runs.append(dataclasses.replace(run, timings=of_run.cycles))
    return dataclasses.replace(grid, runs=runs, environment=environment)
