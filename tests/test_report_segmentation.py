"""The report of a segmentation run: mean IoU by its name, and why nothing else is drawn."""

import re
import shlex

import numpy as np
import pytest

from dynal_fast.cli import build_parser
from dynal_fast.experiment import RunConfig, run_grid
from dynal_fast.experiment.results import GridResult
from dynal_fast.report.write import write_report
from tests.browser import flaws, needs_browser
from tests.cases.street_scenes import HEIGHT, WIDTH, write_streets
from tests.report_pages import Page, sections_of

pytestmark = pytest.mark.usefixtures("one_thread")

RECORDED = ("informativeness", "loss-by-rank", "highest-losses", "scores", "trajectories")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = RunConfig.from_mapping(
        {
            "data": "cityscapes",
            "data_root": str(write_streets(folder, train=7, val=1)),
            "image_size": [HEIGHT, WIDTH],
            "model": "drn-d-22",
            "strategies": ["random", "cod"],
            "seeds": [0, 1],
            "protocol": {"initial": 3, "budget": 2, "cycles": 1},
            "training": {"epochs": 1, "batch_size": 4, "learning_rate": 0.003},
        }
    )
    run_grid(config, folder / "streets")
    return folder / "streets"


@pytest.fixture(scope="module")
def text(folder, tmp_path_factory):
    return write_report([folder], tmp_path_factory.mktemp("report")).read_text()


def test_the_mean_iou_is_that_of_the_results(folder, text):
    page, grid = Page(text), GridResult.load(folder)
    for strategy in ("random", "cod"):
        values = 100 * np.array([run.accuracies for run in grid.of(strategy)])
        assert values.shape == (2, 2)
        for run, seed in zip(values, ("0", "1"), strict=True):
            shown = page.row("Mean IoU of every seed", strategy, seed)
            assert shown == [f"{value:.2f}" for value in run]
        mean, std = values.mean(0), values.std(0, ddof=1)
        cells = page.row("Test mean IoU (%)", strategy)
        assert cells == [f"{m:.1f} ± {d:.1f}" for m, d in zip(mean, std, strict=True)]
        whole = 100 * np.mean(grid.reference_accuracies())
        relative = page.row("Test mean IoU relative to all data (%)", strategy)
        assert [cell.split(" ±")[0] for cell in relative] == [
            f"{100 * m / whole:.1f}" for m in mean
        ]
    assert [row[-1] for row in page.tables["Mean IoU on all data"][1:]] == [
        f"{100 * value:.2f}" for value in grid.reference_accuracies()
    ]
    assert page.tables["Mean IoU of every seed"][0] == ["test mean IoU (%)", "seed", "3", "5"]
    timings = [t for run in grid.of("cod") for t in run.timings if t.selection]
    mean = 1000 * np.mean([t.selection.seconds for t in timings])
    assert page.row("Time and peak extra memory per selection", "cod")[0] == f"{mean:,.2f}"


def test_nothing_of_it_is_called_accuracy(text):
    visible = re.sub(r"<style>.*?</style>|<pre>.*?</pre>", "", text, flags=re.DOTALL)
    for identifier in RECORDED:  # whose texts say what is drawn of other runs
        visible = visible.replace(sections_of(text)[identifier], "")
    assert "accuracy" not in re.sub(r'(id="|href="#)accuracy"', "", visible).lower()
    assert "<h2>Mean IoU</h2>" in visible
    assert '<a href="#accuracy">Mean IoU</a>' in visible
    assert "<span>mean IoU on all data</span>" in visible


def test_no_command_is_advised_that_would_be_refused(text):
    sections = sections_of(text)
    for identifier in RECORDED:
        assert "needs one label for each sample" in sections[identifier]
        assert 'role="img"' not in sections[identifier]
    commands = re.findall(r"<code>(dynal-fast .*?)</code>", text)
    assert commands
    for command in commands:
        arguments = build_parser().parse_args(shlex.split(command)[1:])
        assert not vars(arguments).get(".analysis")


@needs_browser
def test_in_a_browser_nothing_is_cut_off(folder, tmp_path):
    assert flaws(write_report([folder], tmp_path / "report"), tmp_path) == []
