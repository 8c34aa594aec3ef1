"""Results and timings as they are read: the file and the key of whatever no run writes."""

import copy
import json
import math

import pytest

from dynal_fast.cli import main
from dynal_fast.experiment.chance import chance_note, least_meaningful, near_chance
from dynal_fast.experiment.results import GridResult, mean_and_deviation
from dynal_fast.experiment.runs import CycleResult, CycleTiming, RunResult
from dynal_fast.measured import Measurement
from dynal_fast.report.write import write_report
from tests.test_report import GRID, run

FIRST = ("runs", 0, "cycles", 0)


@pytest.fixture
def folder(tmp_path):
    GRID.save(tmp_path)
    return tmp_path


def changed(folder, name, *path, value=None, remove=False):
    values = json.loads((folder / name).read_text())
    inside = values
    for key in path[:-1]:
        inside = inside[key]
    if remove:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    (folder / name).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((*FIRST, "accuracy"), math.nan, r"accuracy must be a finite number, got nan"),
        ((*FIRST, "accuracy"), math.inf, r"accuracy must be a finite number, got inf"),
        ((*FIRST, "accuracy"), 10**400, r"accuracy must be a finite number, got 1000"),
        ((*FIRST, "accuracy"), 1.01, r"accuracy must be at most 1, got 1.01"),
        ((*FIRST, "accuracy"), -0.1, r"accuracy must be at least 0, got -0.1"),
        ((*FIRST, "accuracy"), "0.5", r"accuracy must be a number, got '0.5'"),
        ((*FIRST, "accuracy"), True, r"accuracy must be a number, got True"),
        ((*FIRST, "accuracy"), None, r"accuracy must be a number, got None"),
        ((*FIRST, "train_loss"), math.nan, r"train_loss must be a finite number"),
        ((*FIRST, "train_loss"), -1.0, r"train_loss must be at least 0"),
        ((*FIRST, "labeled"), -10, r"labeled must be at least 1, got -10"),
        ((*FIRST, "labeled"), 0, r"labeled must be at least 1, got 0"),
        ((*FIRST, "labeled"), 10.0, r"labeled must be an integer, got 10.0"),
        ((*FIRST, "labeled"), 15, r"cycles\[1\].labeled must be more than the 15 of the cycle"),
        ((*FIRST, "cycle"), 1, r"cycles\[0\].cycle must be 0, .*got 1"),
        ((*FIRST, "selected"), [-1], r"selected\[0\] must be at least 0, got -1"),
        ((*FIRST, "selected"), "all", r"selected must be a list of int, got 'all'"),
        ((*FIRST, "distinct_labels"), -3, r"distinct_labels must be at least 1"),
        ((*FIRST, "by_class"), [0.5, math.nan], r"by_class\[1\] must be a finite number"),
        ((*FIRST, "by_class"), [0.5, 2], r"by_class\[1\] must be at most 1"),
        ((*FIRST, "report"), {"radius": math.inf}, r"report.radius must be a finite number"),
        ((*FIRST, "steps"), 0, r"steps must be at least 1"),
        ((*FIRST, "stepps"), 1, r"unknown key 'runs\[0\].cycles\[0\].stepps'"),
        (("runs", 0, "strategy"), 3, r"strategy must be text, got 3"),
        (("runs", 0, "strategy"), "../x", r"strategy must be the name of a strategy, got '../x'"),
        (("runs", 0, "strategy"), "", r"strategy must be the name of a strategy, got ''"),
        (("runs", 0, "seed"), "0", r"seed must be an integer, got '0'"),
        (("runs", 0, "seed"), 1, r"runs\[1\] must be another run than runs\[0\]"),
        (("runs", 0, "initial"), [1, 1], r"initial must be distinct"),
        (("runs", 0, "initial"), [-1], r"initial\[0\] must be at least 0"),
        (("runs", 0, "cycles"), [], r"runs\[0\].cycles must be a list of at least one"),
        (("runs",), [], r"it holds no run"),
        (("runs",), {}, r"runs must be a list of tables, got"),
        (("samples",), 9, r"must be of the 9 samples, got 9"),
        (("samples",), -9, r"samples must be at least 1"),
        (("metric",), "", r"metric must be a name"),
        (("metric",), ["accuracy"], r"metric must be text"),
        (("configuration",), [], r"configuration must be a table"),
        (("configuration", "seeds"), "0", r"configuration.seeds must be a list of int"),
        (("configuration", "training"), 3, r"configuration.training must be a table"),
        (("configuration", "mine"), math.nan, r"configuration.mine must be a finite number"),
        (("chance",), 2, r"chance must be at most 1"),
        (("format",), 3, r"format must be 1, got 3"),
    ],
)
def test_what_no_run_writes_is_named_by_file_and_key(folder, capsys, path, value, message):
    changed(folder, "results.json", *path, value=value)
    with pytest.raises(ValueError, match=rf"results.json is not a result of .*: .*{message}"):
        GridResult.load(folder)
    for command in (["plot"], ["report", "-o", str(folder / "report")]):
        assert main([*command, str(folder)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.count("results.json") == 1, err
    assert not (folder / "report").exists()
    assert not list(folder.glob("learning_curves.*"))


@pytest.mark.parametrize("path", [("configuration",), ("runs",), ("runs", 0, "seed"),
                                  (*FIRST, "accuracy"), (*FIRST, "selected")])  # fmt: skip
def test_a_missing_key_is_named(folder, path):
    changed(folder, "results.json", *path, remove=True)
    with pytest.raises(ValueError, match=rf"results.json .*{path[-1]} is missing"):
        GridResult.load(folder)


@pytest.mark.parametrize("key", ["metric", "samples", "chance", "test_samples", "format"])
def test_what_earlier_versions_did_not_write_may_be_missing(folder, key):
    changed(folder, "results.json", key, remove=True)
    assert GridResult.load(folder).runs == GRID.runs


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((*FIRST, "train_seconds"), -1, r"train_seconds must be at least 0, got -1"),
        ((*FIRST, "train_seconds"), math.nan, r"train_seconds must be a finite number"),
        ((*FIRST, "selection"), "fast", r"selection must be a table, got 'fast'"),
        ((*FIRST, "selection", "peak_extra_bytes"), -1, r"peak_extra_bytes must be at least 0"),
        ((*FIRST, "selection", "seconds"), math.inf, r"selection.seconds must be a finite"),
        (("environment",), None, r"environment must be a table"),
        (("environment", "threads"), "many", r"environment.threads must be an integer"),
        (("environment", "cpu"), math.nan, r"environment.cpu must be a finite number"),
        (("runs", 0, "strategy"), "cod", r"runs must be those of the results"),
        (("runs", 0, "cycles"), [], r"runs\[0\].cycles must be those of the results"),
        (("runs",), [], r"runs must be those of the results"),
    ],
)
def test_timings_are_checked_as_results_are(folder, path, value, message):
    changed(folder, "timings.json", *path, value=value)
    with pytest.raises(ValueError, match=rf"timings.json does not hold the timings .*{message}"):
        GridResult.load(folder)


