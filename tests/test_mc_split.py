"""MC dropout from the first active dropout on: the passes of the whole model, at a lower price."""

import errno
import io
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from dynal_fast import Accelerator, PoolStats, observe_pool
from dynal_fast.models import build_model
from dynal_fast.pool import in_parts, mc_dropout, mc_kept, mc_passes, mc_split
from dynal_fast.pool.containers import tensors_in
from dynal_fast.pool.forward import model_call
from dynal_fast.pool.mc_split import DropoutSplit
from dynal_fast.pool.trace import UntraceableError
from tests.cases.observe import Recorder

PASSES, N, CLASSES = 4, 13, 5


class Attention(nn.Module):
    """A deterministic part, attention with dropout, and a function's dropout that is always on."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(36)
        self.layer = nn.TransformerEncoderLayer(36, 2, 8, batch_first=True)
        self.head = nn.Linear(36, CLASSES)

    def forward(self, x):
        x = self.layer(self.norm(x.flatten(2)))
        return {"logits": self.head(functional.dropout(x.mean(1), 0.2, True))}


class TwoWays(nn.Module):
    """What the dropout is given is read again after it, and the dropout works in place."""

    def __init__(self):
        super().__init__()
        self.body, self.other = nn.Linear(36, 8), nn.Linear(36, 8)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = x.flatten(1)[:, :36]
        first = self.body(x).relu()
        return self.head(self.drop(first + self.other(x)) + first)


MODELS = {
    "attention": Attention,
    "cnn": lambda: build_model("cnn", (4, 6, 6), CLASSES),
    "lenet": lambda: build_model("lenet", (4, 6, 6), CLASSES),
    "resnet18-dropout": lambda: build_model("resnet18-dropout", (4, 6, 6), CLASSES),
    "two ways": TwoWays,
}


def made(name):
    torch.manual_seed(0)
    return MODELS[name]()


def pool(batch=5):
    images = torch.randn(N, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    return [(ids, images[ids]) for ids in torch.arange(N).split(batch)]


def passes(model, accelerate="off", seed=3, count=PASSES, batch=5):
    torch.manual_seed(seed)
    tracker = Recorder()
    observe_pool(
        model,
        pool(batch),
        tracker,
        epoch=1,
        num_epochs=1,
        mc_passes=count,
        accelerate=accelerate,
        progress=False,
    )
    return [tracker.outputs(1, index) for index in range(count)], torch.get_rng_state()


@pytest.mark.parametrize("name", MODELS)
def test_the_passes_are_those_of_the_whole_model_bit_for_bit(name, monkeypatch):
    model = made(name)
    runs = []
    plain = DropoutSplit.before

    def before(self, inputs):
        runs.append(len(inputs))
        return plain(self, inputs)

    monkeypatch.setattr(DropoutSplit, "before", before)
    ours, state = passes(model)
    assert runs == [5, 5, 5, 3]  # once to check, then each batch once
    assert not torch.equal(ours[0], ours[1])

    def refuses(*arguments):
        raise UntraceableError("planted")

    monkeypatch.setattr(mc_passes, "DropoutSplit", refuses)
    whole, other = passes(model)
    assert all(map(torch.equal, ours, whole))
    assert torch.equal(state, other)
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("name", ["cnn", "resnet18-dropout"])
def test_a_folded_model_gives_the_same_passes_up_to_rounding(name):
    model, accelerator = made(name), Accelerator("fold")
    ours, whole = passes(model, accelerator)[0], passes(model)[0]
    assert accelerator.used == "fold"
    for one, other in zip(ours, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("room", "runs"), [("file", 4), ("no file", 13), ("full disk", 13)])
@pytest.mark.parametrize("name", ["lenet", "two ways", "attention"])
def test_a_pool_beyond_memory_is_kept_in_a_file_or_passed_whole(name, room, runs, monkeypatch):
    model = made(name)
    kept, state = passes(model)
    batch = sum(t.nbytes for t in _before_of(model, pool()[0][1]))
    monkeypatch.setattr(mc_kept, "MEMORY_BYTES", batch)  # one of three batches
    files = []

    def opened():
        files.append(FullDisk() if room == "full disk" else io.BytesIO())
        return files[-1]

    monkeypatch.setattr(mc_kept, "FILE_BYTES", 0 if room == "no file" else 1 << 20)
    monkeypatch.setattr(mc_kept.tempfile, "TemporaryFile", opened)
    count, plain = [], DropoutSplit.before
    monkeypatch.setattr(
        DropoutSplit, "before", lambda self, inputs: (count.append(1), plain(self, inputs))[1]
    )
    ours, other = passes(model)
    assert all(map(torch.equal, ours, kept))
    assert torch.equal(state, other)
    assert len(count) == runs  # once to check
    assert [file.closed for file in files] == [True] * (room != "no file")


def test_the_file_is_closed_where_a_later_pass_fails(monkeypatch):
    model, files, plain, runs = made("lenet"), [], DropoutSplit.after, []

    def opened():
        files.append(io.BytesIO())
        return files[-1]

    def after(self, values, rows):
        runs.append(rows)
        if len(runs) > 5:  # in the second pass: one to check, three in the first
            raise MemoryError("too much")
        return plain(self, values, rows)

    monkeypatch.setattr(mc_kept, "MEMORY_BYTES", 0)
    monkeypatch.setattr(mc_kept.tempfile, "TemporaryFile", opened)
    monkeypatch.setattr(DropoutSplit, "after", after)
    with pytest.raises(MemoryError, match="too much"):
        passes(model)
    assert [file.closed for file in files] == [True]


def _before_of(model, inputs):
    layers = mc_dropout.dropout_layers(model.eval())
    for layer in layers.values():
        layer.training = True
    with torch.no_grad():
        values = DropoutSplit(model, model_call(), inputs, folds=False).before(inputs)
    model.train()
    return tensors_in(values)


def test_kept_tensors_come_back_as_they_were(monkeypatch):
    monkeypatch.setattr(mc_kept, "MEMORY_BYTES", 0)
    images = torch.randn(2, 3, 4, 5)
    values = (
        images.contiguous(memory_format=torch.channels_last),
        {"half": images.bfloat16()[..., :3], "mask": images > 0, "size": 7},
        torch.empty(0, 2),
    )
    kept = mc_kept.KeptBatches()
    for index in range(2):
        assert kept.add(torch.tensor([index]), values)
    for _ in range(2):
        for index, (ids, (channels, others, empty)) in enumerate(kept):
            assert ids.tolist() == [index]
            assert channels.stride() == values[0].stride()
            assert torch.equal(channels, values[0])
            assert torch.equal(others["half"], values[1]["half"])
            assert torch.equal(others["mask"], values[1]["mask"])
            assert others["size"] == 7
            assert empty.shape == (0, 2)
    kept.close()
    assert list(kept) == []


def test_the_distribution_is_that_of_plain_passes():
    """BALD of 200 passes: the mean over samples agrees within four standard errors."""
    model = made("lenet")
    inputs = pool(N)[0][1]
    scores = []
    for seed in range(2):
        torch.manual_seed(seed)
        stats = PoolStats(N, CLASSES, track=("bald",))
        if seed == 0:
            observe_pool(model, pool(), stats, epoch=1, num_epochs=1, mc_passes=200, progress=False)
        else:
            for _ in range(200):
                with torch.no_grad(), stats.observe(1, 1):
                    stats.update(torch.arange(N), model.train()(inputs))
        scores.append(stats.score("bald"))
    difference = scores[0] - scores[1]
    assert abs(difference.mean()) < 4 * difference.std() / N**0.5
    assert (difference.abs() < 0.3 * scores[1]).all()


class AtOnce(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Dropout(), nn.Flatten(), nn.Linear(144, CLASSES))


class Branches(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(144, 6), nn.Dropout(), nn.Linear(6, CLASSES))

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (AtOnce, "its dropout is at its beginning"),
        (Branches, "torch.fx cannot trace it"),
    ],
)
def test_what_cannot_be_cut_is_passed_whole(model, why):
    model, accelerator = model(), Accelerator("fold")
    ours = passes(model, accelerator)[0]
    assert (accelerator.used, accelerator.reason[: len(why)]) == ("off", why)
    torch.manual_seed(3)
    model.train()
    with torch.no_grad():
        for one in ours:
            assert torch.equal(one, torch.cat([model(inputs) for _, inputs in pool()]))


def test_random_functions_are_found_by_name():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x):
            x = functional.normalize(self.one(x))
            return self.two(x + torch.rand_like(x))

    split = DropoutSplit(Noise().eval(), model_call(), torch.ones(2, 6), folds=False)
    (before,) = split.before(torch.ones(2, 6))
    assert before.detach().norm(dim=1) == pytest.approx([1, 1])
    assert not torch.equal(split.after((before,), 2), split.after((before,), 2))
    with pytest.raises(UntraceableError, match="its graph shows no dropout"):
        DropoutSplit(nn.Linear(6, 2).eval(), model_call(), torch.ones(2, 6), folds=False)
    assert mc_split.DRAWS


class Spatial(nn.Module):
    """Dropout of single activations of an image, between convolutions."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
        self.drop, self.two = nn.Dropout(0.3), nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x):
        x = self.drop(self.norm(self.one(x)).relu())
        return self.head(self.drop(self.two(x)).relu().mean((2, 3)))


