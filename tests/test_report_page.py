"""The report page: its numbers are those of the runs, it needs nothing else, it says what lacks."""

import dataclasses
import html
import json
import os
import re
import shlex
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from dynal_fast.charts.scale import linear, logarithmic
from dynal_fast.charts.style import COLOURS, MARKERS, styles
from dynal_fast.cli import build_parser, main
from dynal_fast.experiment import RunConfig
from dynal_fast.experiment.analysis import recorded
from dynal_fast.experiment.grid import run_grid
from dynal_fast.experiment.results import GridResult
from dynal_fast.experiment.tables import read_config
from dynal_fast.report.html import STYLESHEETS
from dynal_fast.report.recorded import PORTIONS
from dynal_fast.report.write import CONTENTS, write_report
from tests.browser import flaws, needs_browser
from tests.cases.experiment import blobs, grid_config
from tests.report_pages import Page, sections_of

pytestmark = pytest.mark.usefixtures("one_thread")

STRATEGIES = ["random", "cod", "margin", "label_dispersion"]
RECORDED = ("informativeness", "score-and-loss", "loss-by-rank", "highest-losses", "scores")
RECORDED += ("trajectories",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "blobs"
    run_grid(grid_config(strategies=STRATEGIES, analysis=True), folder, data=blobs())
    return folder


@pytest.fixture(scope="module")
def text(folder, tmp_path_factory):
    return write_report([folder], tmp_path_factory.mktemp("report")).read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_of_the_contents_is_there_with_pictures_and_numbers(text, page):
    sections = sections_of(text)
    elsewhere = ("compression", "selections")
    assert list(sections) == [name for name, _ in CONTENTS if name not in elsewhere]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links[: len(sections)] == [f"#{identifier}" for identifier in sections]
    for identifier, content in sections.items():
        assert 'class="missing"' not in content
        if identifier not in ("accuracy", "settings"):
            assert 'role="img"' in content
            assert re.search(r"<summary>The numbers</summary>\n<(div|p class=.hint.)", content)


def test_single_classes_are_the_means_over_seeds_and_add_up_to_the_accuracy(folder, page):
    grid = GridResult.load(folder)
    counts = blobs().test_labels.bincount().numpy()
    runs = grid.of("cod")
    for cycle in range(3):
        for run in runs:
            found = run.cycles[cycle]
            total = np.dot(found.by_class, counts) / counts.sum()
            assert total == pytest.approx(found.accuracy)
    for label in range(3):
        means = [100 * np.mean([run.cycles[c].by_class[label] for run in runs]) for c in range(3)]
        row = page.row("Test accuracy of each class: cod", f"class {label}")
        assert row == [f"{mean:.1f}" for mean in means]
        last = page.row("Test accuracy of each class after the last training", f"class {label}")
        assert last[STRATEGIES.index("cod")] == f"{means[-1]:.1f}"


def test_results_without_single_classes_say_so(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    results = json.loads((folder / "results.json").read_text())
    for run in results["runs"]:
        for cycle in run["cycles"]:
            del cycle["by_class"]
    (tmp_path / "old" / "results.json").write_text(json.dumps(results))
    text = write_report([tmp_path / "old"], tmp_path / "report").read_text()
    assert "written before they held single classes" in sections_of(text)["classes"]


def test_the_page_needs_nothing_else(text, page):
    assert not {"script", "img", "iframe", "object", "use", "image"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "srcset", "onload", "onclick", "style"} & attributes.keys()
        assert attributes.get("href", "#")[:1] == "#" or attributes["href"] == "data:,"
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text


def test_the_pictures_are_well_formed_and_described(text):
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    drawn = [p for p in map(ElementTree.fromstring, pictures) if p.get("role") == "img"]
    assert len(drawn) >= 2 * 5 + 2 * 3
    for picture in drawn:
        assert len(picture.get("aria-label")) > 20
        width, height = map(float, picture.get("viewBox").split()[2:])
        for element in picture.iter():
            for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.get("points", "")):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height
        labels = [e.text for e in picture.iter("text") if e.get("class") == "label"]
        assert len(labels) == 2
        assert labels[0]


def test_the_learning_curves_are_those_of_the_results(folder, page):
    grid = GridResult.load(folder)
    of_seeds = {run.seed: run.accuracies for run in grid.of("cod")}
    table = "Accuracy of every seed"
    for seed, accuracies in of_seeds.items():
        assert page.row(table, "cod", str(seed)) == [f"{100 * a:.2f}" for a in accuracies]
    values = 100 * np.array(list(of_seeds.values()))
    mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
    assert page.row(table, "cod", "mean") == [f"{value:.2f}" for value in mean]
    assert page.row(table, "cod", "std") == [f"{value:.2f}" for value in std]
    references = [run.accuracies[-1] for run in grid.of("all_data")]
    everything = 100 * np.mean(references)
    shown = [row[-1] for row in page.tables["Accuracy on all data"][1:]]
    assert shown == [f"{100 * accuracy:.2f}" for accuracy in references]
    expected = [f"{100 * m / everything:.1f}" for m in mean]
    relative = page.row("Test accuracy relative to all data (%)", "cod")
    assert [cell.split(" ±")[0] for cell in relative] == expected


def test_the_informativeness_is_that_of_the_recordings(folder, page):
    columns = page.tables["Accuracy (%) on the queried portion of the pool"][0][1:]
    shown = dict(zip(columns, page.row(
        "Accuracy (%) on the queried portion of the pool", "margin"), strict=True))  # fmt: skip
    queried = [portion for portion in PORTIONS if round(portion * 138) >= 10]
    values = []
    for seed in (0, 1):
        first = recorded(folder / "margin" / f"seed-{seed}")[0]
        order = np.argsort(-first["score.margin"].numpy(), kind="stable")
        values.append([first["correct"].numpy()[order[: round(p * 138)]].mean() for p in queried])
    mean, std = 100 * np.mean(values, axis=0), 100 * np.std(values, axis=0, ddof=1)
    for portion, m, d in zip(queried, mean, std, strict=True):
        assert shown[f"{100 * portion:.3g}"] == f"{m:.1f} ± {d:.1f}"
    assert "5" not in shown
    random = page.row("Accuracy (%) on the queried portion of the pool", "random")
    picks = []
    for seed in (0, 1):
        first = recorded(folder / "random" / f"seed-{seed}")[0]
        rows = np.searchsorted(first["ids"].numpy(), first["picks"].numpy())
        picks.append(100 * first["correct"].numpy()[rows].mean())
    expected = f"{np.mean(picks):.1f} ± {np.std(picks, ddof=1):.1f}"
    assert [cell for cell in random if cell] == [expected]


def test_the_losses_are_those_of_the_recordings(folder, page):
    table = page.tables["Mean real loss in nats by rank of cod"]
    assert table[0] == ["cod: rank (%)", "cycle 0", "cycle 1"]
    assert table[1][0] == "0–5"
    highest = []
    for seed in (0, 1):
        second = recorded(folder / "cod" / f"seed-{seed}")[1]
        order = np.argsort(-second["score.cod"].numpy(), kind="stable")
        highest.append(second["loss"].numpy()[order[:7]].mean())  # 132 in twenty parts
    mean, std = (float(part) for part in table[1][2].split(" ± "))
    assert mean == pytest.approx(np.mean(highest), rel=1e-3)
    assert std == pytest.approx(np.std(highest, ddof=1), rel=0.05)
    found = page.row("Share (%) of the highest losses found", "cod")
    assert found[-1] == "100.0 ± 0.0"
    assert "random" not in [row[0] for row in page.tables["Share (%) of the highest losses found"]]


def test_the_histogram_says_from_which_score_on_was_queried(folder, page):
    lowest = []
    for seed in (0, 1):
        first = recorded(folder / "margin" / f"seed-{seed}")[0]
        rows = np.searchsorted(first["ids"].numpy(), first["picks"].numpy())
        lowest.append(first["score.margin"].numpy()[rows].min())
    expected = f"{np.mean(lowest):.4g} ± {np.std(lowest, ddof=1):.2g}"
    header = page.tables["Histogram of margin"][0]
    assert header == [f"margin, queried from {expected}", "right (%)", "wrong (%)"]


def test_mean_score_and_loss_are_those_of_the_recordings(folder, page):
    for cycle in (0, 1):
        seeds = [recorded(folder / "cod" / f"seed-{seed}")[cycle] for seed in (0, 1)]
        row = page.row("Mean score and mean real loss of cod", str(cycle))
        for cell, name in zip(row, ("score.cod", "loss"), strict=True):
            means = [arrays[name].double().mean().item() for arrays in seeds]
            assert float(cell) == pytest.approx(np.mean(means), rel=1e-3)


def test_the_costs_are_those_of_the_timings(folder, page):
    timings = [t for run in GridResult.load(folder).of("margin") for t in run.timings]
    seconds = [t.selection.seconds for t in timings if t.selection]
    memory = max(t.selection.peak_extra_bytes for t in timings if t.selection)
    row = page.row("Time and peak extra memory per selection", "margin")
    assert row[:3] == [f"{1000 * v:,.2f}" for v in (np.mean(seconds), min(seconds), max(seconds))]
    assert row[3] == f"{memory / 2**20:,.2f}"
    assert row[-1] == str(len(seconds)) == "4"


def test_the_trajectories_are_recorded_ones(folder, page):
    first = recorded(folder / "random" / "seed-0")[0]
    table = page.tables["Trajectories of the least stable"]
    column = table[0].index(table[0][1])
    sample = int(table[0][column].removeprefix("sample "))
    at = first["followed_ids"].tolist().index(sample)
    shown = [row[column] for row in table[1:]]
    assert shown == [f"{p:.4f}" for p in first["trajectories"][:, at].tolist()]


def test_the_page_is_the_same_again_and_survives_a_failed_write(folder, tmp_path, monkeypatch):
    path = write_report([folder], tmp_path / "report")
    before = path.read_bytes()
    assert write_report([folder], tmp_path / "report").read_bytes() == before

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"cannot write .*index.html: No space left"):
        write_report([folder], tmp_path / "report")
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["differences.csv", "index.html"]


