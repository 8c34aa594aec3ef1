"""Tables and pictures of finished runs."""

import csv
import dataclasses
import json
import xml.etree.ElementTree

import pytest

from dynal_fast.experiment.results import GridResult, mean_and_deviation
from dynal_fast.experiment.runs import CycleResult, CycleTiming, RunResult
from dynal_fast.measured import Measurement
from dynal_fast.report.curves import draw_learning_curves
from dynal_fast.report.learning_curve import learning_curve
from dynal_fast.report.table import accuracy_table, cost_table, timings_of
from dynal_fast.report.write import write_report
from dynal_fast.table import as_text


def run(strategy, seed, accuracies, milliseconds=1.0, peak=2**20):
    cycles = [CycleResult(i, 10 + 5 * i, a, 0.5, [i]) for i, a in enumerate(accuracies)]
    timings = [
        CycleTiming(i, 0.25, 0.125, Measurement(milliseconds / 1000, peak, "sampled"))
        for i in range(len(accuracies) - 1)
    ]
    timings.append(CycleTiming(len(accuracies) - 1, 0.25, 0.0))
    return RunResult(strategy, seed, list(range(10)), cycles, timings)


GRID = GridResult(
    {"data": "digits", "model": "mlp"},
    [
        run("random", 0, [0.5, 0.6, 0.7]),
        run("random", 1, [0.5, 0.7, 0.7]),
        run("cod", 0, [0.5, 0.8, 0.9], 3.0, 4 * 2**20),
        run("cod", 1, [0.5, 0.8, 0.8], 5.0, 2**20),
        run("all_data", 0, [0.99]),
        run("all_data", 1, [0.97]),
    ],
)


def test_the_table_holds_mean_and_deviation_and_marks_the_best():
    lines = as_text(accuracy_table(GRID)).splitlines()
    assert lines == [
        "method          10          15           20",
        "random  50.0 ± 0.0  65.0 ± 7.1   70.0 ± 0.0",
        "cod     50.0 ± 0.0  80.0 ± 0.0*  85.0 ± 7.1*",
        "all data: 98.0 ± 1.4",
    ]


def test_a_single_seed_has_no_deviation():
    one = GridResult(GRID.configuration, [run("cod", 3, [0.5, 0.9]), run("all_data", 3, [0.99])])
    lines = as_text(accuracy_table(one)).splitlines()
    assert lines[1].split() == ["cod", "50.0", "90.0"]
    assert lines[2] == "all data: 99.0"


def test_the_cost_is_a_mean_time_and_the_highest_memory():
    lines = as_text(cost_table(timings_of(GRID))).splitlines()
    assert lines[2].split() == ["cod", "4.00", "3.00", "5.00", "4.00", "125.00", "250.00", "4"]


def test_a_curve_is_the_mean_over_seeds():
    assert learning_curve(GRID, "cod") == {
        10: (0.5, 0.0),
        15: (0.8, 0.0),
        20: (pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4)),
    }
    assert mean_and_deviation([4.0]) == (4.0, 0.0)


def test_results_survive_the_round_trip(tmp_path):
    GRID.save(tmp_path)
    loaded = GridResult.load(tmp_path)
    assert loaded == GRID
    assert [run.timings for run in loaded.runs] == [run.timings for run in GRID.runs]
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 4 * 3 + 2


SHRUNK = dataclasses.replace(
    GRID,
    configuration={
        "data": "mnist",
        "model": "lenet",
        "preset": "long-tail/mnist",
        "scale": 0.05,
        "protocol": {"initial": 500, "budget": 100},
        "training": {"epochs": 10},
    },
    samples=3000,
)
NOTE = (
    "Not the protocol of long-tail/mnist itself: scale 0.05; 3,000 training samples, 0.05 of all; "
    "repeats 2 instead of 3; initial 500 instead of 10,000; budget 100 instead of 2,000; "
    "epochs 10 instead of 20."
)


def test_a_shrunk_run_says_so_in_every_result(tmp_path):
    SHRUNK.save(tmp_path)
    assert GridResult.load(tmp_path).protocol_note == NOTE
    assert json.loads((tmp_path / "results.json").read_text())["protocol"] == NOTE
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    assert {row["protocol"] for row in rows} == {NOTE}
    svg = draw_learning_curves(SHRUNK, tmp_path)
    texts = [text for text in xml.etree.ElementTree.parse(svg).getroot().itertext() if text.strip()]
    assert NOTE in " ".join(" ".join(texts).split())
    assert NOTE in write_report([tmp_path], tmp_path / "report").read_text()
    assert GRID.protocol_note == ""


def test_times_are_kept_apart_from_results():
    replace = dataclasses.replace
    runs = [
        replace(run, timings=[replace(timing, train_seconds=9.0) for timing in run.timings])
        for run in GRID.runs
    ]
    slow = GridResult(GRID.configuration, runs)
    assert slow.results_json() == GRID.results_json()
    assert slow.results_csv() == GRID.results_csv()
    assert slow.timings_json() != GRID.timings_json()
    assert "seconds" not in GRID.results_json()
    assert json.loads(GRID.timings_json())["environment"]["torch"]


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no finished results"):
        GridResult.load(tmp_path)
    GRID.save(tmp_path)
    (tmp_path / "timings.json").write_text("{}")
    with pytest.raises(ValueError, match="timings of that run: environment is missing"):
        GridResult.load(tmp_path)


def test_the_picture_names_every_strategy(tmp_path):
    svg = draw_learning_curves(GRID, tmp_path)
    texts = list(texts_of(svg))
    for name in ("random", "cod", "all data", "labeled samples", "test accuracy (%)"):
        assert name in texts
    again = draw_learning_curves(GRID, tmp_path / "..", name="again")
    assert again.read_bytes() == svg.read_bytes()


def texts_of(svg):
    found = xml.etree.ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")
    return (element.text for element in found)


def test_pictures_can_be_drawn_of_one_strategy_and_of_many(tmp_path):
    one = GridResult(GRID.configuration, GRID.runs[:1])
    many = GridResult(GRID.configuration, [run(f"s{i}", 0, [0.5, 0.5 + i / 50]) for i in range(20)])
    single = GridResult(GRID.configuration, [run("random", 0, [0.5])])
    for i, grid in enumerate((one, many, single)):
        drawn = draw_learning_curves(grid, tmp_path, str(i))
        assert set(grid.strategies()) <= set(texts_of(drawn))
