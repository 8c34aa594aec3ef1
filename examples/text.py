"""Texts: a linear head on features that are computed once, and the pool never encoded again.

With the folder ``package-synopses`` in ``DYNAL_FAST_DATA``, the texts are one-line descriptions of
50,000 software packages, with the embeddings of a language model, and the label is a package's
section. Without it they are the docstrings of Python's own library, as hashed words, and the label
is the module. ``embed_texts.py`` makes such embeddings of your texts. While the head trains,
``update_from_features`` folds its outputs over the pool into the statistics without storing a
logit, and prediction stability chooses what to label.

    pip install 'dynal_fast[experiment]'
    python examples/text.py
"""

import importlib
import inspect
import lzma
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from torch import nn

from dynal_fast import PoolStats

MODULES = (
    "argparse", "asyncio", "calendar", "collections", "datetime", "decimal", "email.message",
    "fractions", "http.client", "json", "logging", "pathlib", "shutil", "socket", "sqlite3",
    "statistics", "string", "tarfile", "threading", "unittest", "zipfile",
)  # fmt: skip
EPOCHS, CYCLES, BUDGET = 20, 4, 60


def docstrings() -> tuple[list[str], torch.Tensor]:
    """Return the texts and, int64 ``(texts,)``, the number of the module of each."""
    found: dict[str, int] = {}
    for label, name in enumerate(MODULES):
        for _, member in inspect.getmembers(importlib.import_module(name)):
            for _, part in [("", member), *inspect.getmembers(member, inspect.isroutine)]:
                text = getattr(part, "__doc__", None)
                if getattr(part, "__module__", None) == name and isinstance(text, str):
                    found.setdefault(text, label)
    return list(found), torch.tensor(list(found.values()))


def synopses(folder: Path) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Return the texts, float32 features ``(texts, 384)``, and int64 labels ``(texts,)``."""
    with lzma.open(folder / "synopses.tsv.xz", "rt", encoding="utf-8") as file:
        sections, _, texts = zip(*(line.rstrip("\n").split("\t") for line in file), strict=True)
    classes = sorted(set(sections))
    labels = torch.tensor([classes.index(section) for section in sections])
    return list(texts), torch.from_numpy(np.load(folder / "minilm-f16.npy")).float(), labels


def task() -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Return texts, features and labels: the real task where its files are."""
    folder = Path(os.environ.get("DYNAL_FAST_DATA", "../shared/data")) / "package-synopses"
    if folder.is_dir():
        return synopses(folder)
    texts, labels = docstrings()
    encoder = HashingVectorizer(n_features=1024, stop_words="english")
    return texts, torch.tensor(encoder.transform(texts).toarray(), dtype=torch.float32), labels


def main(cycles: int = CYCLES) -> list[float]:
    """Return the accuracy on held-out texts after each cycle."""
    torch.manual_seed(0)
    texts, features, labels = task()
    num_classes = int(labels.max()) + 1
    order = torch.randperm(len(texts))
    test, pool = order[: len(texts) // 5], order[len(texts) // 5 :]
    print(f"{len(pool)} texts to choose from, {len(test)} to test on, {num_classes} classes")

    pool_features, pool_labels = features[pool], labels[pool]
    labeled = torch.randperm(len(pool))[:BUDGET]
    accuracies = []
    for cycle in range(cycles):
        head = nn.Linear(features.shape[1], num_classes)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        stats = PoolStats(len(pool), num_classes, track=("prediction_stability",))
        for epoch in range(1, EPOCHS + 1):
            for batch in labeled[torch.randperm(len(labeled))].split(16):
                loss = nn.functional.cross_entropy(head(pool_features[batch]), pool_labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if stats.observes(epoch, EPOCHS):
                with stats.observe(epoch, EPOCHS), torch.no_grad():
                    for ids in torch.arange(len(pool)).split(512):
                        stats.update_from_features(ids, pool_features[ids], head.weight, head.bias)
        correct = head(features[test]).argmax(1) == labels[test]
        accuracies.append(correct.float().mean().item())
        print(f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%")

        unlabeled = torch.ones(len(pool), dtype=torch.bool)
        unlabeled[labeled] = False
        picks = stats.select("prediction_stability", BUDGET, candidates=unlabeled)
        labeled = torch.cat([labeled, picks])
    for pick in picks[:3]:
        print("to label next:", texts[pool[pick]].strip().splitlines()[0])
    return accuracies


if __name__ == "__main__":
    main()