def unrecorded(folder, target):
    """Copy the results alone."""
    target.mkdir()
    for name in ("results.json", "timings.json"):
        shutil.copy(folder / name, target / name)
    return target


def test_where_recordings_lack_the_command_that_records_them_stands(folder, tmp_path):
    text = write_report([unrecorded(folder, tmp_path / "plain")], tmp_path).read_text()
    sections = sections_of(text)
    for identifier in RECORDED:
        assert 'class="missing"' in sections[identifier]
        assert "random, cod, margin, label_dispersion" in sections[identifier]
        assert 'role="img"' not in sections[identifier]
    assert 'role="img"' in sections["learning-curves"]
    (command,) = set(re.findall(r"<code>dynal-fast (.*? --analysis .*?)</code>", text))
    arguments = build_parser().parse_args(shlex.split(command))
    assert vars(arguments)[".analysis"] is True
    settings = sections["settings"]
    name, file = re.search(r"<summary>(.*?)</summary><pre>(.*?)</pre>", settings, re.S).groups()
    assert name == arguments.config == "plain.yaml"
    (tmp_path / name).write_text(html.unescape(file))
    again = RunConfig.from_mapping(read_config(tmp_path / name))
    assert again.to_mapping() == GridResult.load(folder).configuration


def test_a_method_without_recordings_is_named_beside_the_others(folder, tmp_path):
    target = unrecorded(folder, tmp_path / "partly")
    shutil.copytree(folder / "cod", target / "cod")
    sections = sections_of(write_report([target], tmp_path).read_text())
    assert "Nothing is recorded of random, margin, label_dispersion." in sections["informativeness"]
    for identifier in RECORDED:
        assert 'role="img"' in sections[identifier]


