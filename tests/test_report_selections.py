"""What strategies say of their selections, such as CoreSet's bound, as the report shows it."""

import json

import numpy as np
import pytest

from dynal_fast.experiment.grid import run_grid
from dynal_fast.report.write import write_report
from tests.browser import flaws, needs_browser
from tests.cases.experiment import blobs, grid_config
from tests.report_pages import Page, sections_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "blobs"
    options = {"coreset": {"outliers": 0.02}}
    run_grid(grid_config(strategies=["random", "coreset"], options=options), folder, data=blobs())
    return folder


def test_the_bound_that_coreset_reached_is_shown(folder, tmp_path):
    page = Page(write_report([folder], tmp_path).read_text())
    assert [label for label in page.tables if label.startswith("Reports of")] == [
        "Reports of coreset"
    ]
    header, *rows = page.tables["Reports of coreset"]
    assert header == [
        "coreset: labeled before", "greedy radius", "lower bound", "optimal", "radius", "stopped",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["12", "18"]
    runs = json.loads((folder / "results.json").read_text())["runs"]
    for i, row in enumerate(rows):
        reports = [r["cycles"][i]["report"] for r in runs if r["strategy"] == "coreset"]
        for column, key in ((1, "greedy_radius"), (2, "lower_bound"), (4, "radius")):
            values = [report[key] for report in reports]
            assert row[column] == f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}"
        assert (row[3], row[5]) == ("yes", "optimal")
        assert row[4] == row[2] != row[1]


def test_a_limit_that_ended_the_search_is_named_and_counted(folder, tmp_path):
    limited = json.loads((folder / "results.json").read_text())
    first = next(run for run in limited["runs"] if run["strategy"] == "coreset")
    first["cycles"][0]["report"] |= {"optimal": False, "stopped": "time_limit"}
    (tmp_path / "results.json").write_text(json.dumps(limited))
    text = write_report([tmp_path], tmp_path / "report").read_text()
    (row,) = (row for row in Page(text).tables["Reports of coreset"] if row[0] == "12")
    assert (row[3], row[5]) == ("no (1), yes (1)", "time_limit (1), optimal (1)")
    assert "no choice of centres has a smaller radius" in sections_of(text)["selections"]


def test_without_reports_there_is_no_section(tmp_path):
    run_grid(grid_config(strategies=["random"]), tmp_path / "plain", data=blobs())
    text = write_report([tmp_path / "plain"], tmp_path).read_text()
    assert "selections" not in sections_of(text)
    assert "#selections" not in text


@needs_browser
def test_in_a_browser_nothing_is_cut_off(folder, tmp_path):
    assert flaws(write_report([folder], tmp_path / "report"), tmp_path) == []
