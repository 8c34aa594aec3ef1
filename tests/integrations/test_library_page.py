"""The examples on the page about active-learning libraries run, each where its library is."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dynal_fast import PoolStats

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-it-in-your-library.md"
MODULES = {
    "scikit-activeml": "skactiveml",
    "small-text": "small_text",
    "baal": "baal",
    "modAL": "modAL",
}
SECTIONS = {
    part.splitlines()[0]: re.findall(r"```py\n(.*?)```", part, re.S)
    for part in PAGE.read_text().split("\n## ")[1:]
}
N = 120


@pytest.fixture
def stand_ins():
    """What a reader is said to have."""
    X = np.random.default_rng(0).standard_normal((N, 5))
    stats = PoolStats(N, 3, track=("label_dispersion", "margin", "bald"))
    with stats.observe(1, 1):
        stats.update(torch.arange(N), torch.from_numpy(X[:, :3].copy()))
    return {
        "X": X,
        "y": np.where(np.arange(N) < 6, np.arange(N) % 2, np.nan),
        "stats": stats,
        "clf": None,
        "dataset": X,
        "indices_unlabeled": np.arange(6, N),
        "indices_labeled": np.arange(6),
        "labels": np.arange(6) % 2,
        "X_pool": X,
        "X_training": X[:6],
        "y_training": np.arange(6) % 2,
    }


def of_baal():
    from baal.active.dataset import ActiveLearningDataset
    from baal.modelwrapper import ModelWrapper, TrainingArgs

    samples = [(row, 0) for row in torch.randn(N, 5)]
    labelled = np.arange(N) < 6
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(5, 3))
    return {
        "al_dataset": ActiveLearningDataset(samples, labelled=labelled),
        "wrapper": ModelWrapper(model, TrainingArgs(workers=0)),
        "embed": lambda dataset: torch.stack([x for x, _ in dataset]),
    }


@pytest.mark.parametrize("library", MODULES)
def test_examples_run(library, stand_ins):
    pytest.importorskip(MODULES[library], reason=f"{library} is not installed")
    if library == "baal":
        stand_ins |= of_baal()
    if library == "modAL":
        from sklearn.neighbors import KNeighborsClassifier

        stand_ins["estimator"] = KNeighborsClassifier(1)
    if library == "scikit-activeml":
        from skactiveml.classifier import SklearnClassifier
        from sklearn.naive_bayes import GaussianNB

        stand_ins["clf"] = SklearnClassifier(GaussianNB(), classes=[0, 1])
    for block in SECTIONS[library]:
        exec(block, stand_ins)
        if library == "baal":
            before = stand_ins["al_dataset"].n_labelled
            assert stand_ins["loop"].step()
            assert stand_ins["al_dataset"].n_labelled == before + 20
    found = next(
        (stand_ins[n] for n in ("query_indices", "picks", "indices") if n in stand_ins), []
    )
    assert len(found) == {"scikit-activeml": 50, "baal": 0}.get(library, 20)


def test_every_library_has_a_section():
    assert all(SECTIONS[library] for library in MODULES)