def test_a_single_seed_has_no_deviation(tmp_path):
    run_grid(grid_config(seeds=[3], analysis=True), tmp_path / "a", data=blobs())
    text = write_report([tmp_path / "a"], tmp_path).read_text()
    assert "±" not in re.sub(r"<p>.*?</p>", "", text)
    assert "of one seed" in text


def test_strategies_that_rank_nothing_are_told_apart_from_missing_recordings(tmp_path):
    run_grid(grid_config(strategies=["random"], analysis=True), tmp_path / "a", data=blobs())
    sections = sections_of(write_report([tmp_path / "a"], tmp_path).read_text())
    assert "ranks the pool by a score" in sections["loss-by-rank"]
    assert 'role="img"' in sections["informativeness"]
    assert 'role="img"' in sections["trajectories"]


def test_results_without_timings_or_reference_say_so(folder, tmp_path):
    values = json.loads((folder / "results.json").read_text())
    values["runs"] = [run for run in values["runs"] if run["strategy"] != "all_data"]
    (tmp_path / "big-results.json").write_text(json.dumps(values))
    sections = sections_of(write_report([tmp_path / "big-results.json"], tmp_path).read_text())
    assert "No times" in sections["cost"]
    assert "--reference" in sections["accuracy"]
    shutil.copytree(folder / "cod", tmp_path / "big-results" / "cod")
    sections = sections_of(write_report([tmp_path / "big-results.json"], tmp_path).read_text())
    assert 'role="img"' in sections["loss-by-rank"]


