"""Embeddings and logits to measure on: easy, hostile and real ones."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynal_fast.data import load
from dynal_fast.data.cache import cached_arrays

Embeddings = NDArray[np.float32]


def clustered(n: int, d: int, seed: int = 0, *, components: int = 100) -> Embeddings:
    """A mixture of Gaussians behind a ReLU layer (n, d), like the features of a trained network.

    The mixture has 64 dimensions, its centers spread twice as far as its components.

    >>> clustered(5, 3).shape
    (5, 3)
    """
    layer = np.random.default_rng(12345)
    centers = 2 * layer.standard_normal((components, 64), dtype=np.float32)
    weight = layer.standard_normal((64, d), dtype=np.float32) / 8
    bias = 0.1 * layer.standard_normal(d, dtype=np.float32)
    rng = np.random.default_rng(seed)
    features = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 8192):
        rows = min(8192, n - start)
        latent = centers[rng.integers(components, size=rows)]
        latent = latent + rng.standard_normal((rows, 64), dtype=np.float32)
        np.maximum(latent @ weight + bias, 0, out=features[start : start + rows])
    return features


def gaussian(n: int, d: int, seed: int = 0) -> Embeddings:
    """Independent standard Gaussian features (n, d): the worst case for any pruning."""
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def bootstrap(n: int, d: int, seed: int = 0) -> Embeddings:
    """A pool inflated by drawing with replacement (n, d): many exact duplicates."""
    rng = np.random.default_rng(seed)
    originals = max(n // 3, 1)
    return clustered(originals, d, seed)[rng.integers(originals, size=n)]


def flipped(n: int, d: int, seed: int = 0) -> Embeddings:
    """A pool doubled by an augmentation (n, d): row ``i + n // 2`` lies very close to row ``i``."""
    originals = clustered(n - n // 2, d, seed)
    nudge = np.random.default_rng(seed + 1).standard_normal((n // 2, d), dtype=np.float32)
    return np.concatenate([originals, originals[: n // 2] + 0.02 * nudge])


def digits(n: int, d: int, seed: int = 0) -> Embeddings:
    """The pixels of scikit-learn's 1,797 digits (n, 64), shuffled by ``seed``."""
    from sklearn.datasets import load_digits

    images = load_digits().data.astype(np.float32)
    if n > len(images) or d != images.shape[1]:
        raise ValueError(
            f"digits has {images.shape[0]} samples with {images.shape[1]} features, asked {n}, {d}"
        )
    return images[np.random.default_rng(seed).permutation(len(images))[:n]]


def data_folder() -> Path:
    """The folder of real data: ``DYNAL_FAST_DATA``, else ``../shared/data``."""
    return Path(os.environ.get("DYNAL_FAST_DATA", "../shared/data"))


def cache_folder() -> Path:
    """The folder that caches embeddings that take long to make."""
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(home) / "dynal_fast"


def lenet_mnist(n: int, d: int, seed: int = 0) -> Embeddings:
    """LeNet's hidden layer on MNIST (n, 512), trained on the last 10,000 of the 60,000 images.

    Seed 0 gives the first n images; another seed gives the last n, the labeled ones. Training and
    embedding happen once; the embeddings are cached in ``cache_folder()``.
    """
    embeddings = cached_arrays(
        cache_folder(), "lenet-mnist", ("embeddings",), lambda: {"embeddings": _train_and_embed()}
    )["embeddings"]
    if n > len(embeddings) or d != embeddings.shape[1]:
        raise ValueError(f"the MNIST embeddings have shape {embeddings.shape}, asked ({n}, {d})")
    return np.ascontiguousarray(embeddings[:n] if seed == 0 else embeddings[len(embeddings) - n :])


def _train_and_embed() -> Embeddings:
    import torch

    from dynal_fast.models import LeNet, embed

    mnist = load("mnist", data_folder())
    images = torch.from_numpy(np.asarray(mnist.train_images)).float().div_(255)
    labels = torch.from_numpy(np.asarray(mnist.train_labels)).long()
    torch.manual_seed(0)
    model = LeNet((1, 28, 28), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        for ids in (50_000 + torch.randperm(10_000)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[ids]), labels[ids]).backward()
            optimizer.step()
    model.eval()
    return torch.cat([embed(model, batch) for batch in images.split(1000)]).numpy()


def minilm_synopses(n: int, d: int, seed: int = 0) -> Embeddings:
    """MiniLM's embeddings of 50,000 lines of text, shuffled (n, 384): of a transformer.

    Seed 0 gives the first n of them; another seed gives the last n, the labeled ones.
    """
    rows = np.load(data_folder() / SYNOPSES, mmap_mode="r")
    if n > len(rows) or d != rows.shape[1]:
        raise ValueError(f"the MiniLM embeddings have shape {rows.shape}, asked ({n}, {d})")
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order[:n] if seed == 0 else order[len(rows) - n :]].astype(np.float32)


SYNOPSES = Path("package-synopses", "minilm-f16.npy")


def lacking(name: str) -> str:
    """Why the files of a generator in ``EMBEDDINGS`` are missing; empty where they are not."""
    folder, kept = data_folder(), cache_folder() / "lenet-mnist"
    mnist = any(found.exists() for found in (kept, folder / "mnist", folder / "MNIST"))
    if name == "lenet-mnist" and not mnist:
        return f"MNIST is not in {os.fspath(folder)} (DYNAL_FAST_DATA)"
    if name == "minilm-synopses" and not (folder / SYNOPSES).exists():
        return f"{SYNOPSES} is not in {os.fspath(folder)} (DYNAL_FAST_DATA)"
    return ""


EMBEDDINGS: dict[str, Callable[[int, int, int], Embeddings]] = {
    "clustered": clustered,
    "gaussian": gaussian,
    "bootstrap": bootstrap,
    "flipped": flipped,
    "digits": digits,
    "lenet-mnist": lenet_mnist,
    "minilm-synopses": minilm_synopses,
}


def logits(n: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Logits (n, classes) of a network that is certain of some samples and unsure of others."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, classes), dtype=np.float32)
    values *= rng.uniform(0.5, 4, size=(n, 1)).astype(np.float32)
    return values
