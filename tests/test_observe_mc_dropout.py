import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from dynal_fast import EMATeacher, PoolStats, observe_pool
from dynal_fast.pool import PoolObservationError, mc_kept
from dynal_fast.pool.mc_dropout import dropout_layers
from tests.cases.observe import Images, Recorder, run

PASSES = 3


class Sequences(nn.Module):
    """Features (batch, time, 8) to logits (batch, 3), with something in between."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.body(x)
        return self.head((x[0] if isinstance(x, tuple) else x).mean(1))


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)


class Functional(nn.Module):
    """Dropout by torch's functions, which are on in training mode only."""

    def __init__(self, function=functional.dropout, rate=0.5):
        super().__init__()
        self.function, self.rate = function, rate

    def forward(self, x):
        return self.function(x, self.rate, self.training)


class DefaultRate(nn.Module):
    def forward(self, x):
        return functional.dropout(x, training=self.training)


class PlainAttention(nn.Module):
    """Attention that drops nothing, between layers that do."""

    def __init__(self):
        super().__init__()
        self.dropout_rate = 0.5
        self.drop = nn.Dropout(self.dropout_rate)

    def forward(self, x):
        q = x[:, None]
        return self.drop(functional.scaled_dot_product_attention(q, q, q)[:, 0])


class Auxiliary(nn.Module):
    """A head with dropout that only training calls, as in GoogLeNet."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))
        self.drops = nn.ModuleList([nn.Dropout(0.5)])

    def forward(self, x):
        return (x, self.head(x)) if self.training else self.drops[0](x)


class FusedAttention(nn.Module):
    """Attention as most libraries write it: the rate is 0 in evaluation mode."""

    def __init__(self, rate=0.5, layer=False):
        super().__init__()
        self.attn_drop = nn.Dropout(rate) if layer else rate
        self.resid_drop = nn.Dropout(0.5)

    def forward(self, x):
        rate = self.attn_drop.p if isinstance(self.attn_drop, nn.Module) else self.attn_drop
        q = x[:, None]
        rate = rate if self.training else 0.0
        x = functional.scaled_dot_product_attention(q, q, q, dropout_p=rate)
        return self.resid_drop(x[:, 0])


class DropPath(nn.Module):
    """As timm has it: a layer of its own, not one of torch.nn."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(len(x), 1, 1).bernoulli_(1 - self.drop_prob)


class Gated(nn.Module):
    """A dropout layer that the model calls in training mode only."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x) if self.training else x


class GatedList(nn.Module):
    def __init__(self):
        super().__init__()
        self.drops = nn.ModuleList([nn.Dropout(0.5)])

    def forward(self, x):
        return self.drops[0](x) if self.training else x


def sequences(n=12):
    return torch.randn(n, 5, 8, generator=torch.Generator().manual_seed(0))


def pool(n=12):
    return [(torch.arange(n), sequences(n))]


def transformer(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)


RANDOM = {
    "layer": lambda: nn.Dropout(0.5),
    "in place": lambda: nn.Dropout(0.5, inplace=True),
    "alpha": lambda: nn.AlphaDropout(0.3),
    "fused transformer layer": lambda: transformer(dropout=0.5),
    "fused transformer": lambda: nn.TransformerEncoder(transformer(dropout=0.5), 2),
    "attention": lambda: SelfAttention(8, 2, dropout=0.5, batch_first=True),
    "lstm": lambda: nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True),
    "gru": lambda: nn.GRU(8, 8, 2, dropout=0.5, batch_first=True),
    "rnn": lambda: nn.RNN(8, 8, 2, dropout=0.5, batch_first=True),
    "of another library": lambda: DropPath(0.5),
}


@pytest.mark.parametrize("name", RANDOM)
def test_passes_are_as_random_as_training(name):
    """Without batch normalisation, the passes are those of training mode, bit for bit."""
    torch.manual_seed(0)
    model = Sequences(RANDOM[name]())
    torch.manual_seed(1)
    with torch.no_grad():
        want = [model.train()(sequences()) for _ in range(PASSES)]
    model.eval()
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats = run(model, pool(), mc_passes=PASSES)
    for index in range(PASSES):
        assert torch.equal(stats.outputs(1, index), want[index])
    assert not torch.equal(want[0], want[1])
    assert not any(module.training for module in model.modules())


def test_bald_of_a_fused_transformer_layer():
    torch.manual_seed(0)
    model, want = Sequences(transformer(dropout=0.5)), PoolStats(12, 3, track=("bald",))
    ids = torch.arange(12)
    torch.manual_seed(1)
    for _ in range(20):
        with want.observe(1, 1), torch.no_grad():
            want.update(ids, model.train()(sequences()))
    got = PoolStats(12, 3, track=("bald",))
    torch.manual_seed(1)
    assert observe_pool(model, pool(), got, epoch=1, num_epochs=1, mc_passes=20)
    assert torch.equal(got.score("bald"), want.score("bald"))
    assert got.score("bald").min() > 1e-4


@pytest.mark.parametrize("enabled", [True, False])
def test_the_fast_path_is_restored_also_after_an_exception(enabled):
    model = Sequences(transformer(dropout=0.5))
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        run(model, pool(), mc_passes=2)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        with pytest.raises(RuntimeError, match="planted"):
            run(model, pool(), Recorder(fail_at=0), mc_passes=2)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_all_but_dropout_is_in_evaluation_mode():
    data = Images()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 5)
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    stats = run(model, [(torch.arange(23), data.images)], mc_passes=PASSES)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.eval()[3].train()
    torch.manual_seed(1)
    with torch.no_grad():
        for index in range(PASSES):
            assert torch.equal(stats.outputs(1, index), model(data.images))


def test_the_teachers_dropout_stays_off_even_where_it_is_the_models():
    torch.manual_seed(0)
    model = Sequences(nn.Dropout(0.5))
    with torch.no_grad():
        want = model.eval()(sequences())
    for teacher in (model, nn.Sequential(model), EMATeacher(model)):
        stats = run(model, pool(), teacher=teacher, mc_passes=PASSES)
        assert all(torch.equal(stats.outputs(2, index), want) for index in range(PASSES))
        assert not torch.equal(stats.outputs(1, 0), stats.outputs(1, 1))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_looking_for_dropout_changes_no_pass(device):
    """Neither the random state nor the inputs of the first batch, nor the pool's own tensors."""
    torch.manual_seed(0)
    model, batches = Sequences(nn.Dropout(0.5, inplace=True)).to(device), pool()
    with torch.random.fork_rng():
        want = [model.train()(sequences().to(device)) for _ in range(PASSES)]
        state = torch.get_rng_state()
    stats = run(model, batches, mc_passes=PASSES)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(stats.outputs(1, index), want[index]) for index in range(PASSES))
    assert torch.equal(batches[0][1], sequences())


