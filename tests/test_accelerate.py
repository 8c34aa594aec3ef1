"""Passes through a twin of the model: scores of the bare pass, for models of every kind."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from dynal_fast import Accelerator, EMATeacher, PoolStats, embedding_store, observe_pool
from dynal_fast.models import build_model
from dynal_fast.pool import accelerator as accelerator_module
from dynal_fast.pool import in_parts
from dynal_fast.pool import twin as twin_module

N, CLASSES = 22, 4
TRACK = ("margin", "prediction_stability", "absolute_increase")


class Residual(nn.Module):
    """Grouped convolutions, a sum, functional calls, an in-place ReLU that two parts read."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.again = nn.BatchNorm2d(8, affine=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        first = functional.max_pool2d(functional.relu(self.norm(self.one(x))), 2)
        second = functional.relu(self.again(self.two(first)), inplace=True)
        return self.head((first + second).relu().mean((2, 3)))


class InPlace(nn.Module):
    """What ReLU leaves in its input is read again, beside the pooled image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.conv(x)
        pooled = self.pool(self.relu(x))
        return self.head(pooled.mean((2, 3)) + x.mean((2, 3)))


class Twice(nn.Module):
    """One convolution before two norms, one of which sees other channels' statistics."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.free = nn.BatchNorm2d(4, track_running_stats=False)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.two(self.conv(self.one(self.conv(x)).relu()))
        return self.head(self.free(x).amax((2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x))).mean((2, 3)))


class OwnBuffers(nn.Module):
    """A registered offset, a plain tensor, and a table that the first forward makes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, CLASSES, 3)
        self.norm = nn.BatchNorm2d(CLASSES)
        self.register_buffer("offset", torch.linspace(0, 1, CLASSES))
        self.scale = torch.tensor(1.5)

    def forward(self, x):
        if not hasattr(self, "table"):
            self.register_buffer("table", torch.arange(1.0, CLASSES + 1))
        x = self.norm(self.conv(x)).mean((2, 3))
        return (x + self.offset.abs()) * self.scale * self.table


class Views(nn.Module):
    """Flat views of images, which channels-last ones do not have."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.head = nn.Linear(5 * 36, CLASSES)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().view(x.size(0), 5, -1)
        return self.head(x.view(-1, 5 * 36))


class Sequences(nn.Module):
    """Convolutions over time and a linear layer, each before a norm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.linear = nn.Linear(6, 5, bias=False)
        self.after = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x):
        x = self.norm(self.conv(x.flatten(2))).relu().mean(2)
        return {"logits": self.head(self.after(self.linear(x)).relu())}


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(4, 8, 2, stride=2)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.encoder(self.embed(x).flatten(2).mT).mean(1)))


class Squeeze(nn.Module):
    """Circular borders, a gate over channels, group norm, distances to prototypes in a buffer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.norm, self.groups = nn.BatchNorm2d(8), nn.GroupNorm(2, 8)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)
        self.register_buffer("prototypes", torch.randn(CLASSES, 8), persistent=False)

    def forward(self, x):
        x = self.norm(self.conv(x))
        x = self.groups(x * self.gate(functional.adaptive_avg_pool2d(x, 1)).sigmoid())
        x = functional.silu(x).mean((2, 3))
        return self.head(x) - torch.cdist(x, self.prototypes)