def test_seeds_of_one_experiment_are_put_together(tmp_path):
    for name, seeds in (("one", [0]), ("two", [1]), ("both", [0, 1])):
        run_grid(grid_config(seeds=seeds), tmp_path / name, data=blobs())
    apart = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "apart").read_text()
    both = write_report([tmp_path / "both"], tmp_path / "together").read_text()
    for label in ("Accuracy of every seed", "Test accuracy (%)"):
        assert Page(apart).tables[label] == Page(both).tables[label]


def test_other_settings_stand_side_by_side_under_the_names_of_their_folders(folder, tmp_path):
    other = tmp_path / "longer <b>"
    run_grid(
        grid_config(strategies=["cod"], training={"epochs": 4, "batch_size": 16}),
        other,
        data=blobs(),
    )
    text = write_report([folder, other], tmp_path / "report").read_text()
    names = {row[0] for row in Page(text).tables["Test accuracy (%)"][1:]}
    assert {"cod (blobs)", "cod (longer <b>)"} <= names
    assert "longer <b>" not in text
    assert {row[0] for row in Page(text).tables["Accuracy on all data"][1:]} == {
        "blobs",
        "longer <b>",
    }


def test_the_metric_is_called_by_its_name(folder, tmp_path):
    def segmentation(values):
        values["metric"] = "mean IoU"

    text = write_report([changed(folder, tmp_path / "a", segmentation)], tmp_path).read_text()
    assert "<h3>Test mean IoU (%)</h3>" in text
    assert ">test mean IoU (%)</text>" in text
    assert ">Mean IoU on the test set" in text


