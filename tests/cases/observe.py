"""A tracker that keeps what `observe_pool` gives it, pools and models to give it."""

from collections import UserDict, namedtuple
from collections.abc import MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
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


N = 11
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(1))
Named = namedtuple("Named", "inputs targets idx")


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding: a UserDict with something beside its data."""

    def __init__(self, data, encodings=None):
        super().__init__(data)
        self.encodings = encodings

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


@dataclass(frozen=True)
class Graphs:
    x: Tensor
    idx: Tensor
    name: str = "graphs"


class Linear(nn.Module):
    """Maps (batch, 6) to (batch, 3)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x)


class Keywords(Linear):
    """As models of Hugging Face: keywords in, an output with logits out."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        logits = self.linear(input_ids) * attention_mask[:, None]
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Output(logits, loss)


class TakesDict(Linear):
    """Takes one dict, and keeps what it was given."""

    def forward(self, batch):
        self.seen = batch
        return self.linear(batch["x"])


class Raises(nn.Module):
    """Must not be reached."""

    def forward(self, *args, **kwargs):
        raise AssertionError("the model was called")


def want():
    with torch.no_grad():
        return Linear()(X)


class OwnMapping(MutableMapping):
    """A mapping whose shallow copy shares its entries."""

    def __init__(self, entries):
        self.entries = dict(entries)

    def __getitem__(self, key):
        return self.entries[key]

    def __setitem__(self, key, value):
        self.entries[key] = value

    def __delitem__(self, key):
        del self.entries[key]

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)