class Auxiliary(nn.Module):
    """A second output while it trains; dropout; a norm after a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d(6, momentum=None)
        self.drop = nn.Dropout2d(0.3)
        self.head, self.other = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.drop(self.norm(self.conv(x)).relu_()).amax((2, 3))
        return (self.head(x), self.other(x)) if self.training else self.head(x)


def parametrized():
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(4, 5, 3)),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        parametrizations.spectral_norm(nn.Linear(80, CLASSES)),
    )
    return model


MODELS = {
    "auxiliary": Auxiliary,
    "cnn": lambda: build_model("cnn", (4, 6, 6), CLASSES),
    "grouped": Residual,
    "in place": InPlace,
    "own buffers": OwnBuffers,
    "parametrized": parametrized,
    "sequences": Sequences,
    "squeeze": Squeeze,
    "tied": Tied,
    "transformer": Transformer,
    "twice": Twice,
    "views": Views,
}


def made(name_or_class, seed=0):
    torch.manual_seed(seed)
    model = (MODELS.get(name_or_class) or name_or_class)()
    shaken(model)
    return model


def shaken(model):
    """Change every weight, and give the norms statistics."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                if layer.running_mean is not None:
                    layer.running_mean.uniform_(-1, 1)
                    layer.running_var.uniform_(0.5, 2)
                if layer.weight is not None:
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.uniform_(-1, 1)
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))