@pytest.mark.parametrize(("fits", "reads"), [(True, 1), (False, PASSES)])
def test_a_batch_is_loaded_once_or_once_for_each_pass(monkeypatch, fits, reads):
    """Once, where what comes before the first dropout fits into memory."""
    if not fits:
        monkeypatch.setattr(mc_kept, "MEMORY_BYTES", 0)
        monkeypatch.setattr(mc_kept, "FILE_BYTES", 0)

    class Counting:
        reads = 0

        def __len__(self):
            return 12

        def __getitem__(self, i):
            Counting.reads += 1
            return i, sequences()[i]

    model = Sequences(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)))
    run(model, DataLoader(Counting(), 4), mc_passes=PASSES)
    assert Counting.reads == 12 * reads


NOT_RANDOM = {
    "no dropout": (nn.Identity, "Sequences has none: all passes"),
    "a rate of 0": (
        lambda: nn.Dropout(0.0),
        r"has none; it has 'body' \(Dropout\) with a.* of 0",
    ),
    "a rate of 1": (
        lambda: nn.Dropout(1.0),
        r"has none; it has 'body' \(Dropout\) with a.* of 1",
    ),
    "transformer": (
        lambda: transformer(dropout=0.0),
        r"'body.self_attn' \(MultiheadAtt",
    ),
    "attention": (lambda: SelfAttention(8, 2, batch_first=True), "with a rate of 0"),
    "lstm": (lambda: nn.LSTM(8, 8, 2, batch_first=True), r"\(LSTM\) with a rate of 0"),
    "path": (lambda: DropPath(0.0), r"\(DropPath\) with a rate of 0"),
    "functions": (Functional, r"'body' \(Functional\) calls dropout, which is off"),
    "gated": (Gated, r"bit for bit.*'body.dropout' \(Dropout\) did not run"),
    "not reached": (
        lambda: nn.Sequential(nn.Dropout(0.5), nn.Hardtanh(-1e-9, -1e-9 / 2)),
        "bit for bit, so its dropout does not act",
    ),
}


@pytest.mark.parametrize("name", NOT_RANDOM)
@pytest.mark.parametrize("mc_passes", [1, 20])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_passes_that_would_be_the_same_are_an_error_before_anything_is_recorded(name, mc_passes):
    torch.manual_seed(0)
    layer, message = NOT_RANDOM[name]
    stats = Recorder()
    model = Sequences(layer()).train()
    with pytest.raises(ValueError, match=message):
        run(model, pool(), stats, mc_passes=mc_passes)
    assert stats.passes == []
    assert all(module.training for module in model.modules())


