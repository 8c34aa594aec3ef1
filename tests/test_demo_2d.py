"""The three Gaussians of the long-tail paper: the courses are what they say, and so is the page."""

import json
import re

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first
from dynal_fast.cli import main
from dynal_fast.experiment import three_gaussians as demo
from dynal_fast.report.demo_2d import demo_2d_table, write_demo_2d
from dynal_fast.table import as_text
from tests.browser import flaws, needs_browser


@pytest.fixture(scope="module")
def courses():
    return demo.run_courses([0])


@pytest.fixture(scope="module")
def by_method(courses):
    return {course.method: course for course in courses}


def test_the_middle_gaussian_is_the_negative_class():
    data, points, gaussian = demo.three_gaussians(seed=3)
    labels = data.oracle.label(torch.arange(200))
    assert labels.tolist() == (gaussian != 1).long().tolist()
    for which, centre in enumerate(demo.CENTRES):
        np.testing.assert_allclose(points[gaussian == which].mean(0), centre, atol=0.4)
    (left, right), (low, high) = demo.EXTENT
    for seed in range(20):
        points = demo.three_gaussians(seed)[1]
        assert (points > torch.tensor([left, low])).all()
        assert (points < torch.tensor([right, high])).all()


def test_every_method_starts_from_the_same_point_of_each_class(courses):
    _, _, gaussian = demo.three_gaussians(0)
    assert {course.method for course in courses} == set(demo.METHODS)
    assert len({tuple(course.picks[:2]) for course in courses}) == 1
    assert len({course.accuracies[0] for course in courses}) == 1
    assert sorted((gaussian[courses[0].picks[:2]] == 1).tolist()) == [False, True]


def test_the_numbers_of_a_course_are_those_of_its_picks(courses):
    _, points, gaussian = demo.three_gaussians(0)
    x = points.numpy().astype(np.float64)
    for course in courses:
        assert course.labeled == list(range(2, 31))
        assert len(set(course.picks)) == len(course.picks) == 30
        for i, count in enumerate(course.labeled):
            labeled = x[course.picks[:count]]
            nearest = np.sqrt(((x[:, None] - labeled) ** 2).sum(-1)).min(1)
            assert course.radii[i] == pytest.approx(nearest.max(), rel=1e-5)
            assert course.gaussians[i] == len({int(gaussian[p]) for p in course.picks[:count]})
        assert course.regions.keys() == set(demo.SHOWN)


def test_the_regions_are_those_of_the_classifier_that_was_tested(courses):
    _, points, gaussian = demo.three_gaussians(0)
    xs, ys = (torch.linspace(*ends, n) for ends, n in zip(demo.EXTENT, demo.GRID, strict=True))
    assert torch.equal(demo.grid_points()[1], torch.stack([xs[0], ys[1]]))
    columns = (points[:, :1] - xs).abs().argmin(1)
    rows = (points[:, 1:] - ys).abs().argmin(1)
    for course in courses:
        region = course.regions[30]
        agreement = (region[columns, rows] == (gaussian != 1)).double().mean()
        assert agreement == pytest.approx(course.accuracies[-1], abs=0.08)


def test_farthest_first_asks_in_the_hidden_layer(monkeypatch):
    seen = []

    def spy(context):
        embeddings = context.embeddings(context.candidates), context.embeddings(context.labeled)
        expected = farthest_first(embeddings[0], 1, labeled=embeddings[1]).indices
        seen.append((embeddings[0].shape[1], int(context.candidates[int(expected[0])])))
        return strategy.select(context)

    strategy = demo.get_strategy("farthest_first")
    spied = demo.Strategy("farthest_first", spy, needs=("embeddings",))
    monkeypatch.setattr(demo, "LABELED", 5)
    monkeypatch.setattr(demo, "get_strategy", lambda name: spied)
    course = demo.run_course("farthest_first", 1)
    assert seen[0][0] == demo.HIDDEN
    assert [pick for _, pick in seen[:3]] == course.picks[2:]


def test_farthest_first_reaches_all_three_gaussians(by_method):
    assert by_method["farthest_first"].gaussians[-1] == 3
    assert by_method["farthest_first"].radii[-1] < by_method["least_confidence"].radii[-1]


def test_a_course_repeats_itself():
    first, second = (demo.run_courses([4], ["random"])[0] for _ in range(2))
    assert first.picks == second.picks
    assert first.accuracies == second.accuracies


def test_the_page_and_the_json_hold_the_numbers(courses, by_method, tmp_path):
    picture, numbers = write_demo_2d(courses, tmp_path / "demo")
    values = json.loads(numbers.read_text())
    assert values["labeled"] == courses[0].labeled
    for written, course in zip(values["courses"], courses, strict=True):
        for name, value in written.items():
            assert value == getattr(course, name)
        assert {"method", "picks", "accuracies", "gaussians", "radii"} <= written.keys()
    text = picture.read_text()
    by_round = "<td>".join(f"{100 * c.accuracies[-1]:.2f} ± 0.00</td>" for c in courses)
    assert f'<th scope="row">30</th><td>{by_round}' in text
    for method in ("least_confidence", "farthest_first"):
        for count in demo.SHOWN:
            accuracy = by_method[method].accuracies[count - 2]
            assert re.search(
                rf"<h3>{method}, {count} labeled \(.*?\): {100 * accuracy:.1f} %</h3>", text
            )
    assert text.count('class="region c0"') == 2 * len(demo.SHOWN)
    assert "farthest_first, 6 labeled (2 + 4 asked): " in text
    random = 100 * by_method["random"].accuracies[13]
    farthest = 100 * by_method["farthest_first"].accuracies[13]
    assert f"with 15 labels random has {random:.1f} % and farthest-first {farthest:.1f} %" in text
    markers = re.findall(r"<title>label \d+: ", text)
    assert len(markers) == 2 * sum(demo.SHOWN)
    assert write_demo_2d(courses, tmp_path / "again")[0].read_text() == text


def test_the_table_holds_means_and_deviations(courses):
    lines = as_text(demo_2d_table(courses)).splitlines()
    course = next(course for course in courses if course.method == "farthest_first")
    expected = f"farthest_first 30 {100 * course.accuracies[-1]:.1f} 3 of 3 {course.radii[-1]:.2f}"
    assert expected in [" ".join(line.split()) for line in lines]
    twice = as_text(demo_2d_table([*courses, *courses]))
    assert f"{100 * course.accuracies[-1]:.1f} ± 0.0" in twice


def test_the_command_says_what_it_wrote(courses, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run_courses", lambda seeds: courses if seeds == [7] else None)
    assert main(["demo-2d", "--seeds", "7", "-o", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "a" / "index.html") in out
    assert "Gaussians reached" in out


@pytest.mark.parametrize("seeds", [["-1"], ["3", "3"]])
def test_bad_seeds_are_one_line_and_exit_code_2(seeds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo-2d", "--seeds", *seeds]) == 2
    err = capsys.readouterr().err
    assert "seeds must be distinct numbers of at least 0" in err
    assert list(tmp_path.iterdir()) == []


@needs_browser
def test_in_a_browser_nothing_is_fetched_refused_or_cut_off(courses, tmp_path):
    assert flaws(write_demo_2d(courses, tmp_path / "page")[0], tmp_path) == []