def images():
    return torch.randn(N, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def pool(batch=6):
    return [(ids, images()[ids]) for ids in torch.arange(N).split(batch)]


class Recorder:
    """A tracker that keeps the logits of every pass."""

    num_samples = N

    def __init__(self):
        self.passes = []
        self.teacher = []

    def observes(self, epoch, num_epochs):
        return True

    def observe(self, epoch, num_epochs, partial=False):
        self.passes.append(torch.full((N, CLASSES), float("nan")))
        self.teacher.append(torch.full((N, CLASSES), float("nan")))
        return warnings.catch_warnings()

    def update(self, sample_ids, logits, teacher_logits=None):
        self.passes[-1] = self.passes[-1].to(logits.dtype)
        self.passes[-1][sample_ids] = logits
        if teacher_logits is not None:
            self.teacher[-1][sample_ids] = teacher_logits


def logits(model, accelerate="off", batches=None, **options):
    tracker = Recorder()
    options = {"epoch": 1, "num_epochs": 1, "progress": False, **options}
    observe_pool(model, batches or pool(), tracker, accelerate=accelerate, **options)
    return tracker.passes[-1]


@pytest.fixture
def compilations(monkeypatch):
    compiled = []

    def backend(graph_module, example_inputs):
        compiled.append(graph_module)
        return graph_module.forward

    monkeypatch.setattr(twin_module, "BACKEND", backend)
    yield compiled
    torch._dynamo.reset()


def near(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_pass_gives_the_scores_of_the_bare_pass_as_weights_change(name):
    model, accelerator = made(name), Accelerator("fold")
    before = None
    for _ in range(3):
        state = copy.deepcopy(model.state_dict())
        bare = logits(copy.deepcopy(model))
        ours = logits(model, accelerator)
        assert accelerator.used == "fold", accelerator.reason
        assert near(ours, bare)
        assert accelerator.error < 1e-5
        lazily = set(model.state_dict()) - set(state)
        assert lazily == ({"table"} if name == "own buffers" and before is None else set())
        assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)
        assert not any(part._forward_pre_hooks for part in model.modules())
        twin = accelerator._twin
        assert before in (None, twin)  # made once
        before = twin
        shaken(model)


def test_what_is_folded_is_gone_from_the_graph():
    model = made("grouped")
    accelerator = Accelerator("fold")
    logits(model, accelerator)
    twin = accelerator._twin
    assert len(twin._foldings) == 2
    kinds = [type(layer) for layer in twin.module.modules()]
    assert nn.BatchNorm2d not in kinds
    assert "relu_" in twin.module.code


def test_tracked_scores_are_those_of_the_bare_pass():
    model = made("cnn")
    trackers = []
    for accelerate in ("off", "fold"):
        stats = PoolStats(N, CLASSES, track=TRACK)
        for epoch in (1, 2):
            observe_pool(model, pool(), stats, epoch=epoch, num_epochs=2, accelerate=accelerate)
        trackers.append(stats)
    for name in TRACK:
        torch.testing.assert_close(*(stats.score(name) for stats in trackers))


@pytest.mark.parametrize("name", ["grouped", "auxiliary", "transformer"])
def test_training_is_bit_equal_with_and_without_an_accelerated_pass(name):
    def trained(accelerate):
        model = made(name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(5)
        for _ in range(2):
            model.train()
            output = model(images())
            if name == "auxiliary":
                output = output[0] + output[1]
            functional.cross_entropy(output, torch.arange(N) % CLASSES).backward()
            if accelerate:
                grads = [weight.grad.clone() for weight in model.parameters()]
                logits(model, accelerate)
                assert all(part.training for part in model.modules())
                for weight, grad in zip(model.parameters(), grads, strict=True):
                    assert torch.equal(weight.grad, grad)
            optimizer.step()
        return model.state_dict(), torch.get_rng_state()

    bare, state = trained(None)
    ours, other = trained(Accelerator("fold"))
    assert all(torch.equal(bare[name], ours[name]) for name in bare)
    assert torch.equal(state, other)


def test_embeddings_and_the_teacher_come_from_twins_too():
    model = made("grouped")
    teacher = EMATeacher(model, alpha=0.5)
    shaken(model)
    teacher.update()
    results = []
    for accelerate in ("off", Accelerator("fold")):
        store, tracker = embedding_store(model, N), Recorder()
        observe_pool(
            model,
            pool(),
            tracker,
            epoch=1,
            num_epochs=1,
            teacher=teacher,
            embeddings=store,
            accelerate=accelerate,
        )
        results.append((tracker.passes[0], tracker.teacher[0], store))
    assert accelerate.used == accelerate.of_teacher().used == "fold"
    for bare, ours in zip(*results, strict=True):
        assert near(ours, bare)
    assert not torch.equal(results[0][0], results[0][1])


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)

    def forward(self, x):
        x = self.norm(self.conv(x)).mean((2, 3))
        return x if x.sum() > 0 else 2 * x


class Counts(nn.Module):
    """Its forward changes a buffer, as a model that keeps its own statistics does."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.norm(self.conv(x)).mean((2, 3))


class Overwrites(nn.Module):
    """Its inputs: the twin is given what it left."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)

    def forward(self, x):
        return self.norm(self.conv(x.mul_(2).add_(1))).mean((2, 3))


class Draws(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)

    def forward(self, x):
        return functional.dropout(self.norm(self.conv(x)).mean((2, 3)), 0.5, True)


def hooked():
    model = nn.Sequential(nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES), nn.Flatten(2))
    model.add_module("pool", nn.AdaptiveAvgPool1d(1))
    model.add_module("flat", nn.Flatten())
    model[0].register_forward_hook(lambda module, inputs, output: 3 * output)
    return model


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Branches, "torch.fx cannot trace it"),
        (Counts, "its forward changes calls"),
        (Draws, "its logits of the first batch are off by"),
        (Overwrites, "its logits of the first batch are off by"),
        (hooked, "0 has forward hooks"),
        (lambda: nn.DataParallel(made("cnn")), "DataParallel runs code of its own"),
    ],
)
def test_what_has_no_twin_runs_as_it_is_and_says_so_once(model, why):
    model, accelerator = made(model), Accelerator("fold")
    other = copy.deepcopy(model)
    with pytest.warns(UserWarning, match=f"runs as it is: {why}") as told:
        ours = logits(model, accelerator)
    assert len(told) == 1
    assert told[0].filename.endswith("test_accelerate.py")
    assert accelerator.used == "off"
    assert accelerator.reason.startswith(why)
    bare = logits(other)
    if isinstance(model, Draws):
        assert (bare == 0).any()
    else:
        assert torch.equal(ours, bare)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(model, accelerator)
    assert accelerator.used == "off"
    if isinstance(model, Counts):
        assert model.calls == 8  # the live model ran every batch


def test_numbers_that_the_graph_holds_are_noticed_when_they_change():
    class Temperature(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)
            self.temperature = 1.0

        def forward(self, x):
            return self.norm(self.conv(x)).mean((2, 3)) / self.temperature

    model, accelerator = made(Temperature), Accelerator("fold")
    logits(model, accelerator)
    first = accelerator._twin
    model.temperature = 0.5
    assert near(logits(model, accelerator), logits(model))
    assert accelerator.used == "fold"
    assert accelerator._twin is not first