def test_no_false_alarm_where_two_passes_are_the_same_by_chance():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 2), nn.Dropout(0.3))  # one sample, two units
    for seed in range(10):
        torch.manual_seed(seed)
        run(model, [(torch.tensor([0]), torch.ones(1, 8))], mc_passes=2)


class NotANumber(nn.Module):
    """Calls its dropout for nothing; some samples are NaN."""

    def __init__(self, samples):
        super().__init__()
        self.samples = samples
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        self.dropout(x)
        return x.mean(1).index_fill(0, torch.arange(self.samples), torch.nan)


def test_nan_logits_are_not_taken_for_random_ones():
    with pytest.raises(ValueError, match="bit for bit"):
        run(NotANumber(5), pool(), mc_passes=2)


def test_nan_logits_are_left_to_the_tracker():
    stats = PoolStats(12, 8, track=("bald",))
    with pytest.raises(PoolObservationError, match="12 samples with a non-finite logit"):
        observe_pool(NotANumber(12), pool(), stats, epoch=1, num_epochs=1, mc_passes=2)


OFF = {
    "dropout": (lambda: Functional(), r"'1' \(Functional\) calls dropout, which is off"),
    "alpha": (lambda: Functional(functional.alpha_dropout), "calls alpha_dropout"),
    "feature alpha": (lambda: Functional(functional.feature_alpha_dropout), "calls feature_alpha"),
    "1d": (lambda: Functional(functional.dropout1d), "calls dropout1d"),
    "torch": (lambda: Functional(torch.dropout), "calls dropout"),
    "rate by default": (DefaultRate, r"'1' \(DefaultRate\) calls dropout"),
    "attention": (FusedAttention, r"'1' \(FusedAttention\) calls scaled_dot_product_attention"),
    "attention's layer": (
        lambda: FusedAttention(layer=True),
        r"'1.attn_drop' \(Dropout\) did not run",
    ),
    "gated": (Gated, r"'1.dropout' \(Dropout\) did not run"),
    "gated in a list": (GatedList, r"'1.drops.0' \(Dropout\) did not run"),
}


@pytest.mark.parametrize("name", OFF)
def test_what_cannot_be_switched_on_is_named(name):
    layer, message = OFF[name]
    model = nn.Sequential(nn.Dropout(0.5), layer(), Sequences(nn.Identity()))
    with pytest.warns(
        UserWarning, match=f"mc_passes: some dropout of Sequential.*{message}"
    ) as got:
        run(model, pool(), mc_passes=2)
    assert len(got) == 1
    assert got[0].filename.endswith("cases/observe.py")  # who called observe_pool


def test_many_are_cut_short():
    model = nn.Sequential(
        nn.Dropout(0.5), *(Functional() for _ in range(9)), Sequences(nn.Flatten(0, -2))
    )
    model[-1] = nn.Sequential(nn.Flatten(), nn.Linear(40, 3))
    with pytest.warns(UserWarning, match=r"'5' \(Functional\) calls dropout.* and 4 more\."):
        run(model, pool(), mc_passes=2)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: FusedAttention(rate=0.0),
        lambda: FusedAttention(rate=0.0, layer=True),
        PlainAttention,
        Auxiliary,
        lambda: Functional(rate=0.0),
        lambda: Functional(rate=1.0),
        lambda: nn.TransformerEncoder(transformer(dropout=0.1), 1),
        lambda: nn.LSTM(8, 8),
    ],
)
def test_nothing_is_named_where_nothing_is_off(layer):
    model = nn.Sequential(nn.Dropout(0.5), Sequences(layer()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, pool(), mc_passes=2)


def test_a_forward_may_switch_on_what_observe_pool_cannot():
    def forward(model, inputs):
        model[1].training = True
        return model(inputs)

    for layer in (Functional(), FusedAttention(), FusedAttention(layer=True)):
        model = nn.Sequential(nn.Dropout(0.5), layer, Sequences(nn.Identity())).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(model, pool(), mc_passes=2, forward=forward)
        assert layer.training is False


def test_dropout_that_is_always_on_needs_no_layer():
    class Always(nn.Module):
        def forward(self, x):
            return functional.dropout(x)

    stats = run(Sequences(Always()), pool(), mc_passes=2)
    assert not torch.equal(stats.outputs(1, 0), stats.outputs(1, 1))


def test_lazy_layers_are_made_by_the_first_pass():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Dropout(0.5), nn.LazyLinear(3)
    )
    run(model, pool(), mc_passes=2)
    assert torch.equal(model[2].running_mean, torch.zeros(6))

    class Late(nn.Module):
        def forward(self, x):
            if not hasattr(self, "body"):
                self.body = nn.Sequential(nn.Flatten(), nn.Linear(40, 3), nn.BatchNorm1d(3))
                self.body.append(nn.Dropout(0.5))
            return self.body(x)

    model = Late()
    stats = run(model, pool(), mc_passes=2)
    assert not torch.equal(stats.outputs(1, 0), stats.outputs(1, 1))
    assert model.body[2].num_batches_tracked <= 1  # the call that made it
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")]
)
def test_wrapped_models(wrap):
    model = wrap(nn.Sequential(nn.Dropout(0.5), Functional(), Sequences(transformer(dropout=0.5))))
    with pytest.warns(UserWarning, match=r"1' \(Functional\) calls dropout"):
        stats = run(model, pool(), mc_passes=2)
    assert not torch.equal(stats.outputs(1, 0), stats.outputs(1, 1))
    with pytest.raises(ValueError, match="has none"):
        run(wrap(Sequences(Functional())), pool(), mc_passes=2)


