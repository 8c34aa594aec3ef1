"""Labels and mean probabilities of the training dynamics, given to cleanlab itself."""

import numpy as np
import pytest
import torch

from dynal_fast import PoolStats

pytest.importorskip("cleanlab", reason="cleanlab is not installed: make test-integrations")
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

N, C, EPOCHS = 300, 4, 5


@pytest.fixture(scope="module")
def observed():
    """A model that believes the true class, whatever the given label says."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(C, (N,), generator=generator)
    flipped = torch.randperm(N, generator=generator)[: N // 10]
    labels = truth.clone()
    labels[flipped] = (truth[flipped] + 1) % C
    stats = PoolStats(N, C, ("bald",), training_dynamics=True)
    for epoch in range(1, EPOCHS + 1):
        logits = 3 * torch.eye(C)[truth] + torch.randn(N, C, generator=generator)
        with stats.observe(epoch, EPOCHS):
            stats.update(torch.arange(N), logits, targets=labels)
    return stats, set(flipped.tolist())


def test_find_label_issues_takes_the_arrays(observed):
    stats, flipped = observed
    handed = stats.to_cleanlab()
    rows = find_label_issues(handed.labels, handed.pred_probs)
    found = set(handed.sample_ids[rows].tolist())
    assert len(found & flipped) >= 0.9 * len(flipped)
    assert len(found - flipped) <= 0.1 * len(found)


def test_self_confidence_is_our_confidence(observed):
    stats, _ = observed
    handed = stats.to_cleanlab()
    quality = get_label_quality_scores(
        handed.labels, handed.pred_probs, method="self_confidence", adjust_pred_probs=False
    )
    np.testing.assert_allclose(quality, stats.score("confidence")[handed.sample_ids], atol=1e-6)