def test_a_difference_beyond_the_tolerance_falls_back(monkeypatch):
    monkeypatch.setitem(twin_module.TOLERANCE, torch.float32, 1e-12)
    model, accelerator = made("grouped"), Accelerator("fold")
    with pytest.warns(UserWarning, match=r"off by .* of the largest, and 1e-12 is allowed"):
        ours = logits(model, accelerator)
    assert torch.equal(ours, logits(model))


def test_models_that_change_their_shape_get_a_new_twin():
    model, accelerator = made("cnn"), Accelerator("fold")
    logits(model, accelerator)
    model[-1] = nn.Linear(64, CLASSES, bias=False)
    assert near(logits(model, accelerator), logits(model))
    assert accelerator.used == "fold"
    model.double()
    doubled = [(ids, inputs.double()) for ids, inputs in pool()]
    assert near(logits(model, accelerator, doubled), logits(model, "off", doubled))
    assert accelerator.used == "fold"
    assert accelerator.error < 1e-10


def test_nan_and_batches_of_other_sizes():
    model, accelerator = made("grouped"), Accelerator("fold")
    broken = pool()
    broken[0][1][2] = float("nan")
    broken[2][1][0] = float("inf")
    ours, bare = logits(model, accelerator, broken), logits(model, "off", broken)
    assert accelerator.used == "fold"
    assert torch.equal(ours.isnan(), bare.isnan())
    assert ours.isnan().any()
    rows = ~bare.isnan().any(1)
    assert near(ours[rows], bare[rows])


def test_a_pass_of_one_batch_has_nothing_to_gain():
    accelerator = Accelerator("fold")
    model = made("cnn")
    assert torch.equal(logits(model, accelerator, pool(N)), logits(model, "off", pool(N)))
    assert (accelerator.used, accelerator.reason) == ("off", "the pass is a single batch")


def test_dicts_and_functions_that_call_the_model():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)

        def forward(self, x, scale=None, mask=None):
            x = self.norm(self.one(x)).mean((2, 3))
            x = x if scale is None else x * scale
            return {"logits": x if mask is None else x * mask}

    model = made(Pairs)
    dicts = [{"id": ids, "x": x, "mask": x[:, :1, 0, 0] > 0} for ids, x in pool()]
    accelerator = Accelerator("fold")
    ours = logits(model, accelerator, dicts, ids="id")
    assert accelerator.used == "fold"
    assert near(ours, logits(model, "off", dicts, ids="id"))

    def halved(model, inputs):
        return model(inputs[0], scale=inputs[1])["logits"]

    twos = [(ids, (x, x.mean((1, 2, 3))[:, None])) for ids, x in pool()]
    accelerator = Accelerator("fold")
    ours = logits(model, accelerator, twos, forward=halved)
    assert accelerator.used == "fold"
    assert near(ours, logits(model, "off", twos, forward=halved))


def test_texts_are_not_tensors():
    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, CLASSES)

        def forward(self, texts):
            return self.head(torch.tensor([[float(len(text))] for text in texts]))

    words = [(torch.arange(start, start + 11), ["a" * i for i in range(11)]) for start in (0, 11)]
    accelerator = Accelerator("fold")
    with pytest.warns(UserWarning, match="its inputs hold a str"):
        logits(Texts(), accelerator, words)


def test_a_twin_is_kept_with_its_model_and_freed_with_it(monkeypatch):
    made_twins = []
    plain = twin_module.Twin.__init__

    def counted(self, *arguments):
        made_twins.append(1)
        plain(self, *arguments)

    monkeypatch.setattr(twin_module.Twin, "__init__", counted)
    model = made("cnn")
    for _ in range(3):
        logits(model, "fold")
    assert len(made_twins) == 1
    kept = weakref.ref(accelerator_module._KEPT[model][("fold", None, False)]._twin)
    del model
    gc.collect()
    assert kept() is None