def test_which_layers_are_switched_on():
    class DropoutNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(2, 2)

    class StochasticDepth(nn.Module):
        p = 0.2

    class DropConnect(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))

    class MyDropout(nn.Module):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of dropout after a single layer
        model = nn.ModuleDict(
            {
                "dropout": nn.Dropout2d(0.1),
                "none": nn.Dropout(0.0),
                "all": nn.Dropout(1.0),
                "attention": nn.MultiheadAttention(4, 2, dropout=0.1),
                "lstm": nn.LSTM(2, 2, 2, dropout=0.1),
                "one layer": nn.LSTM(2, 2, 1, dropout=0.1),
                "path": DropPath(0.1),
                "no path": DropPath(0.0),
                "depth": StochasticDepth(),
                "rate unknown": MyDropout(),
                "a whole model": DropoutNet(),
                "has buffers": DropConnect(),
                "random, but no dropout": nn.RReLU(),
            }
        )
    assert list(dropout_layers(model)) == [
        "dropout",
        "attention",
        "lstm",
        "path",
        "depth",
        "rate unknown",
    ]


class Once(IterableDataset):
    """A data set over an iterator of its own."""

    def __init__(self, samples):
        self.samples = iter(samples)

    def __iter__(self):
        return self.samples


class ReturnsItself:
    """An iterator of one's own."""

    def __init__(self, batches):
        self.batches = list(batches)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.batches:
            raise StopIteration
        return self.batches.pop()


class Rewinds(ReturnsItself):
    """A loader in one class, which starts again whenever it is iterated."""

    def __iter__(self):
        self.batches = pool()
        return self


def test_a_loader_that_is_its_own_iterator_may_rewind():
    assert len(run(Sequences(nn.Dropout(0.5)), Rewinds([]), mc_passes=PASSES).passes) == PASSES


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    "once",
    [
        iter,
        lambda batches: (batch for batch in batches),
        lambda batches: map(tuple, batches),
        lambda batches: zip(*zip(*batches, strict=True), strict=True),
        Once,
        lambda batches: DataLoader(Once(batches), batch_size=None),
        lambda batches: iter(DataLoader(batches, batch_size=None)),
        lambda batches: ReturnsItself(batches),
    ],
)
def test_several_passes_over_an_iterator_are_an_error_before_anything_is_recorded(once, partial):
    model, stats = Sequences(nn.Dropout(0.5)), Recorder()
    with pytest.raises(ValueError, match="must be iterable 20 times for mc_passes=20"):
        run(model, once(pool()), stats, mc_passes=20, partial=partial)
    assert stats.passes == []
    run(model, once(pool()), mc_passes=1, partial=partial)


def test_a_pass_without_samples_is_an_error():
    class Draining:
        def __init__(self):
            self.batches = pool()

        def __iter__(self):
            while self.batches:
                yield self.batches.pop()

    with pytest.raises(ValueError, match="pass 2 of mc_passes=5 got no sample"):
        run(Sequences(nn.Dropout(0.5)), Draining(), mc_passes=5, partial=True)


@pytest.mark.parametrize("mc_passes", [np.int64(2), np.uint8(2), torch.tensor(2)])
def test_mc_passes_may_be_any_integer(mc_passes):
    assert len(run(Sequences(nn.Dropout(0.5)), pool(), mc_passes=mc_passes).passes) == 2


@pytest.mark.parametrize("mc_passes", [True, False, 2.0, np.float32(2), "2", None, [2]])
def test_mc_passes_of_another_type_are_refused(mc_passes):
    with pytest.raises(TypeError, match="mc_passes must be an integer, got"):
        run(Sequences(nn.Dropout(0.5)), pool(), mc_passes=mc_passes)


def test_a_negative_number_of_passes_is_refused():
    with pytest.raises(ValueError, match=r"mc_passes must be 0 .* or more, got -1"):
        run(Sequences(nn.Dropout(0.5)), pool(), mc_passes=-1)
