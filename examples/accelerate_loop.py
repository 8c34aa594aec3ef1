"""Active learning in a loop that Accelerate prepared: the lines that observe the pool are marked.

A loop of your own needs nothing but ``observe_pool``, with Accelerate or without. The prepared
model has Accelerate's mixed precision inside.

    pip install 'dynal_fast[experiment,transformers]'
    python examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from dynal_fast import PoolStats, observe_pool

BUDGET = 50


def main(cycles: int = 3, epochs: int = 20) -> list[float]:
    """Return the test accuracy after each cycle."""
    torch.manual_seed(0)
    accelerator = Accelerator()
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    pool = TensorDataset(torch.arange(1400), images[:1400], labels[:1400])
    test = images[1400:].to(accelerator.device), labels[1400:].to(accelerator.device)
    labeled = torch.randperm(1400)[:BUDGET].tolist()
    accuracies = []
    for cycle in range(cycles):
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        loader = DataLoader(Subset(pool, labeled), batch_size=16, shuffle=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        pool_loader = DataLoader(pool, batch_size=256)
        stats = PoolStats(1400, 10, track=("label_dispersion",), device=accelerator.device)  # 1
        for epoch in range(1, epochs + 1):
            for _, inputs, targets in loader:
                optimizer.zero_grad()
                accelerator.backward(nn.functional.cross_entropy(model(inputs), targets))
                optimizer.step()
            observe_pool(model, pool_loader, stats, epoch=epoch, num_epochs=epochs, ids=0)  # 2

        with torch.no_grad():
            correct = model.eval()(test[0]).argmax(1) == test[1]
        accuracies.append(correct.float().mean().item())
        print(f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%")

        stats.drop(labeled)
        labeled += stats.select("label_dispersion", BUDGET).tolist()  # 3
    return accuracies


if __name__ == "__main__":
    main()
