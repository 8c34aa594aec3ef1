"""A frozen backbone: features once, on disk; every epoch observes the pool without it.

The features of the whole pool are computed in one pass and written to a memory-mapped file. From
then on a linear head is trained on them, and ``update_from_features(..., by_id=True)`` reads the
rows of that file where they are. At the end an epoch's pass over the pool is timed beside the
forward pass of the backbone that it replaces.

    pip install 'dynal_fast[experiment]'
    python examples/frozen_backbone.py

With a file of embeddings and one label a line, the backbone is left out:

    python examples/frozen_backbone.py minilm-f16.npy labels.txt
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dynal_fast import PoolStats, embedding_store, load_embeddings, observe_pool

EPOCHS, BUDGET, INITIAL = 10, 60, 60


def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a backbone, images (n, 1, 32, 32) and their labels (n)."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    torch.manual_seed(0)  # its random convolutions stand for a pretrained network
    backbone = nn.Sequential(
        nn.Upsample(scale_factor=4),
        nn.Conv2d(1, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(64, 48, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(768, 10),  # its input is the embedding
    )
    return backbone, images, torch.tensor(bunch.target)


def features_of(backbone: nn.Module, images: Tensor, path: Path) -> float:
    """Write the embeddings of all images to ``path``, float16; return the seconds of the pass."""
    n = len(images)
    store = embedding_store(backbone, n, dtype=torch.float16, path=path)
    pool = [(ids, images[ids]) for ids in torch.arange(n).split(256)]
    start = time.perf_counter()
    once = PoolStats(n, 10, track=("margin",))  # the scores of the pretrained head are not used
    observe_pool(backbone, pool, once, epoch=1, num_epochs=1, embeddings=store, accelerate="fold")
    return time.perf_counter() - start


def main(features: str | None = None, labels: str | None = None, cycles: int = 3) -> list[float]:
    """Return the accuracy over the pool after each cycle."""
    with tempfile.TemporaryDirectory() as folder:
        if features is None or labels is None:
            backbone, images, targets = digits()
            features = str(Path(folder) / "features.npy")
            seconds = features_of(backbone, images, Path(features))
            print(f"the backbone's pass over {len(images)} images: {1000 * seconds:.1f} ms, once")
        else:
            names = Path(labels).read_text(encoding="utf-8").splitlines()
            targets = torch.tensor(np.unique(names, return_inverse=True)[1])
        store = load_embeddings(features).array  # a memory map, read-only
        return run(store, targets, cycles)


def run(store: np.ndarray, targets: Tensor, cycles: int) -> list[float]:
    """Train a head on more and more labels, observing the pool after every epoch."""
    n, classes = len(store), int(targets.max()) + 1
    torch.manual_seed(0)
    labeled = torch.randperm(n)[:INITIAL]
    accuracies = []
    for cycle in range(cycles):
        head = nn.Linear(store.shape[1], classes)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        stats = PoolStats(n, classes, track=("label_dispersion",))
        seconds = 0.0
        inputs = torch.from_numpy(store[np.asarray(labeled)].astype(np.float32))
        for epoch in range(1, EPOCHS + 1):
            for batch in torch.randperm(len(labeled)).split(32):
                loss = nn.functional.cross_entropy(head(inputs[batch]), targets[labeled[batch]])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            start = time.perf_counter()
            with torch.no_grad(), stats.observe(epoch, EPOCHS):
                stats.update_from_features(
                    torch.arange(n), store, head.weight, head.bias, by_id=True
                )
            seconds += time.perf_counter() - start
        with torch.no_grad():
            right = head(torch.from_numpy(store.astype(np.float32))).argmax(1) == targets
        accuracies.append(right.float().mean().item())
        print(
            f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%; a pass "
            f"over {n} rows of the file: {1000 * seconds / EPOCHS:.1f} ms"
        )
        unlabeled = torch.ones(n, dtype=torch.bool)
        unlabeled[labeled] = False
        picks = stats.select("label_dispersion", BUDGET, candidates=unlabeled)
        labeled = torch.cat([labeled, picks])
    return accuracies


if __name__ == "__main__":
    main(*sys.argv[1:3])
