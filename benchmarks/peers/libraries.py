"""The steps of libraries that are installed, and of our adapters in their place."""

import importlib
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers.step import Select, Size, Step, features


def scikit_activeml(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    y = np.full(size.n, np.nan)
    y[labeled] = 0
    module = "dynal_fast.integrations.skactiveml" if ours else "skactiveml.pool"
    strategy = getattr(importlib.import_module(module), "FarthestFirst" if ours else "CoreSet")
    return lambda k: strategy(random_state=0).query(X, y, batch_size=k)


def small_text(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    unlabeled = np.delete(np.arange(size.n), labeled)
    order = np.concatenate([unlabeled, labeled])  # which small-text takes embeddings to have
    embeddings = X if ours else X[order]
    module = "dynal_fast.integrations.small_text" if ours else "small_text.query_strategies"
    strategy = getattr(
        importlib.import_module(module), "FarthestFirst" if ours else "GreedyCoreset"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = strategy()
    given = (None, X, unlabeled, labeled, np.zeros(size.labeled))
    return lambda k: strategy.query(*given, n=k, embeddings=embeddings)


def modal(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    """Ranked batches of an estimator that is as unsure of all samples: those of a core-set."""
    from modAL.batch import uncertainty_batch_sampling
    from modAL.models import ActiveLearner
    from sklearn.dummy import DummyClassifier

    from dynal_fast.integrations.modal import farthest_first

    X, labeled = features(size)
    strategy = farthest_first if ours else uncertainty_batch_sampling
    classes = np.arange(size.labeled) % 10
    learner = ActiveLearner(DummyClassifier(), strategy, X[labeled], classes)
    pool = np.delete(X, labeled, axis=0)
    return lambda k: learner.query(pool, n_instances=k)[0]


def baal(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    """A step of the loop with BALD, of baal's MLP with dropout and its 20 iterations."""
    from baal.active import ActiveLearningLoop
    from baal.active.dataset import ActiveLearningDataset
    from baal.active.heuristics import BALD
    from baal.bayesian.dropout import patch_module
    from baal.modelwrapper import ModelWrapper, TrainingArgs

    from dynal_fast import PoolStats
    from dynal_fast.integrations.baal import MonteCarlo, TrackedScore

    X, labeled = features(size)
    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Linear(size.d, 512), nn.Dropout())
    model = nn.Sequential(*first, nn.Linear(512, 512), nn.Dropout(), nn.Linear(512, 10))
    wrapper = ModelWrapper(patch_module(model), TrainingArgs(batch_size=32, workers=0))
    predict, heuristic = wrapper.predict_on_dataset, BALD()
    if ours:
        stats = PoolStats(size.n, 10, track=("bald",))
        predict, heuristic = MonteCarlo(wrapper, stats), TrackedScore(stats, "bald")
    given = np.isin(np.arange(size.n), labeled)

    def select(k: int) -> np.ndarray:
        samples = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.zeros(size.n))
        dataset = ActiveLearningDataset(samples, labelled=given.astype(int))
        options = {"query_size": k, "iterations": 20, "verbose": False}
        torch.manual_seed(1)
        ActiveLearningLoop(dataset, predict, heuristic, **options).step()
        return np.flatnonzero(dataset.labelled & ~given)

    return select
