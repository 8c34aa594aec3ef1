"""Active learning in a Lightning training: the three lines that observe the pool are marked.

pip install 'dynal_fast[experiment,lightning]'
python examples/lightning_trainer.py
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from dynal_fast import PoolStats
from dynal_fast.integrations.lightning import PoolStatsCallback

BUDGET = 50


class Classifier(lightning.LightningModule):
    """Any module: nothing in it knows of the pool."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images):
        """Return the logits."""
        return self.layers(images)

    def training_step(self, batch, index):
        """Return the loss of a batch."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(cycles: int = 3, epochs: int = 20) -> list[float]:
    """Return the test accuracy after each cycle."""
    lightning.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    pool, test = TensorDataset(images[:1400], labels[:1400]), (images[1400:], labels[1400:])
    labeled = torch.randperm(1400)[:BUDGET].tolist()
    accuracies = []
    for cycle in range(cycles):
        module = Classifier()
        stats = PoolStats(1400, num_classes=10, track=("label_dispersion",))  # 1
        observe = PoolStatsCallback(stats, DataLoader(pool, batch_size=256))  # 2
        trainer = lightning.Trainer(
            max_epochs=epochs,
            callbacks=[observe],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(Subset(pool, labeled), batch_size=16, shuffle=True))

        correct = module.eval()(test[0]).argmax(1) == test[1]
        accuracies.append(correct.float().mean().item())
        print(f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%")

        stats.drop(labeled)
        labeled += stats.select("label_dispersion", BUDGET).tolist()  # 3
    return accuracies


if __name__ == "__main__":
    main()