def test_a_folded_image_is_dropped_in_the_order_of_the_model():
    torch.manual_seed(0)
    model, accelerator = Spatial(), Accelerator("fold")
    whole, state = passes(model)
    ours, other = passes(model, accelerator)
    assert (accelerator.used, accelerator.reason) == ("fold", "")
    assert torch.equal(state, other)
    for one, two in zip(ours, whole, strict=True):
        torch.testing.assert_close(one, two)


def test_what_comes_before_the_dropout_runs_in_parts(monkeypatch):
    model = made("cnn")
    whole, state = passes(model, Accelerator("fold"))
    monkeypatch.setattr(in_parts, "PART_BYTES", 12000)
    taken = []
    plain = mc_split.parts_of
    monkeypatch.setattr(mc_split, "parts_of", lambda *of: taken.append(of[1]) or plain(*of))
    ours, other = passes(model, Accelerator("fold"))
    assert 1 < taken[0] < 5
    assert torch.equal(state, other)
    for one, two in zip(ours, whole, strict=True):
        torch.testing.assert_close(one, two)
    taken.clear()
    passes(model)  # not folded: bit by bit those of whole passes
    assert not taken


class Mixing(nn.Module):
    """Samples that see those before them, or are grouped in twos; then dropout."""

    def __init__(self, groups):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(6, CLASSES)
        self.groups = groups

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        x = x.view(-1, 2, 6).flip(1).flatten(0, 1) if self.groups else x.cumsum(0)
        return self.head(self.drop(x))