def test_classes_are_as_many_everywhere(folder):
    changed(folder, "results.json", *FIRST, "by_class", value=[0.5, 0.5])
    assert GridResult.load(folder)
    changed(folder, "results.json", "runs", 1, "cycles", 2, "by_class", value=[0.5])
    message = r"runs\[1\].cycles\[2\].by_class must be of 2 classes, as runs\[0\]"
    with pytest.raises(ValueError, match=message):
        GridResult.load(folder)


def test_a_strategy_that_reports_no_number_is_named_at_once():
    with pytest.raises(ValueError, match=r"report.radius must be a finite number, got nan"):
        CycleResult(0, 10, 0.5, 0.1, [], report={"radius": math.nan})
    with pytest.raises(ValueError, match=r"accuracy must be a finite number"):
        CycleResult(0, 10, math.nan, 0.1, [])


def test_a_time_of_zero_is_drawn(folder):
    changed(folder, "timings.json", *FIRST, "selection", "seconds", value=0)
    assert 'id="cost"' in write_report([folder], folder / "report").read_text()


def test_the_deviation_of_huge_values_is_no_error():
    assert mean_and_deviation([1e200, -1e200])[1] == pytest.approx(math.sqrt(2) * 1e200)


def ended(accuracy, **more):
    runs = [run("cod", 0, [0.1, accuracy]), run("random", 0, [0.1, 0.9])]
    return GridResult(GRID.configuration, runs, chance=0.1, test_samples=10_000, **more)


def test_a_run_near_chance_is_warned_of(tmp_path, capsys):
    assert near_chance(ended(0.189)) == ["cod, seed 0"]
    assert near_chance(ended(0.191)) == []
    assert chance_note(ended(0.5)) == ""
    grid = ended(0.12)
    grid.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["near_chance"] == ["cod, seed 0"]
    assert "1 of 2 runs ended near chance (10 %)" in chance_note(grid)
    assert main(["plot", str(tmp_path)]) == 0
    assert chance_note(grid) in capsys.readouterr().out
    assert chance_note(grid) in write_report([tmp_path], tmp_path / "report").read_text()


def test_what_is_near_chance():
    assert least_meaningful(0.1, 0) == pytest.approx(0.19)
    assert least_meaningful(0.5, 10**9) == pytest.approx(0.55, abs=1e-3)  # not twice chance
    assert least_meaningful(0.01, 10**9) == pytest.approx(0.02, abs=1e-4)  # of a hundred classes
    assert least_meaningful(0.1, 20) == pytest.approx(0.1 + 3 * (0.09 / 20) ** 0.5)
    assert near_chance(ended(0.0, metric="mean IoU")) == []
    unknown = copy.copy(ended(0.0))
    object.__setattr__(unknown, "chance", None)
    assert near_chance(unknown) == []


def test_steps_are_in_every_result(tmp_path, capsys):
    cycles = [CycleResult(i, 10 + i, 0.5, 0.1, [], steps=20 + i) for i in range(2)]
    timings = [CycleTiming(0, 0.1, 0.1, Measurement(0.1, 5, "x")), CycleTiming(1, 0.1, 0.0)]
    GridResult(GRID.configuration, [RunResult("cod", 0, [1], cycles, timings)]).save(tmp_path)
    values = json.loads((tmp_path / "results.json").read_text())
    assert [cycle["steps"] for cycle in values["runs"][0]["cycles"]] == [20, 21]
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0].split(",")[-2:] == ["steps", "protocol"]
    assert [line.split(",")[-2] for line in lines[1:]] == ["20", "21"]
    assert main(["plot", str(tmp_path)]) == 0
    assert "Optimizer steps of a training: 20 to 21." in capsys.readouterr().out
    text = write_report([tmp_path], tmp_path / "report").read_text()
    assert "<li><span>optimizer steps</span>20 to 21</li>" in text
    assert 'aria-label="Optimizer steps of a training"' in text
