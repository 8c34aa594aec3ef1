"""Which labels are wrong? A tenth of the digits' labels are flipped, and the training tells which.

The statistics are folded in from the training batches as they go by, without a second forward pass:
a few numbers per sample, no history of epochs. If cleanlab is installed, its scores of the same
training stand beside.

    pip install 'dynal_fast[experiment]'
    python examples/noisy_labels.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from dynal_fast import PoolStats


def main(epochs: int = 30, flipped_share: float = 0.1) -> dict[str, float]:
    """Return, for each score, the share of flipped labels among the 10% that it suspects most."""
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    n = len(labels)
    flipped = torch.randperm(n, generator=generator)[: round(flipped_share * n)]
    wrong = torch.randint(1, 10, (len(flipped),), generator=generator)
    labels[flipped] = (labels[flipped] + wrong) % 10

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    # predictive statistics such as bald keep the mean of the probabilities, for cleanlab
    stats = PoolStats(n, 10, track=("bald",), training_dynamics=True)
    for epoch in range(1, epochs + 1):
        with stats.observe(epoch, epochs):
            for batch in torch.randperm(n, generator=generator).split(32):
                logits = model(images[batch])
                stats.update(batch, logits.detach(), targets=labels[batch])
                loss = nn.functional.cross_entropy(logits, labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    suspects = n // 10
    picks = {name: stats.select(name, suspects) for name in ("aum", "confidence", "el2n")}
    picks |= of_cleanlab(stats, suspects)
    found = {name: torch.isin(ids, flipped).float().mean().item() for name, ids in picks.items()}
    for name, share in found.items():
        print(f"{name:30} {100 * share:5.1f}% of its {suspects} suspects are flipped")
    return found


def of_cleanlab(stats: PoolStats, suspects: int) -> dict[str, torch.Tensor]:
    """Return the samples of the lowest quality by cleanlab's scores, where it is installed."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return {}
    handed = stats.to_cleanlab()
    picks = {}
    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(handed.labels, handed.pred_probs, method=method)
        picks[f"cleanlab, {method}"] = torch.from_numpy(handed.sample_ids[quality.argsort()])
    return {name: ids[:suspects] for name, ids in picks.items()}


if __name__ == "__main__":
    main()