def test_an_accelerator_serves_the_next_cycles_model():
    accelerator, first = Accelerator("fold"), None
    for seed in range(3):
        model = made("grouped", seed)
        assert near(logits(model, accelerator), logits(model))
        assert accelerator.used == "fold"
        first = first or accelerator._twin
        assert accelerator._twin is first


class GreyImages(nn.Module):
    """LeNet's first layers: weights and images of one channel, whose layout is ambiguous."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 3)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x):
        x = functional.max_pool2d(self.one(x.mean(1, keepdim=True)).relu(), 2)
        return self.head(self.two(x).relu().mean((2, 3)))


def test_images_of_one_channel_are_channels_last_from_the_first_convolution_on():
    model, accelerator = made(GreyImages), Accelerator("fold")
    assert near(logits(model, accelerator), logits(model))
    layers = accelerator._twin.module.get_submodule("model")
    made_by = layers.one(torch.zeros(2, 1, 6, 6))
    assert not made_by.is_contiguous()
    assert made_by.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["fold", "compile"])
def test_large_batches_run_in_parts(mode, monkeypatch, compilations):
    monkeypatch.setattr(in_parts, "PART_BYTES", 8 * 8 * 6 * 6 * 4)  # 8 samples of "grouped"
    model, accelerator = made("grouped"), Accelerator(mode)
    store, embeddings = embedding_store(model, N), embedding_store(model, N)
    for _ in range(2):
        bare = logits(model, batches=pool(15), embeddings=embeddings)
        assert near(logits(model, accelerator, pool(15), embeddings=store), bare)
        assert near(store, embeddings)
        assert accelerator.used == mode
        assert accelerator._twin.part == 8
        shaken(model)
    assert len(compilations) == (mode == "compile")  # the 7 other samples are not compiled


def test_batches_whose_samples_mix_run_as_a_whole(monkeypatch):
    monkeypatch.setattr(in_parts, "PART_BYTES", 1000)
    model, accelerator = (
        made("twice"),
        Accelerator("fold"),
    )  # a norm over the batch's own statistics
    for _ in range(2):
        assert near(logits(model, accelerator, pool(11)), logits(model, batches=pool(11)))
        assert (accelerator.used, accelerator._twin.in_parts) == ("fold", False)


class Mixing(nn.Module):
    """Samples that see those before them, or those of their group of ``groups``."""

    def __init__(self, groups=0):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, CLASSES)
        self.groups = groups
        self.share = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        if self.groups:
            x = x.view(-1, self.groups, 8)
            return self.head((x + self.share * x.mean(1, keepdim=True)).flatten(0, 1))
        return self.head(x + self.share * x.cumsum(0))


def sized(*sizes):
    images = torch.cat([inputs for _, inputs in pool()])
    return [(ids, images[ids]) for ids in torch.arange(N).split(sizes)]


@pytest.mark.parametrize("mode", ["fold", "compile"])
@pytest.mark.parametrize("groups", [0, 2])
def test_samples_that_mix_beyond_the_first_part_are_found(
    mode, groups, monkeypatch, compilations, capfd
):
    monkeypatch.setattr(in_parts, "PART_BYTES", 3 * 8 * 6 * 6 * 4)  # parts of 3, 3 and 2
    monkeypatch.setattr(accelerator_module, "FEW", 3)
    model, accelerator, batches = Mixing(groups), Accelerator(mode), sized(8, 8, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            ours = logits(model, accelerator, batches)
            assert near(ours, logits(model, batches=batches))
            assert (accelerator.used, accelerator._twin.in_parts) == (mode, False)
    assert capfd.readouterr().err == ""


def test_samples_that_begin_to_mix_are_found_in_a_later_pass(monkeypatch):
    monkeypatch.setattr(in_parts, "PART_BYTES", 4 * 8 * 6 * 6 * 4)
    monkeypatch.setattr(accelerator_module, "FEW", 3)
    model, accelerator, batches = Mixing(), Accelerator("fold"), sized(8, 8, 6)
    with torch.no_grad():
        model.share.zero_()
    plain, runs = twin_module.Twin.first, []
    monkeypatch.setattr(
        twin_module.Twin, "first", lambda *of: runs.append(len(of[2])) or plain(*of)
    )
    for expected in ([8], [3, 3]):
        assert near(logits(model, accelerator, batches), logits(model, batches=batches))
        assert (accelerator.used, accelerator._twin.part, runs) == ("fold", 4, expected)
        runs.clear()
    with torch.no_grad():
        model.share.fill_(1)
    assert near(logits(model, accelerator, batches), logits(model, batches=batches))
    assert (accelerator.used, accelerator._twin.in_parts) == ("fold", False)
    assert runs == [3, 3, 8, 8]


def test_batches_of_other_sizes_run_as_a_whole(monkeypatch):
    monkeypatch.setattr(in_parts, "PART_BYTES", 3 * 8 * 6 * 6 * 4)
    taken, plain = [], twin_module.parts_of
    monkeypatch.setattr(
        twin_module, "parts_of", lambda *of: taken.append(len(of[0][0])) or plain(*of)
    )
    model, accelerator = made("grouped"), Accelerator("fold")
    batches = sized(5, 5, 8, 4)
    assert near(logits(model, accelerator, batches), logits(model, batches=batches))
    assert taken == [5, 5]  # the first one to be compared


def test_a_batch_for_which_the_twin_fails_is_the_models_own(monkeypatch):
    plain = twin_module.Twin.__call__

    def fails(self, bare, sample_ids, inputs):
        if len(sample_ids) == 5:
            raise RuntimeError("planted")
        return plain(self, bare, sample_ids, inputs)

    monkeypatch.setattr(twin_module.Twin, "__call__", fails)
    model, accelerator, batches = made("grouped"), Accelerator("fold"), sized(8, 5, 9)
    with pytest.warns(
        UserWarning, match="runs such batches as it is: its twin fails: RuntimeError: planted"
    ):
        ours = logits(model, accelerator, batches)
    assert near(ours, logits(model, batches=batches))
    assert (accelerator.used, accelerator.reason) == (
        "fold",
        "its twin fails: RuntimeError: planted",
    )


# Compiled: torch.compile with a backend that compiles nothing, and counts.


@pytest.mark.parametrize("name", ["grouped", "transformer"])
def test_nothing_is_compiled_again_when_weights_change(name, compilations):
    accelerator = Accelerator("compile")
    for seed in range(3):
        model = made(name, seed)  # a new model of the same kind, as in the next cycle
        for _ in range(2):
            assert near(logits(model, accelerator), logits(model))
            assert (accelerator.used, accelerator.reason) == ("compile", "")
            shaken(model)
    assert len(compilations) == 1


def test_what_cannot_be_traced_is_compiled_as_it_is(compilations):
    model, accelerator = made(Branches), Accelerator("compile")
    with pytest.warns(UserWarning, match=r"compiled without folding: torch.fx cannot trace it"):
        ours = logits(model, accelerator)
    assert near(ours, logits(model))
    assert accelerator.used == "compile"
    assert compilations


def test_a_compiler_that_fails_leaves_the_folded_model(monkeypatch):
    def backend(graph_module, example_inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(twin_module, "BACKEND", backend)
    model, accelerator = made("grouped"), Accelerator("compile")
    with pytest.warns(UserWarning, match=r"is folded only: it cannot be compiled: .*"):
        ours = logits(model, accelerator)
    assert near(ours, logits(model))
    assert accelerator.used == "fold"
    assert "no compiler here" in accelerator.reason
    torch._dynamo.reset()


def test_auto_compiles_when_the_passes_to_come_pay_for_it(monkeypatch, compilations):
    model = made("grouped")
    accelerator = Accelerator("auto")
    logits(model, accelerator)
    assert (accelerator.used, compilations) == ("fold", [])
    monkeypatch.setattr(accelerator_module, "WORTH_COUNTING", 8)
    logits(model, accelerator)  # four batches of one pass
    assert accelerator._counted is None
    monkeypatch.setattr(accelerator_module, "SPEED", {"cpu": 1e3, "cuda": 1e3})
    logits(model, accelerator, num_epochs=1)
    assert accelerator.used == "fold"
    logits(model, accelerator, num_epochs=9)  # nine passes
    assert accelerator._counted[1] > 0
    assert accelerator.used == "compile"
    assert len(compilations) == 1
    assert near(logits(model, accelerator), logits(model))
    assert accelerator.used == "compile"  # stays
    assert Accelerator("auto", passes=9).passes == 9


@pytest.mark.parametrize(
    ("seconds", "used"),
    [
        ({"compile": 1.0, "fold": 2.0, "off": 3.0}, "compile"),
        ({"compile": 1.0, "fold": 0.95, "off": 0.95}, "compile"),  # no gain to speak of
        ({"compile": 2.0, "fold": 1.0, "off": 3.0}, "fold"),
        ({"compile": 2.0, "fold": 1.5, "off": 1.0}, "off"),
        ({"fold": 2.0, "off": 1.0}, "off"),
    ],
)
def test_auto_takes_a_simpler_way_where_it_is_faster(seconds, used, monkeypatch, compilations):
    clock = iter([*seconds.values(), *[None] * 9])
    monkeypatch.setattr(accelerator_module, "_seconds", lambda run: run() and next(clock))
    monkeypatch.setattr(accelerator_module, "WORTH_COUNTING", 4)
    if "compile" in seconds:
        monkeypatch.setattr(accelerator_module, "SPEED", {"cpu": 1.0, "cuda": 1.0})
    model, accelerator = made("grouped"), Accelerator("auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):  # the clock is read in the first pass
            assert near(logits(model, accelerator), logits(model))
            assert (accelerator.used, accelerator.settled) == (used, used)
            assert accelerator.reason or used != "off"
            shaken(model)
    resumed = Accelerator("auto")
    resumed.repeat(accelerator.settled)
    assert near(logits(model, resumed), logits(model))
    assert resumed.used == used


def test_auto_times_batches_whose_first_tensor_is_shared_by_all_samples(monkeypatch):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, CLASSES, 3), nn.BatchNorm2d(CLASSES)

        def forward(self, both):
            return self.norm(self.conv(both[1] * both[0].sum())).mean((2, 3))

    monkeypatch.setattr(accelerator_module, "WORTH_COUNTING", 4)
    model, accelerator = made(Scaled), Accelerator("auto")
    pairs = [(ids, (torch.ones(3), x)) for ids, x in pool()]
    ours = logits(model, accelerator, pairs)
    assert near(ours, logits(model, "off", pairs))
    assert accelerator.settled == "fold"


def test_auto_says_nothing_where_there_is_nothing_to_fold():
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, CLASSES))
    accelerator = Accelerator("auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(model, accelerator)
    assert (accelerator.used, accelerator.reason) == ("off", "there is nothing to fold")
    with pytest.warns(UserWarning, match="there is nothing to fold"):
        logits(model, "fold")


def test_inductor_compiles_once_for_all_weights():
    if torch._inductor.config.cpp.cxx is None:
        pytest.skip("no C++ compiler")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(144, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)
    )
    accelerator = Accelerator("compile")
    for _ in range(2):
        shaken(model)
        assert near(logits(model, accelerator), logits(model))
        assert accelerator.used == "compile"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    torch._dynamo.reset()


@pytest.mark.parametrize("mode", ["fast", None, True, 1])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match="accelerate must be one of off, fold, compile, auto"):
        logits(made("cnn"), mode)


def test_an_accelerator_refuses_other_modes():
    with pytest.raises(ValueError, match=r"accelerate must be one of .*, got 'fast'"):
        Accelerator("fast")