def changed(folder, target, change):
    values = json.loads((folder / "results.json").read_text())
    change(values)
    unrecorded(folder, target)
    (target / "results.json").write_text(json.dumps(values))
    return target


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    def other_data(values):
        values["configuration"]["data"] = "mnist"

    with pytest.raises(ValueError, match=r"one data set: data is 'digits' in .*'mnist' in .*other"):
        write_report([folder, changed(folder, tmp_path / "other", other_data)], tmp_path / "r")

    def other_result(values):
        values["runs"][0]["cycles"][0]["accuracy"] = 0.125

    with pytest.raises(ValueError, match=r"random with seed 0 has one result in .* and another in"):
        write_report([folder, changed(folder, tmp_path / "twice", other_result)], tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such run"),
        (lambda path: path.mkdir(), "holds no finished results: results.json is not there"),
        (lambda path: path.write_text("[]"), "is not a result of `dynal-fast run`"),
        (lambda path: path.write_text("<html>"), "is not a result of `dynal-fast run`"),
        (lambda path: path.write_bytes(b"\xff\x00"), "is not a result of `dynal-fast run`"),
        (
            lambda path: path.write_text('{"configuration": {}, "runs": []}'),
            "is not a result of `dynal-fast run`: it holds no run",
        ),
    ],
)
def test_what_is_no_run_is_one_line_and_exit_code_2(tmp_path, capsys, make, message):
    make(tmp_path / "given")
    code = main(["report", str(tmp_path / "given"), "-o", str(tmp_path / "report")])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "report").exists()


def test_a_damaged_recording_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    damaged = tmp_path / "run" / "cod" / "seed-1" / "analysis-0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"seed-1/analysis-0.safetensors is not a readable"):
        write_report([tmp_path / "run"], tmp_path / "report")


def test_the_command_writes_where_it_is_told(folder, tmp_path, capsys):
    assert main(["report", str(folder), "-o", str(tmp_path / "a" / "b")]) == 0
    assert capsys.readouterr().out == f"Report: {tmp_path / 'a' / 'b' / 'index.html'}\n"
    assert (tmp_path / "a" / "b" / "index.html").read_text().startswith("<!DOCTYPE html>")


def test_every_method_of_a_large_grid_looks_different():
    names = ["random (a)", *(f"s{i}" for i in range(3 * COLOURS)), "random (b)"]
    looks = styles(names)
    assert len({dataclasses.astuple(look) for look in looks.values()}) == len(names)
    neighbours = [looks[f"s{i}"].marker for i in range(len(MARKERS))]
    assert len(set(neighbours)) == len(MARKERS)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def test_colours_stand_out_from_the_paper_in_light_and_dark():
    blocks = [re.findall(r":root \{(.*?)\}", sheet.read_text(), re.DOTALL) for sheet in STYLESHEETS]
    for scheme in map("".join, zip(*blocks, strict=True)):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        paper = luminance(colours["paper"])

        def contrast(name, colours=colours, paper=paper):
            bright, dim = sorted([luminance(colours[name]), paper], reverse=True)
            return (bright + 0.05) / (dim + 0.05)

        for name in [*(f"c{i}" for i in range(COLOURS)), "base"]:
            assert contrast(name) >= 3  # graphics: WCAG 2.1, 1.4.11
        for name in ("ink", "soft", "link"):
            assert contrast(name) >= 4.5  # text: WCAG 2.1, 1.4.3


@pytest.mark.parametrize("values", [[0.0], [0.013, 0.98], [-3.0, 1e6], [97.2, 98.1], [0, 1e-9]])
def test_a_linear_scale_holds_its_values(values):
    scale = linear(values)
    assert all(0 <= scale.at(value) <= 1 for value in values)
    assert 3 <= len(scale.ticks) <= 8
    assert len(set(scale.ticks.values())) == len(scale.ticks)


@pytest.mark.parametrize("values", [[1.0], [0.0003, 0.0004], [1e-5, 300.0], [1.3, 100.0]])
def test_a_logarithmic_scale_holds_its_values(values):
    scale = logarithmic(values)
    assert all(-1e-9 <= scale.at(value) <= 1 + 1e-9 for value in values)
    assert 2 <= len(scale.ticks) <= 12


@needs_browser
def test_in_a_browser_nothing_is_fetched_refused_or_cut_off(folder, tmp_path):
    assert flaws(write_report([folder], tmp_path / "report"), tmp_path) == []
