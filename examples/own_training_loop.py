"""Active learning in a training loop of your own: three cycles on handwritten digits.

Each cycle trains a new model on what is labeled. After every epoch the pool streams through it, and
the samples whose predicted label changed most (label dispersion) are labeled next.

    pip install 'dynal_fast[experiment]'
    python examples/own_training_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynal_fast import PoolStats, observe_pool

CYCLES, BUDGET = 3, 50


def main(strategy: str = "label_dispersion", epochs: int = 30) -> list[float]:
    """Return the test accuracy after each cycle."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    pool, test = slice(0, 1400), slice(1400, None)

    pool_loader = DataLoader(TensorDataset(torch.arange(1400), images[pool]), batch_size=256)
    labeled = torch.randperm(1400)[:BUDGET]
    accuracies = []
    for cycle in range(CYCLES):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        stats = PoolStats(1400, num_classes=10, track=(strategy,))
        for epoch in range(1, epochs + 1):
            for batch in labeled[torch.randperm(len(labeled))].split(16):
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            observe_pool(model, pool_loader, stats, epoch=epoch, num_epochs=epochs, progress=False)

        correct = model(images[test]).argmax(1) == labels[test]
        accuracies.append(correct.float().mean().item())
        print(f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%")

        unlabeled = torch.ones(1400, dtype=torch.bool)
        unlabeled[labeled] = False
        picks = stats.select(strategy, BUDGET, candidates=unlabeled)
        labeled = torch.cat([labeled, picks])  # here a person labels the picks
    return accuracies


if __name__ == "__main__":
    main()
