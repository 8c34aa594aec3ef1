"""A tracker that keeps what `observe_pool` gives it, and pools to give it."""

from contextlib import contextmanager

import torch
from torch.utils.data import Dataset

from dynal_fast import observe_pool


class Recorder:
    """A tracker that keeps what it is given."""

    def __init__(self, wanted=True, fail_at=None):
        self.wanted = wanted
        self.fail_at = fail_at
        self.epochs = []
        self.passes = []
        self.partial = []
        self.left = 0

    def observes(self, epoch, num_epochs):
        return self.wanted

    @contextmanager
    def observe(self, epoch, num_epochs, partial=False):
        self.epochs.append((epoch, num_epochs))
        self.passes.append([])
        self.partial.append(partial)
        yield
        self.left += 1

    def update(self, sample_ids, logits, teacher_logits=None):
        if self.fail_at == len(self.passes[-1]):
            raise RuntimeError("planted")
        assert not torch.is_grad_enabled()
        self.passes[-1].append((sample_ids, logits, teacher_logits))

    def ids(self, pass_index=0):
        """Ids of one pass as they came."""
        return torch.cat([batch[0] for batch in self.passes[pass_index]]).tolist()

    def outputs(self, which=1, pass_index=0):
        """Outputs of one pass in the order of the ids."""
        batches = self.passes[pass_index]
        ids = torch.cat([batch[0] for batch in batches])
        return torch.cat([batch[which] for batch in batches])[ids.argsort()]


class Images(Dataset):
    def __init__(self, n=23, seed=0):
        self.images = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return i, self.images[i]


def run(model, pool, stats=None, **options):
    stats = stats or Recorder()
    assert observe_pool(model, pool, stats, epoch=1, num_epochs=2, **options) is True
    assert stats.left == len(stats.passes)
    return stats
