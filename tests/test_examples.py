"""The scripts in ``examples/`` run, and show what they say they show."""

import runpy
from pathlib import Path

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


def test_text_learns():
    accuracies = example("text")(cycles=2)
    assert len(accuracies) == 2
    assert min(accuracies) > 3 / 21, "three times as often right as by chance"


def test_compare_strategies_writes_a_report(tmp_path):
    page = example("compare_strategies")(tmp_path, epochs=2)
    text = page.read_text()
    for name in ("random", "margin", "label_dispersion", "farthest_first"):
        assert name in text
    assert (tmp_path / "results.csv").exists()


def test_frozen_backbone_learns(tmp_path):
    accuracies = example("frozen_backbone")(cycles=2)
    assert len(accuracies) == 2
    assert accuracies[-1] > 0.5
