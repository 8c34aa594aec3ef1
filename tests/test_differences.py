"""Differences from a baseline: paired by seed, with the intervals and p that scipy has."""

import csv
import dataclasses

import numpy as np
import pytest
from scipy import stats

from dynal_fast.cli import main
from dynal_fast.experiment.results import GridResult
from dynal_fast.experiment.runs import CycleResult, CycleTiming, RunResult
from dynal_fast.report.differences import (
    CURVE,
    Difference,
    differences_csv,
    differences_table,
    of_grid,
    paired,
    t_quantile,
    t_within,
    write_differences,
)
from dynal_fast.report.write import write_report
from tests.report_pages import sections_of


def run(strategy, seed, accuracies, initial=(1, 2)):
    cycles = [CycleResult(i, 2 + i, a, 0.1, []) for i, a in enumerate(accuracies)]
    timings = [CycleTiming(cycle.cycle, 1.0, 0.5) for cycle in cycles]
    return RunResult(strategy, seed, list(initial), cycles, timings)


def grid(seeds=3, **more):
    draw = np.random.default_rng(0)
    first = draw.random(seeds)
    runs = [
        run(name, seed, [first[seed], *draw.random(2)], (seed, 9))
        for name in ("random", "cod", "margin")
        for seed in range(seeds)
    ]
    configuration = {"data": "blobs", "model": "mlp"} | more
    return GridResult(configuration, runs, {}, samples=100, test_samples=10)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 29, 30])
def test_students_t_is_scipys(freedom):
    for t in (0.0, 0.1, 1.0, 2.5, 40.0):
        expected = stats.t.cdf(t, freedom) - stats.t.cdf(-t, freedom)
        assert t_within(t, freedom) == pytest.approx(expected, abs=1e-12)
    expected = stats.t.ppf(0.975, freedom)
    assert t_quantile(0.95, freedom) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_interval_and_p_are_those_of_a_paired_t_test(seeds):
    some = grid(seeds)
    a, b = (
        np.array([r.accuracies for r in some.of(name)], np.float64) for name in ("cod", "random")
    )
    found = of_grid(some)["cod"]
    assert sorted(found) == [CURVE, 3, 4]  # the training on the initial set is shared
    for count, first, second in (
        (3, a[:, 1], b[:, 1]), (4, a[:, 2], b[:, 2]), (CURVE, a[:, 1:].mean(1), b[:, 1:].mean(1)),
    ):  # fmt: skip
        test = stats.ttest_rel(100 * first, 100 * second)
        interval = test.confidence_interval(0.95)
        assert found[count].mean == pytest.approx(100 * (first - second).mean())
        assert found[count].interval == pytest.approx((interval.low, interval.high))
        assert found[count].p == pytest.approx(test.pvalue)
        assert found[count].better == (first > second).sum()


@pytest.mark.parametrize("values", [(1.5,), (0.0, 0.0, 0.0), (2.0, 2.0)])
def test_without_a_spread_of_seeds_there_is_no_interval(values):
    alike = Difference(values)
    assert (alike.interval, alike.p) == (None, None)
    assert alike.better == sum(value > 0 for value in values)


def test_a_small_p_is_never_written_as_zero():
    far = Difference((2.0, 2.0 + 1e-9, 2.0))
    assert 0 <= far.p < 0.001
    table = differences_table({"cod": {20: far, CURVE: far}}, "accuracy")
    assert table.rows[0][3] == "< 0.001"


def test_differences_of_an_earlier_report_do_not_stay(tmp_path):
    assert write_differences(of_grid(grid()), tmp_path).is_file()
    assert write_differences({}, tmp_path) is None
    assert not any(tmp_path.iterdir())


def test_runs_that_began_otherwise_are_not_compared():
    base = [run("random", seed, [0.5, 0.6, 0.7]) for seed in (0, 1)]
    runs = [
        run("cod", 0, [0.5, 0.8]),  # stopped early
        run("cod", 1, [0.5, 0.9, 0.9], initial=(1, 3)),
        run("cod", 2, [0.5, 0.9, 0.9]),
    ]
    found = paired(runs, base)
    assert found.keys() == {3, CURVE}
    assert found[3].values == found[CURVE].values == pytest.approx((20.0,))


def test_without_baseline_or_test_set_there_are_none():
    some = grid()
    assert of_grid(some, "entropy") == {}
    bare = [dataclasses.replace(c, accuracy=None) for c in some.runs[0].cycles]
    runs = [dataclasses.replace(some.runs[0], cycles=bare)]
    assert of_grid(dataclasses.replace(some, runs=runs, test_samples=0)) == {}


def test_the_table_and_the_file_have_the_same_numbers():
    every = of_grid(grid(5))
    table = differences_table(every, "accuracy")
    assert [row[0] for row in table.rows] == ["cod", "margin"]
    assert table.header == ["method", "seeds better", "mean over the curve", "p", "3", "4"]
    assert "Student's t" in table.note
    lines = [*csv.DictReader(differences_csv(every).splitlines())]
    assert len(lines) == 2 * 3
    for line in lines:
        count = CURVE if line["labeled"] == "curve" else int(line["labeled"])
        of_line = every[line["method"]][count]
        assert tuple(map(float, line["differences"].split())) == of_line.values
        assert (float(line["low"]), float(line["high"])) == of_line.interval
        assert (line["seeds"], line["baseline"]) == ("5", "random")


def test_the_report_has_a_section_and_a_file(tmp_path):
    for name in ("main", "continued"):
        (tmp_path / name).mkdir()
    grid().save(tmp_path / "main")
    continued = grid(protocol={"retrain": "continue"})
    only_cod = [r for r in continued.runs if r.strategy == "cod"]
    dataclasses.replace(continued, runs=only_cod).save(tmp_path / "continued")
    page = write_report([tmp_path / "main", tmp_path / "continued"], tmp_path / "report")
    section = sections_of(page.read_text())["differences"]
    for name in ("cod (main)", "margin (main)", "cod (continued)"):  # the baseline of the other run
        assert f">{name}</th>" in section
    assert "Student&#x27;s t" in section
    assert "random</text>" in section
    lines = (tmp_path / "report" / "differences.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 3
    assert {line.split(",")[1] for line in lines if line.startswith("cod (continued)")} == {
        "random (main)"
    }
    said = "cod (continued) has no random of its own: the difference is from random (main)."
    assert said in section
    page = write_report([tmp_path / "main"], tmp_path / "against", baseline="margin")
    assert ">random</th>" in sections_of(page.read_text())["differences"]
    page = write_report([tmp_path / "continued"], tmp_path / "none")
    assert "differences" not in sections_of(page.read_text())
    assert not (tmp_path / "none" / "differences.csv").exists()


def test_plot_prints_them(tmp_path, capsys):
    grid().save(tmp_path)
    assert main(["plot", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Test accuracy minus that of random, in percentage points" in out
    assert "seeds better" in out
    assert (tmp_path / "differences.csv").exists()
