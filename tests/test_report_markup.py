"""Text becomes HTML in one module, which escapes: nothing in results or recordings is markup."""

import ast
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynal_fast import charts, report
from dynal_fast.charts import markup
from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, document, element, joined
from dynal_fast.charts.scale import linear
from dynal_fast.charts.style import Style
from dynal_fast.cli import main
from dynal_fast.experiment.grid import run_grid
from dynal_fast.experiment.results import GridResult
from dynal_fast.report.write import write_report
from tests.cases.experiment import blobs, grid_config

pytestmark = pytest.mark.usefixtures("one_thread")

EVIL = "<script>'\"]]>&--><b onload=x>{}%s"
TAG = re.compile(r"<[/!?]?[A-Za-z]|[A-Za-z\"]\s*/?>")


def code_strings(tree):
    """Yield the strings of a module, parts of f-strings included, that are no docstring."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in documentation:
            yield text


def test_no_other_module_builds_tags_or_markup():
    folders = [Path(part.__file__).parent for part in (charts, report)]
    package = folders[0].parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if path.name == "markup.py":
            assert any(TAG.search(text) for text in code_strings(tree))
            continue
        called = [ast.dump(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [name for name in called if "Markup" in name], path
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "html"
            for alias in node.names
        }
        assert "escape" not in imported, path
        if path.parent in folders:
            assert not [text for text in code_strings(tree) if TAG.search(text)], path


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (element("p", "<b>"), "<p>&lt;b&gt;</p>"),
        (element("p", element("b", "x")), "<p><b>x</b></p>"),
        (element("p", "a" + element("b", "x") + "<"), "<p>a<b>x</b>&lt;</p>"),
        (element("p", f"{element('b', 'x')}"), "<p>&lt;b&gt;x&lt;/b&gt;</p>"),
        (element("p", "".join([element("b", "x")])), "<p>&lt;b&gt;x&lt;/b&gt;</p>"),
        (element("p", id="\"'<"), '<p id="&quot;&#x27;&lt;"/>'),
        (element("p", id=element("b", "'")), '<p id="&lt;b&gt;&amp;#x27;&lt;/b&gt;"/>'),
        (element("p", "\0\x1b\ud800\uffff\U0001f600\n"), "<p>����😀\n</p>"),
        (element("meta", charset="a"), '<meta charset="a">'),
        (element("path", aria_label="x", class_="y", d=None), '<path aria-label="x" class="y"/>'),
        (joined([]), ""),
    ],
)  # fmt: skip
def test_what_is_not_markup_is_escaped(made, expected):
    assert made == expected
    assert isinstance(made, Markup)
    made.encode()


def test_a_stylesheet_cannot_end_its_element():
    with pytest.raises(ValueError, match="stylesheet"):
        document([], [], "</style><script>")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {name for name, _ in attributes}))

    def handle_data(self, data):
        self.text.append(data)


def with_every_text(values, make):
    """Replace every text by what ``make`` gives of it, and every key of tables that are free."""
    if isinstance(values, dict):
        return {key: with_every_text(value, make) for key, value in values.items()}
    if isinstance(values, list):
        return [with_every_text(value, make) for value in values]
    return make(values) if isinstance(values, str) else values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "blobs"
    config = grid_config(strategies=["cod", "random"], seeds=[0, 1], analysis=True)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_grid(config, folder, data=blobs())
    torch.set_num_threads(threads)
    return folder


def hostile(text):
    """Return a text that is no text of the report's, but where only a few names are taken."""
    taken = ("scratch", "adam", "none", "all_data", "data", "off")
    return text if text in taken else f"{text} {EVIL}"


@pytest.fixture
def evil(folder, tmp_path):
    """A run of which every text in every file is hostile, and the folder's name, too."""
    target = tmp_path / f"run {EVIL[:-9]}"
    shutil.copytree(folder, target)
    for name in ("results.json", "timings.json"):
        values = json.loads((folder / name).read_text())
        values = with_every_text(values, hostile)
        if name == "timings.json":
            values["environment"][EVIL] = EVIL
        else:
            for run in values["runs"]:
                for cycle in run["cycles"]:
                    cycle["report"] = {EVIL: EVIL, f"a{EVIL}": 1.5}
            values["configuration"][EVIL] = {EVIL: [EVIL]}
            values["configuration"]["preset"] = EVIL
        (target / name).write_text(json.dumps(values))
    for name in ("cod", "random"):
        (target / name).rename(target / hostile(name))
    for path in target.rglob("analysis-*"):
        from dynal_fast.experiment.checkpoint import Checkpoint

        checkpoint = Checkpoint.load(path)
        checkpoint.tensors[f"score.cod {EVIL}"] = checkpoint.tensors["loss"]
        checkpoint.save(path)
    return target


def test_hostile_texts_are_text_on_the_page(folder, evil, tmp_path):
    text = write_report([evil, evil.parent / evil.name], tmp_path / "report").read_text()
    found, honest = Tags(text), Tags(write_report([folder], tmp_path / "other").read_text())
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in honest.tags} | {"em"}
    known = set().union(*(names for _, names in honest.tags))
    assert set().union(*(names for _, names in found.tags)) <= known
    assert "<script" not in text
    assert "onload=x>" not in text
    seen = " ".join(found.text)
    for shown in (f"accuracy {EVIL}", f"cod {EVIL}", f"digits {EVIL}", f"mlp {EVIL}", evil.name):
        assert shown in seen, shown
    assert text.count("&lt;script&gt;") > 50


def test_hostile_texts_are_text_in_the_picture_and_the_table(evil, tmp_path, capsys):
    assert main(["plot", str(evil), "-o", str(tmp_path / "pictures")]) == 0
    root = xml.etree.ElementTree.parse(tmp_path / "pictures" / "learning_curves.svg").getroot()
    assert not [e for e in root.iter() if e.tag.endswith("script") or e.get("onload")]
    assert f"cod {EVIL}" in "".join(root.itertext())
    assert f"cod {EVIL}" in capsys.readouterr().out


def test_a_hostile_metric_is_escaped(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    grid = dataclasses.replace(GridResult.load(folder), metric=EVIL)
    grid.save(tmp_path / "run")
    text = write_report([tmp_path / "run"], tmp_path / "report").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_picture_is_xml_whatever_its_texts_are():
    chart = Chart(linear([0, 1]), linear([0, 1]), EVIL, EVIL)
    chart.points([0.5], [0.5], Style("c0"), [EVIL])
    chart.rule(x=0.5, label="\0" + EVIL)
    root = xml.etree.ElementTree.fromstring(chart.svg(EVIL))
    assert root.get("aria-label") == EVIL
    assert "\ufffd" + EVIL in "".join(root.itertext())
    assert markup.joined([EVIL]) not in (EVIL, "")
