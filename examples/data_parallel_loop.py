"""Active learning in a data-parallel loop: the lines that ranks keep the statistics by are marked.

Each rank holds the statistics of its part of the pool and observes that part; the picks are those
of one process, and the same on every rank.

    torchrun --nproc-per-node 2 examples/data_parallel_loop.py
"""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from dynal_fast import PoolShardSampler, PoolStats, observe_pool

BUDGET = 50


def main(cycles: int = 3, epochs: int = 20) -> list[float]:
    """Return the test accuracy after each cycle, the same on every rank."""
    if "RANK" in os.environ:  # under torchrun
        dist.init_process_group("gloo")  # "nccl" on GPUs
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    pool = TensorDataset(torch.arange(1400), images[:1400], labels[:1400])
    labeled = torch.randperm(1400)[:BUDGET].tolist()
    accuracies = []
    for cycle in range(cycles):
        model = DistributedDataParallel(
            nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        train = Subset(pool, labeled)
        sampler = DistributedSampler(train)
        loader = DataLoader(train, batch_size=8, sampler=sampler)
        stats = PoolStats(1400, 10, track=("label_dispersion",), group=dist.group.WORLD)  # 1
        stats.drop(labeled)
        pool_loader = DataLoader(pool, batch_size=256, sampler=PoolShardSampler(stats))  # 2
        for epoch in range(1, epochs + 1):
            sampler.set_epoch(epoch)
            for _, inputs, targets in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            observe_pool(model, pool_loader, stats, epoch=epoch, num_epochs=epochs, ids=0)

        with torch.no_grad():
            correct = model.module(images[1400:]).argmax(1) == labels[1400:]
        accuracies.append(correct.float().mean().item())
        if dist.get_rank() == 0:
            print(f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%")
        labeled += stats.select("label_dispersion", BUDGET).tolist()
    dist.destroy_process_group()
    return accuracies


if __name__ == "__main__":
    main()
