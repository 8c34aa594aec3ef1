"""The page as its reader sees it: seven methods, five seeds, long names, the papers' own sizes."""

import re
from xml.etree import ElementTree

import pytest

from dynal_fast.charts.text import text_width
from dynal_fast.data import load
from dynal_fast.experiment.analysis import recorded
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.grid import run_grid
from dynal_fast.experiment.results import GridResult
from dynal_fast.experiment.runs import CycleResult, CycleTiming, RunResult
from dynal_fast.measured import Measurement
from dynal_fast.report.of_rankings import FIRST_DISCREPANCY
from dynal_fast.report.write import write_report
from tests.browser import flaws, needs_browser
from tests.cases.experiment import blobs, grid_config
from tests.report_pages import sections_of

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = ["random", "farthest_first", "margin", "label_dispersion", "entropy", "coreset"]
METHODS += ["prediction_stability+farthest_first"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNTS = range(2000, 24000, 2000)


def run(method, seed):
    cycles, timings = [], []
    for i, count in enumerate(COUNTS):
        level = 0.4 + 0.03 * i + 0.005 * METHODS.index(method) * (i > 0) + 0.004 * (seed - 2)
        classes = [level + 0.01 * label - 0.045 for label in range(10)]
        cycles.append(CycleResult(i, count, level, 0.5, [i], by_class=classes))
        taken = Measurement(0.001 * (seed + 1), 2**20, "sampled") if i < len(COUNTS) - 1 else None
        timings.append(CycleTiming(i, 0.25, 0.125, taken))
    return RunResult(method, seed, list(range(10)), cycles, timings)


@pytest.fixture(scope="module")
def grid():
    runs = [run(method, seed) for method in METHODS for seed in range(5)]
    configuration = {"data": "cifar10", "model": "resnet18"}
    return GridResult(configuration, runs, samples=50_000, class_names=CLASSES)


@pytest.fixture(scope="module")
def page(grid, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "long-tail-cifar10-inflated-from-scratch"
    folder.mkdir()
    grid.save(folder)
    return write_report([folder], folder / "report")


def pictures(text):
    found = map(ElementTree.fromstring, re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    return [picture for picture in found if picture.get("role") == "img"]


def test_no_word_is_cut_in_any_picture(page):
    found = pictures(page.read_text())
    assert len(found) == 2 + 2 + len(METHODS) + 4  # curves, differences, classes, costs
    for picture in found:
        width, height = map(float, picture.get("viewBox").split()[2:])
        for text in picture.iter("text"):
            wide, x = text_width(text.text or ""), float(text.get("x"))
            left = x - wide * {"middle": 0.5, "end": 1.0}.get(text.get("text-anchor"), 0.0)
            assert left >= -1, text.text
            assert left + wide <= width + 1, text.text
            assert 0 <= float(text.get("y")) <= height, text.text


def test_seven_spreads_are_error_bars_and_seven_markers_are_seen(page):
    curves = pictures(sections_of(page.read_text())["learning-curves"])
    assert len(curves) == 2
    for picture in curves:
        groups = [group for group in picture.iter("g") if group.get("class") == "series"]
        assert len(groups) == len(METHODS)
        assert not list(picture.iter("polygon"))
        assert all(group[0].get("class").startswith("bar ") for group in groups)
        firsts = {float(re.match(r"M(-?[\d.]+)", group[0].get("d"))[1]) for group in groups}
        assert len(firsts) == len(METHODS)  # all begin with the same model
        written = [text.text for text in picture.iter("text") if text.get("class") == "tick"]
        assert "22,000" in written


def test_classes_go_by_their_names(grid, page, tmp_path):
    section = sections_of(page.read_text())["classes"]
    for name in CLASSES:
        assert f"<span>{name}</span>" in section
        assert f'<th scope="row">{name}</th>' in section
    assert "class 0" not in section
    colours = re.findall(r'class="line (c\d)"[^<]*?/><path class="mark', section)
    assert len(set(colours)) == len(CLASSES)
    saved = GridResult.load(page.parent.parent)
    assert saved.class_names == CLASSES
    for names in ([*map(str, range(10))], ["cat"] * 10, CLASSES[:9], []):
        GridResult(grid.configuration, grid.runs, class_names=names).save(tmp_path)
        section = sections_of(write_report([tmp_path], tmp_path).read_text())["classes"]
        assert "<span>class 7</span>" in section


def test_a_run_writes_the_names_of_its_classes(tmp_path):
    data = blobs()
    object.__setattr__(data, "class_names", ("left", "right", "top"))
    run_grid(grid_config(strategies=["random"], seeds=[0]), tmp_path, data=data)
    assert GridResult.load(tmp_path).class_names == ["left", "right", "top"]
    digits = ExperimentData.from_images(load("digits"))
    assert list(digits.class_names) == [str(digit) for digit in range(10)]


def test_wide_tables_say_that_they_scroll(page):
    text = page.read_text()
    hints = re.findall(r'<p class="hint">.*?</p>\n<div class="scroll"[^>]*aria-label="(.*?)"', text)
    assert "Test accuracy (%)" in hints
    assert ".narrow, .hint { display: block; }" in text


def test_a_batch_that_is_not_ranked_has_an_error_bar_and_cod_is_named_where_it_ran(tmp_path):
    for strategies in (["random", "margin"], ["cod", "margin"]):
        name = strategies[0]
        config = grid_config(strategies=strategies, analysis=True)
        run_grid(config, tmp_path / name, data=blobs())
        assert recorded(tmp_path / name / name / "seed-0")
        sections = sections_of(write_report([tmp_path / name], tmp_path / "report").read_text())
        assert (FIRST_DISCREPANCY in sections["highest-losses"]) == (name == "cod")
        assert ("COD" in "".join(sections.values())) is False
        if name == "random":
            for picture in pictures(sections["informativeness"]):
                kinds = [[child.get("class") for child in group] for group in picture.iter("g")]
                assert kinds[0] == ["bar base", "mark base"]


@needs_browser
def test_in_a_browser_nothing_is_fetched_refused_or_cut_off(page, tmp_path):
    assert flaws(page, tmp_path) == []