@pytest.mark.parametrize("groups", [False, True])
def test_samples_that_mix_run_as_a_whole(groups, monkeypatch, capfd):
    monkeypatch.setattr(in_parts, "PART_BYTES", 3 * 6 * 6 * 6 * 4)  # 3 samples of 8
    monkeypatch.setattr(sys.modules[__name__], "N", 14)
    torch.manual_seed(0)
    model, accelerator = Mixing(groups), Accelerator("fold")
    whole, state = passes(model, batch=8)
    ours, other = passes(model, accelerator, batch=8)
    assert accelerator.used == "fold"
    assert torch.equal(state, other)
    for one, two in zip(ours, whole, strict=True):
        torch.testing.assert_close(one, two)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["off", "fold"])
def test_a_batch_that_a_model_takes_whole_only_is_tried_whole(mode, monkeypatch):
    monkeypatch.setattr(mc_passes, "FEW", 3)  # of groups of two
    monkeypatch.setattr(sys.modules[__name__], "N", 8)
    torch.manual_seed(0)
    model = Mixing(groups=True)
    whole, state = passes(model, batch=8)
    ours, other = passes(model, Accelerator(mode), batch=8)
    assert torch.equal(state, other)
    for one, two in zip(ours, whole, strict=True):
        torch.testing.assert_close(one, two)


def test_a_batch_for_which_the_parts_fail_is_passed_whole(monkeypatch):
    plain = DropoutSplit.before

    def before(self, inputs):
        if len(inputs) == 3:
            raise RuntimeError("planted")
        return plain(self, inputs)

    model, accelerator = made("cnn"), Accelerator("fold")
    whole, state = passes(model)
    monkeypatch.setattr(DropoutSplit, "before", before)
    ours, other = passes(model, accelerator)
    assert accelerator.reason == "its parts fail: RuntimeError: planted"
    assert torch.equal(state, other)
    for one, two in zip(ours, whole, strict=True):
        torch.testing.assert_close(one, two)
