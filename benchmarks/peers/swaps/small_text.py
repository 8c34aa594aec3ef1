"""``GreedyCoreset`` and its function, for tests that import them."""

import importlib

from benchmarks.peers.swaps import use_tests
from dynal_fast import farthest_first

use_tests(first=True)
strategies = importlib.import_module("small_text.query_strategies")

from dynal_fast.integrations.small_text import (  # noqa: E402
    DISTANCE_METRICS,
    FarthestFirst,
)


def greedy_coreset(
    x, indices_unlabeled, indices_labeled, n, distance_metric="cosine", batch_size=100,
    normalized=False,
):  # fmt: skip
    """Return positions in ``indices_unlabeled``, as small-text's function does."""
    if distance_metric not in DISTANCE_METRICS:
        raise ValueError(f"Invalid distance metric: {distance_metric}")
    rows = x[indices_unlabeled], x[indices_labeled]
    return farthest_first(rows[0], n, rows[1], metric=distance_metric).indices.numpy()


strategies.greedy_coreset = greedy_coreset
strategies.GreedyCoreset = FarthestFirst
