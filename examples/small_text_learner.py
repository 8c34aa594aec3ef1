"""Texts in small-text: its learner, its classifier, and farthest-first in place of its core-set.

With the folder ``package-synopses`` in ``DYNAL_FAST_DATA``, the texts are one-line descriptions of
software packages, with the embeddings of a language model, and the label is a package's section,
one of the ten largest. Without it they are scikit-learn's bundled digits, whose pixels stand in for
embeddings. ``embed_texts.py`` makes such embeddings of your texts.

    pip install 'dynal_fast[small-text]'
    python examples/small_text_learner.py
"""

import lzma
import os
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from small_text import PoolBasedActiveLearner, SklearnClassifierFactory, SklearnDataset

from dynal_fast.integrations.small_text import FarthestFirst

CYCLES, BUDGET, MOST = 4, 60, 5000


def task(most: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, float32 embeddings ``(texts, d)`` and int64 labels, of ``most`` texts."""
    folder = Path(os.environ.get("DYNAL_FAST_DATA", "../shared/data")) / "package-synopses"
    if folder.is_dir():
        with lzma.open(folder / "synopses.tsv.xz", "rt", encoding="utf-8") as file:
            sections, _, texts = zip(*(line.rstrip("\n").split("\t") for line in file), strict=True)
        largest = [section for section, _ in Counter(sections).most_common(10)]
        kept = np.flatnonzero(np.isin(sections, largest))
        embeddings = np.load(folder / "minilm-f16.npy")[kept].astype(np.float32)
        texts, labels = [texts[i] for i in kept], np.array(sections)[kept]
    else:
        digits = load_digits()
        embeddings, labels = digits.data.astype(np.float32) / 16, digits.target
        texts = [f"digit {number}" for number in range(len(labels))]
    chosen = np.random.default_rng(0).permutation(len(texts))[:most]
    classes = np.unique(labels, return_inverse=True)[1]
    return [texts[number] for number in chosen], embeddings[chosen], classes[chosen]


def main(cycles: int = CYCLES, most: int = MOST) -> list[float]:
    """Return the accuracy on held-out texts after each cycle."""
    texts, embeddings, labels = task(most)
    num_classes, split = int(labels.max()) + 1, len(texts) // 5
    test = SklearnDataset(embeddings[:split], labels[:split], target_labels=np.arange(num_classes))
    texts, embeddings, labels = texts[split:], embeddings[split:], labels[split:]
    pool = SklearnDataset(embeddings, labels, target_labels=np.arange(num_classes))
    print(f"{len(pool)} texts to choose from, {len(test)} to test on, {num_classes} classes")

    classifier = SklearnClassifierFactory(LogisticRegression(C=10, max_iter=200), num_classes)
    learner = PoolBasedActiveLearner(classifier, FarthestFirst(), pool)
    each = BUDGET // num_classes  # small-text's classifier has to see every class
    picks = np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(num_classes)])
    learner.initialize_data(picks, labels[picks])
    accuracies = []
    for cycle in range(cycles):
        accuracies.append(float((learner.classifier.predict(test) == test.y).mean()))
        known = BUDGET * (cycle + 1)
        print(f"cycle {cycle}: {known} labels, accuracy {100 * accuracies[-1]:.1f}%")
        given = {"embeddings": embeddings}
        picks = learner.query(num_samples=BUDGET, query_strategy_kwargs=given)
        if cycle + 1 < cycles:
            learner.update(labels[picks])
    for pick in picks[:3]:
        print("to label next:", texts[pick])
    return accuracies


if __name__ == "__main__":
    main()
