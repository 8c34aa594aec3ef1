"""The documentation's Python examples run as they are printed, and its site builds cleanly."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from dynal_fast import PoolStats, data, strategies
from dynal_fast.ops import dense_discrepancy
from dynal_fast.pool import scores
from dynal_fast.report.write import CONTENTS
from dynal_fast.strategies import registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(DOCS).as_posix(): re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    for page in sorted(DOCS.rglob("*.md"))
}
REGISTRIES = (
    scores.SCORES,
    registry._REGISTRY,
    data.READERS,
    data.SOURCES,
    dense_discrepancy.BACKENDS.loaders,
)


@pytest.fixture
def registries_restored():
    before = [dict(entries) for entries in REGISTRIES]
    yield
    for entries, kept in zip(REGISTRIES, before, strict=True):
        entries.clear()
        entries.update(kept)


@pytest.fixture
def stand_ins():
    """What a reader is said to have: a pool, a model, a training, embeddings."""
    inputs = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    return {
        "torch": torch,
        "pool": inputs,
        "pool_loader": [(ids, inputs[ids]) for ids in torch.arange(300).split(64)],
        "num_epochs": 6,
        "model": torch.nn.Linear(8, 10),
        "train_one_epoch": lambda model: torch.nn.init.normal_(model.weight),
        "features": inputs,
        "embeddings": inputs.numpy(),
        "labeled_ids": np.arange(10),
    }


def test_pages_have_examples():
    assert sum(len(blocks) for blocks in PAGES.values()) >= 25
    assert all(PAGES[page] for page in PAGES if page.startswith(("guide/training", "how-to/")))


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
@pytest.mark.filterwarnings("ignore:num_epochs is None")
@pytest.mark.usefixtures("one_thread", "registries_restored")
def test_examples_run(page, stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for at, block in enumerate(PAGES[page]):
        exec(compile(block, f"{page}, example {at + 1}", "exec"), stand_ins)


def test_every_score_and_strategy_is_in_the_guide():
    guide = (DOCS / "guide" / "scores.md").read_text()
    named = [*scores.SCORES, *(strategy.name for strategy in strategies.strategies())]
    assert [name for name in named if f"`{name}`" not in guide] == []


def test_bytes_of_the_scores_are_those_of_a_tracker():
    """The column ``bytes`` of the guide, for C classes, beside what is allocated."""
    classes, samples = 7, 1000
    rows = re.findall(
        r"^\| `(\w+)`[^|]*\|[^|]*\|[^|]*\| ((?:\d )?C(?: \+ \d)?|4)\b.*\|$",
        (DOCS / "guide" / "scores.md").read_text(),
        re.M,
    )
    assert {name for name, _ in rows} == set(scores.SCORES)
    for name, formula in rows:
        said = eval(formula.replace(" C", " * C"), {"C": classes})
        kept = PoolStats(samples, classes, track=(name,)).nbytes()
        assert said * samples == kept["total"] - kept["stamps"], name


def test_figures_on_the_hardware_page_are_recorded_ones():
    table = (DOCS / "hardware.md").read_text().split("## On a CPU")[1].split("## On a GPU")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+ m?s) \| ([\d.]+ MB)? ?\|$", table, re.M)
    benchmarks = (DOCS / "benchmarks.md").read_text()
    assert len(rows) >= 5
    figures = [figure for row in rows for figure in row[1:] if figure]
    assert [figure for figure in figures if f"| {figure} |" not in benchmarks] == []


def test_every_section_of_a_report_is_explained():
    guide = (DOCS / "guide" / "report.md").read_text()
    assert [title for _, title in CONTENTS if f"\n| {title} |" not in guide] == []


def test_links_lead_somewhere():
    """Those between pages are checked by the site's build; no test asks the network."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        for link in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)", page.read_text()):
            target = urlsplit("".join(link))
            if target.scheme:
                assert target.scheme == "https", page
                assert "." in target.netloc, page
            elif target.path:
                assert (page.parent / target.path).exists(), (page, target.path)


def test_every_public_name_is_in_the_reference():
    import dynal_fast

    reference = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    deprecated = {"top_b"}
    public = set(dynal_fast.__all__) - {"__version__"} - deprecated
    assert [name for name in sorted(public) if not re.search(rf":: .*\b{name}\b", reference)] == []


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sphinx", "furo", "myst_parser")),
    reason="needs the docs extra: make docs",
)
@pytest.mark.slow
def test_site_builds_without_a_warning_and_asks_for_nothing(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run([*command, DOCS, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//")
    assert [page.name for page in pages if fetched.search(page.read_text())] == []
    styles = "\n".join(style.read_text() for style in tmp_path.rglob("*.css"))
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)
