"""Lightning's callback beside the bare forward passes of the pool, in turns within one training.

    pytest benchmarks/bench_lightning.py --benchmark-only

Both read the same ``DataLoader``. The statistics are held against those of `observe_pool`, which
``bench_end_to_end.py`` holds against float64. ``DYNAL_FAST_BENCH_SCALE=0.1`` shrinks the pool.
"""

import statistics
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.machine import SCALE
from dynal_fast import EveryEpoch, PoolStats, observe_pool
from dynal_fast.models import LeNet

lightning = pytest.importorskip("lightning.pytorch")
from dynal_fast.integrations.lightning import PoolStatsCallback  # noqa: E402

N, BATCH, CLASSES, ROUNDS = int(5_000 * SCALE), 512, 10, 25
TRACK = ("prediction_stability", "label_dispersion", "margin")
AT_MOST = 0.03  # of the bare forward passes


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = LeNet((1, 28, 28), CLASSES)

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def new_stats():
    return PoolStats(N, CLASSES, track=TRACK, schedules={name: EveryEpoch() for name in TRACK})


class InTurns(lightning.Callback):
    """At the end of each epoch: the bare passes, and the callback."""

    def __init__(self, callback, loader):
        self.callback, self.loader = callback, loader
        self.want = new_stats()
        self.seconds = {"bare forward": [], "callback": []}

    def bare(self, module):
        module.eval()
        with torch.no_grad():
            for images, _ in self.loader:
                module(images)
        module.train()

    def on_train_epoch_end(self, trainer, pl_module):
        jobs = {
            "bare forward": lambda: self.bare(pl_module),
            "callback": lambda: self.callback.on_train_epoch_end(trainer, pl_module),
        }
        order = list(jobs) if trainer.current_epoch % 2 else [*jobs][::-1]
        for name in order:
            started = time.perf_counter()
            jobs[name]()
            self.seconds[name].append(time.perf_counter() - started)
        if trainer.current_epoch < 2:
            self.check(pl_module, trainer.current_epoch + 1)

    def check(self, module, epoch):
        """Two epochs observed by the callback are those of `observe_pool`."""
        images = self.loader.dataset.tensors[0]
        batches = [(ids, images[ids]) for ids in torch.arange(N).split(BATCH)]
        observe_pool(module, batches, self.want, epoch=epoch, num_epochs=ROUNDS, progress=False)
        for name in TRACK:
            assert torch.equal(self.callback.stats.score(name), self.want.score(name))


def in_turns():
    """Return the seconds of each round: bare passes, and the callback."""
    torch.manual_seed(0)
    pool = TensorDataset(torch.randn(N, 1, 28, 28), torch.zeros(N, dtype=torch.long))
    loader = DataLoader(pool, BATCH)
    both = InTurns(PoolStatsCallback(new_stats(), loader), loader)
    trainer = lightning.Trainer(
        max_epochs=ROUNDS,
        limit_train_batches=1,
        accelerator="cpu",
        callbacks=[both],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), DataLoader(pool, 16))
    return both.seconds


def test_the_callback_costs_little_beside_the_forward_passes(benchmark, report):
    benchmark.group = "Lightning: one epoch over the pool, LeNet, in turns"
    seconds = benchmark.pedantic(in_turns, rounds=1)
    bare, observed = seconds["bare forward"], seconds["callback"]
    overhead = statistics.median(o / b for b, o in zip(bare, observed, strict=True)) - 1
    benchmark.extra_info["overhead"] = overhead
    medians = f"{1e3 * statistics.median(bare):.0f} and {1e3 * statistics.median(observed):.0f} ms"
    report(f"{benchmark.group}: {medians}, the callback adds {overhead:.2%}")
    if SCALE == 1:
        assert overhead <= AT_MOST
