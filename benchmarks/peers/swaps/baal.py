"""``BALD`` and ``Entropy``: scores of a tracker of the predictions, ranked by baal's base class."""

import baal.active.heuristics as heuristics
import numpy as np
import torch
from baal.utils.array_utils import to_prob

from benchmarks.peers.swaps import use_tests
from dynal_fast import PoolStats
from dynal_fast.integrations.baal import TrackedScore


def through_a_tracker(score):
    class Through(TrackedScore):
        get_ranks = heuristics.AbstractHeuristic.get_ranks

        def __init__(self, shuffle_prop=heuristics.heuristics.DEPRECATED, reduction="none"):
            super().__init__(PoolStats(1, 2, track=(score,)), score)
            heuristics.AbstractHeuristic.__init__(self, shuffle_prop, True, reduction)

        def compute_score(self, predictions, target_predictions=None):
            predictions = np.asarray(predictions)
            if predictions.ndim == 2:
                predictions = predictions[:, :, None]
            if predictions.ndim != 3:
                raise ValueError(f"PoolStats takes one label a sample, got {predictions.shape}")
            n, classes, passes = predictions.shape
            logits = np.log(np.maximum(to_prob(predictions).astype(np.float64), 1e-300))
            self.stats = PoolStats(n, classes, track=(score,))
            for number in range(passes):
                with self.stats.observe(number + 1, passes):
                    self.stats.update(torch.arange(n), np.ascontiguousarray(logits[..., number]))
            return super().compute_score(np.arange(n))

    return Through


heuristics.BALD = through_a_tracker("bald")
heuristics.Entropy = through_a_tracker("predictive_entropy")
use_tests()
